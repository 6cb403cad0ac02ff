"""What is taken in as a copy of a conversation: nothing lies outside of the workspace, and half a copy is none."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from runtime.conversations.copying import BadCopy, Copies
from runtime.conversations.folder import Folders
from runtime.machine.files import BadPath, Boundaries
from runtime.store.cipher import Cipher

ID, SOURCE = uuid4(), uuid4()
EVENT = {
    "id": str(uuid4()),
    "timestamp": "2026-01-01T00:00:00.000001",
    "source": "environment",
    "kind": "ConversationStateUpdateEvent",
    "key": "execution_status",
    "value": "idle",
}
LINE = json.dumps(EVENT).encode() + b"\n"
Entries = list[tuple[tarfile.TarInfo, bytes]]


def entry(name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "") -> Entries:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, 0o4755
    made.size = len(content) if kind == tarfile.REGTYPE else 0
    return [(made, content)]


def whole(*inside: Entries, log: bytes = LINE, head: bytes = b"", end: bool = True) -> bytes:
    head = head or json.dumps({"source": str(SOURCE)}).encode()
    entries = [*entry("conversation.json", head), *entry("events.jsonl", log)]
    entries += [one for some in inside for one in some] + (entry("end") if end else [])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    (made / "old").mkdir()
    (made / "old" / "file").write_text("of before")
    return made


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    return Copies(Folders(tmp_path / "conversations", Cipher(None)))


@pytest.fixture
def take(copies: Copies, root: Path) -> Callable[[bytes], None]:
    return lambda packed: copies.take(io.BufferedReader(io.BytesIO(packed)), ID, root, Boundaries())  # type: ignore[type-var]


def test_it_becomes_the_log_and_the_workspace(
    take: Callable[[bytes], None], copies: Copies, root: Path, tmp_path: Path
) -> None:
    place = tmp_path / "conversations" / ID.hex
    take(
        whole(
            entry("workspace/folder", kind=tarfile.DIRTYPE),
            entry("workspace/folder/file", b"content"),
            entry("workspace/link", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        )
    )
    assert sorted(os.listdir(root)) == ["folder", "link"]
    assert (root / "folder" / "file").read_bytes() == b"content"
    assert (root / "folder" / "file").stat().st_mode & 0o7777 == 0o755
    assert not place.exists()
    found = copies.begin(ID)
    assert found is not None
    assert found.source == SOURCE
    assert json.loads((place / "events.jsonl").read_bytes())["id"] == EVENT["id"]
    assert copies.begin(ID) is None


def test_the_runtimes_own_files_are_not_removed_for_it(copies: Copies, root: Path) -> None:
    own = Boundaries([root / "old"])
    with pytest.raises(BadCopy, match="would be emptied"):
        copies.take(io.BufferedReader(io.BytesIO(whole())), ID, root, own)  # type: ignore[type-var]
    assert (root / "old" / "file").read_text() == "of before"


PAX = entry("workspace/file", b"x")
PAX[0][0].pax_headers = {"comment": "x" * (2 << 20)}
BAD = {
    "a path above": whole(entry("workspace/../out", b"x")),
    "an absolute path": whole(entry("/out", b"x")),
    "an absolute path inside": whole(entry("workspace//out/../../out", b"x")),
    "the runtime's own name": whole(entry("other/file", b"x")),
    "through a link": whole(
        entry("workspace/link", kind=tarfile.SYMTYPE, link=".."), entry("workspace/link/out", b"x")
    ),
    "over a link": whole(entry("workspace/out", kind=tarfile.SYMTYPE, link="../out"), entry("workspace/out", b"x")),
    "a hard link": whole(entry("workspace/link", kind=tarfile.LNKTYPE, link="/etc/passwd")),
    "a device": whole(entry("workspace/null", kind=tarfile.CHRTYPE)),
    "a pipe": whole(entry("workspace/pipe", kind=tarfile.FIFOTYPE)),
    "a long header": whole(PAX),
    "no end": whole(entry("workspace/file", b"x"), end=False),
    "cut": whole(entry("workspace/file", b"x" * 5000))[:-12_000],
    "no event": whole(log=b'{"kind": "NoSuchEvent"}\n'),
    "an event twice": whole(log=LINE * 2),
    "half a line": whole(log=LINE[:-1]),
    "no record": whole(head=b"{}"),
    "no archive": b"x" * 20_000,
    "nothing": b"",
}


@pytest.mark.parametrize("packed", BAD.values(), ids=BAD.keys())
def test_what_is_no_copy_is_refused_and_leaves_nothing_outside(
    packed: bytes, take: Callable[[bytes], None], copies: Copies, root: Path, tmp_path: Path
) -> None:
    with pytest.raises((BadCopy, BadPath, OSError)):
        take(packed)
    assert copies.begin(ID) is None
    assert sorted(os.listdir(tmp_path)) in (["conversations", "work"], ["work"])
    assert not (tmp_path / "conversations").exists() or os.listdir(tmp_path / "conversations") == []
