"""The file editor on real files."""

import os
from pathlib import Path

import pytest

from runtime.agent.tools.file_editor import FileEditorTool
from runtime.events.actions import FileEditorAction, FileEditorObservation
from runtime.events.content import text_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def editor() -> FileEditorTool:
    return FileEditorTool()


async def do(editor: FileEditorTool, command: str, path: Path | str, **more: object) -> FileEditorObservation:
    action = FileEditorAction(command=command, path=str(path), **more)  # type: ignore[arg-type]
    observation = await editor.run(action)
    assert isinstance(observation, FileEditorObservation)
    return observation


async def test_create_view_replace_insert_undo(editor: FileEditorTool, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.txt"
    made = await do(editor, "create", file, file_text="one\r\ntwo\nthree")
    assert (made.prev_exist, made.new_content, made.old_content) == (False, "one\r\ntwo\nthree", None)
    assert text_of(made.content) == f"File created successfully at: {file}"
    assert file.read_bytes() == b"one\r\ntwo\nthree"
    file.chmod(0o755)

    replaced = await do(editor, "str_replace", file, old_str="two", new_str="2\n2b")
    assert (replaced.old_content, replaced.new_content) == ("one\r\ntwo\nthree", "one\r\n2\n2b\nthree")
    inserted = await do(editor, "insert", file, insert_line=4, new_str="four")
    assert inserted.new_content == "one\r\n2\n2b\nthree\nfour\n"
    assert "     5\tfour" in text_of(inserted.content)
    assert file.stat().st_mode & 0o777 == 0o755

    for _ in range(2):
        assert not (await do(editor, "undo_edit", file)).is_error
    assert file.read_bytes() == b"one\r\ntwo\nthree"
    assert (await do(editor, "undo_edit", file)).is_error
    viewed = await do(editor, "view", file, view_range=[2, -1])
    assert text_of(viewed.content).endswith("     2\ttwo\n     3\tthree")
    assert viewed.new_content is None


async def test_lines_are_counted_as_compilers_count_them(editor: FileEditorTool, tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    content = "one\x0c still one\u2028\x85\x1c\r\ntwo\nthree"
    file.write_bytes(content.encode())
    assert text_of((await do(editor, "view", file, view_range=[2, -1])).content).endswith("     2\ttwo\n     3\tthree")
    inserted = await do(editor, "insert", file, insert_line=1, new_str="between")
    assert file.read_bytes() == content.replace("\r\ntwo", "\r\nbetween\ntwo").encode()
    assert "     2\tbetween\n     3\ttwo" in text_of(inserted.content)
    assert (await do(editor, "insert", file, insert_line=5, new_str="x")).is_error
    empty = tmp_path / "empty"
    empty.touch()
    assert not (await do(editor, "view", empty)).is_error
    await do(editor, "insert", empty, insert_line=0, new_str="x")
    assert empty.read_text() == "x\n"


async def test_a_directory_is_listed_two_levels_deep(editor: FileEditorTool, tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / ".hidden").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    listed = text_of((await do(editor, "view", tmp_path)).content)
    assert listed.splitlines()[1:] == [f"{tmp_path}/a/", f"{tmp_path}/a/b/", f"{tmp_path}/loop"]


@pytest.mark.parametrize(
    ("command", "name", "more", "told"),
    [
        ("view", "missing", {}, "No such file"),
        ("view", "binary", {}, "not UTF-8"),
        ("view", "pipe", {}, "no regular file"),
        ("view", "file", {"view_range": [3, 2]}, "view_range"),
        ("view", "file", {"view_range": [1]}, "view_range"),
        ("view", "", {"view_range": [1, 2]}, "directory"),
        ("create", "file", {"file_text": "x"}, "exists"),
        ("create", "new", {}, "file_text"),
        ("str_replace", "file", {"old_str": "absent", "new_str": ""}, "does not occur"),
        ("str_replace", "file", {"old_str": "line", "new_str": ""}, "2 times"),
        ("str_replace", "file", {"old_str": "line 1", "new_str": "line 1"}, "nothing would change"),
        ("str_replace", "file", {"new_str": "x"}, "old_str"),
        ("insert", "file", {"insert_line": 99, "new_str": "x"}, "2 lines"),
        ("insert", "file", {"new_str": "x"}, "insert_line"),
    ],
)
async def test_what_cannot_be_done_is_told_and_changes_nothing(
    editor: FileEditorTool, tmp_path: Path, command: str, name: str, more: dict[str, object], told: str
) -> None:
    (tmp_path / "file").write_text("line 1\nline 2\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    os.mkfifo(tmp_path / "pipe")
    observation = await do(editor, command, tmp_path / name, **more)
    assert observation.is_error
    assert told in text_of(observation.content)
    assert (tmp_path / "file").read_text() == "line 1\nline 2\n"


async def test_relative_paths_are_refused(editor: FileEditorTool) -> None:
    assert (await do(editor, "view", "a.txt")).is_error
    assert (await do(editor, "view", "/a\0b")).is_error


async def test_large_contents_stay_out_of_the_event(editor: FileEditorTool, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_text("line\n" * 200_000)
    inserted = await do(editor, "insert", file, insert_line=0, new_str="first")
    assert (inserted.old_content, inserted.new_content) == (None, None)
    assert len(inserted.model_dump_json()) < 10_000
    viewed = await do(editor, "view", file)
    assert len(text_of(viewed.content)) < 31_000
