"""The file editor tool: view, create, replace, insert, undo. Files are UTF-8 text named by absolute paths.

Runs in a thread, because a disk may be slow. What it may reach is decided by the container, not here. Texts in its
observations are masked by the caller.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from runtime.agent.tools.file_view import lines_of, numbered, show_directory, show_file
from runtime.events.actions import FileEditorAction, FileEditorObservation, Observation
from runtime.events.content import Closed, TextContent
from runtime.events.models import ToolAnnotations
from runtime.machine import account
from runtime.machine.files import is_kernels

_MOST_BYTES = 10 << 20
#: contents beyond this stay out of the event, which must fit a socket frame
_MOST_CONTENT = 150_000
_UNDO_DEPTH = 20
_CONTEXT_LINES = 4


class EditRefused(Exception):
    """The edit cannot be made; the text tells the model why."""


class FileEditorTool:
    """Keeps the last contents of files it changed, for undo."""

    name: ClassVar[str] = "file_editor"
    description: ClassVar[str] = (
        "View and change text files. `view` shows a file with line numbers (or part of it by view_range, last line -1 "
        "for the end) or lists a directory two levels deep. `create` makes a new file and refuses an existing one. "
        "`str_replace` replaces old_str, which must occur exactly once, blanks and line ends included, by new_str. "
        "`insert` puts new_str after line insert_line, 0 being the top. `undo_edit` takes back the last change of a "
        "file. Paths are absolute."
    )
    properties: ClassVar[Mapping[str, Any]] = {
        "command": {"type": "string", "enum": ["view", "create", "str_replace", "insert", "undo_edit"]},
        "path": {"type": "string", "description": "Absolute path of the file or directory."},
        "file_text": {"type": "string", "description": "Whole content; for `create`."},
        "old_str": {"type": "string", "description": "Text to replace; for `str_replace`."},
        "new_str": {"type": "string", "description": "New text; for `str_replace` and `insert`."},
        "insert_line": {"type": "integer", "minimum": 0, "description": "Line to insert after; for `insert`."},
        "view_range": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "First and last line to show, from 1; for `view` of a file.",
        },
    }
    required: ClassVar[Sequence[str]] = ("command", "path")
    kind: ClassVar[str] = "FileEditor"
    action_class: ClassVar[type[Closed]] = FileEditorAction
    annotations: ClassVar[ToolAnnotations] = ToolAnnotations(
        title="file_editor", readOnlyHint=False, destructiveHint=True, idempotentHint=False, openWorldHint=False
    )

    def __init__(self) -> None:
        self._before: dict[Path, deque[str]] = {}

    async def run(self, action: FileEditorAction) -> Observation:
        return await account.in_thread(self._run, action)

    async def close(self) -> None:
        """Nothing runs."""

    def _run(self, action: FileEditorAction) -> FileEditorObservation:
        path = Path(action.path)
        try:
            if not path.is_absolute():
                raise EditRefused(f"The path {action.path} is not absolute: it should begin with a slash.")
            if is_kernels(path.resolve()):
                # What the kernel shows there is about the reader, which is the server with its keys.
                raise EditRefused(f"{action.path} is no file of the disk; use the terminal for it.")
            match action.command:
                case "view":
                    return self._view(path, action)
                case "create":
                    return self._create(path, action)
                case "str_replace":
                    return self._replace(path, action)
                case "insert":
                    return self._insert(path, action)
                case "undo_edit":
                    return self._undo(path)
        except EditRefused as refusal:
            return _failed(action, str(refusal))
        except OSError as error:
            return _failed(action, f"{action.path}: {error.strerror or 'cannot be opened'}")
        except RuntimeError:  # how this Python tells of links that lead in a circle
            return _failed(action, f"{action.path}: too many symbolic links")
        except ValueError as error:  # a path with a NUL
            return _failed(action, f"The path is not usable: {error}")

    def _view(self, path: Path, action: FileEditorAction) -> FileEditorObservation:
        if path.is_dir():
            if action.view_range is not None:
                raise EditRefused("view_range is for files; the path is a directory.")
            return _observed("view", path, show_directory(path))
        content = _read(path)
        return _observed("view", path, show_file(path, content, _checked_range(action.view_range, content)))

    def _create(self, path: Path, action: FileEditorAction) -> FileEditorObservation:
        if action.file_text is None:
            raise EditRefused("`create` needs file_text.")
        if path.exists():
            raise EditRefused(
                f"{path} exists already; `create` does not overwrite. Use `str_replace`, or another name."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(action.file_text, encoding="utf-8", newline="")
        return _observed("create", path, f"File created successfully at: {path}", existed=False, new=action.file_text)

    def _replace(self, path: Path, action: FileEditorAction) -> FileEditorObservation:
        if not action.old_str:
            raise EditRefused("`str_replace` needs old_str, the text to replace.")
        new_str = action.new_str or ""
        if new_str == action.old_str:
            raise EditRefused("old_str and new_str are the same; nothing would change.")
        old = _read(path)
        found = old.count(action.old_str)
        if found == 0:
            raise EditRefused(f"old_str does not occur in {path}. Compare blanks and line ends with what `view` shows.")
        if found > 1:
            raise EditRefused(f"old_str occurs {found} times in {path}; give more of the text around the one you mean.")
        line = old[: old.index(action.old_str)].count("\n")
        new = old.replace(action.old_str, new_str, 1)
        return self._changed("str_replace", path, old, new, line, new_str.count("\n"))

    def _insert(self, path: Path, action: FileEditorAction) -> FileEditorObservation:
        if action.insert_line is None or action.new_str is None:
            raise EditRefused("`insert` needs insert_line and new_str.")
        old = _read(path)
        lines = lines_of(old)
        if action.insert_line > len(lines):
            raise EditRefused(f"insert_line is {action.insert_line}, but {path} has {len(lines)} lines.")
        before = "".join(lines[: action.insert_line])
        if before and not before.endswith("\n"):
            before += "\n"
        text = action.new_str if action.new_str.endswith("\n") else f"{action.new_str}\n"
        new = before + text + "".join(lines[action.insert_line :])
        return self._changed("insert", path, old, new, action.insert_line, text.count("\n") - 1)

    def _changed(
        self, command: str, path: Path, old: str, new: str, first_line: int, more_lines: int
    ) -> FileEditorObservation:
        _write(path, new)
        self._before.setdefault(path, deque(maxlen=_UNDO_DEPTH)).append(old)
        lines = new.split("\n")
        start = max(0, first_line - _CONTEXT_LINES)
        shown = numbered(lines[start : first_line + more_lines + 1 + _CONTEXT_LINES], first=start + 1)
        text = f"{path} was edited. It now reads, around the change:\n{shown}"
        return _observed(command, path, text, old=old, new=new)

    def _undo(self, path: Path) -> FileEditorObservation:
        stack = self._before.get(path)
        if not stack:
            raise EditRefused(f"No edit of {path} is left to undo.")
        now = _read(path)
        old = stack.pop()
        _write(path, old)
        return _observed("undo_edit", path, f"The last edit of {path} was undone.", old=now, new=old)


def _observed(
    command: Any, path: Path, text: str, *, existed: bool = True, old: str | None = None, new: str | None = None
) -> FileEditorObservation:
    small = len(old or "") + len(new or "") <= _MOST_CONTENT
    return FileEditorObservation(
        content=[TextContent(text=text)],
        command=command,
        path=str(path),
        prev_exist=existed,
        old_content=old if small else None,
        new_content=new if small else None,
    )


def _failed(action: FileEditorAction, text: str) -> FileEditorObservation:
    return FileEditorObservation(
        content=[TextContent(text=text)], is_error=True, command=action.command, path=action.path
    )


def _read(path: Path) -> str:
    if path.is_dir():
        raise EditRefused(f"{path} is a directory.")
    if path.exists() and not path.is_file():
        raise EditRefused(f"{path} is no regular file.")
    if path.stat().st_size > _MOST_BYTES:
        raise EditRefused(f"{path} is larger than {_MOST_BYTES >> 20} MiB; use the terminal for it.")
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise EditRefused(f"{path} is not UTF-8 text; use the terminal for it.") from None


def _write(path: Path, content: str) -> None:
    """In place, so that links, owner and mode stay; a failure leaves the old content where the disk allows."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode())
        file.truncate()


def _checked_range(view_range: Sequence[int] | None, content: str) -> tuple[int, int] | None:
    """First and last line, from 1 and inclusive."""
    if view_range is None:
        return None
    count = len(lines_of(content))
    if len(view_range) != 2:
        raise EditRefused("view_range must be two line numbers.")
    first, last = view_range
    last = count if last == -1 else last
    if not 1 <= first <= max(count, 1) or last < first:
        raise EditRefused(f"view_range must lie within 1 and {count} in rising order, or end in -1.")
    return first, min(last, count)
