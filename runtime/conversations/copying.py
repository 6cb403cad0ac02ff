"""A conversation as one stream, for a runtime of its own: given out here up to an event, and taken in there.

A tar archive: what it goes on with (`conversation.json`), its log line by line with ids (`events.jsonl`), its working
directory (`workspace/...`) as it is now or as a version has it (`versions.py`), and a last entry that says that it is
whole. `forking.py` copies within one runtime. What is taken in lies beside the conversations until one is begun with
it. Both directions block: call them in a thread.
Who sends may be hostile: no name leads out of the working directory, no link is followed, and nothing grows in memory.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, cast
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.conversations.folder import Folders
from runtime.conversations.policies import ConfirmationPolicy, NeverConfirm, SecurityAnalyzer
from runtime.conversations.record import ConversationRecord
from runtime.events.log import DuplicateEvent, EventLog
from runtime.events.models import parse
from runtime.machine import account, archives
from runtime.machine.files import Boundaries
from runtime.machine.workspace import Workspace, parts_of
from runtime.store.files import private_directory, write_atomic

_RECORD, _EVENTS, _WORKSPACE, _END = "conversation.json", "events.jsonl", "workspace/", "end"
_BLOCK = 200
_MOST_RECORD_BYTES = 1 << 20
_MOST_LINE_BYTES = 64 << 20
_MOST_HEADER_BYTES = 1 << 20
_PIECE = 256 << 10
_EXTENDED: Final = frozenset({tarfile.XHDTYPE})
_KINDS: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE})

#: writes a folder into an archive, under names that begin with a prefix; links as of a folder at that path
Adding = Callable[[tarfile.TarFile, str, Path], None]


class BadCopy(Exception):
    """The stream is no copy of a conversation; the text is told to the caller."""


class Carried(BaseModel):
    """What a copy goes on with, beside its log."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    source: UUID
    from_event_id: UUID | None = None  #: the copy ends with it; None: all of the log was copied
    leaf_event_id: UUID | None = None  #: of all of the log: where the conversation stands in it
    branched: bool = False
    confirmation_policy: ConfirmationPolicy = Field(default_factory=lambda: NeverConfirm(kind="NeverConfirm"))
    security_analyzer: SecurityAnalyzer | None = None

    def put_into(self, record: ConversationRecord) -> None:
        """Once the record knows its log."""
        record.forked_from_conversation_id = self.source
        record.forked_from_event_id = None if self.from_event_id is None else str(self.from_event_id)
        record.branched = self.branched
        if self.from_event_id is None and self.branched:
            record.leaf_event_id = None if self.leaf_event_id is None else str(self.leaf_event_id)
        record.confirmation_policy = self.confirmation_policy.model_dump()
        record.security_analyzer = None if self.security_analyzer is None else self.security_analyzer.model_dump()


def carried(record: ConversationRecord, events: EventLog, count: int) -> bytes:
    """What a copy of the first `count` events goes on with."""
    last = events.index.id_at(count - 1) if 0 < count < len(events) else None
    fields: dict[str, Any] = {
        "source": record.id,
        "from_event_id": last,
        "leaf_event_id": record.leaf_event_id,
        "branched": record.branched if count else False,
        "confirmation_policy": record.confirmation_policy,
        "security_analyzer": record.security_analyzer,
    }
    return Carried.model_validate(fields).model_dump_json().encode()


def write(
    pipe: io.BufferedWriter,
    head: bytes,
    events: EventLog,
    count: int,
    root: Path,
    limits: Boundaries,
    version: Adding | None = None,
) -> None:
    """The first `count` events, and the folder `root` as it is now, or as `version` adds it. Raises
    BrokenPipeError when nobody reads any more, OSError, BadPath."""
    with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(_file(_RECORD, len(head)), io.BytesIO(head))
        size = events.reading(lambda: events.index.span(0, count)[1]) if count else 0
        archive.addfile(_file(_EVENTS, size), cast(io.BufferedReader, _Lines(events, count)))
        if version is not None:
            version(archive, _WORKSPACE, root)
        else:
            with account.acting(), Workspace(root, limits).folder(()) as folder:
                archives.add(archive, folder, limits, prefix=_WORKSPACE, root=root)
        archive.addfile(_file(_END, 0))


def _file(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    return entry


class _Lines:
    """Reads the first lines of a log as the file that they are."""

    def __init__(self, events: EventLog, count: int) -> None:
        self._events, self._count = events, count
        self._next, self._rest = 0, b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and self._next < self._count:
            lines = self._events.lines(self._next, min(self._next + _BLOCK, self._count))
            self._next += len(lines)
            self._rest += b"".join(line + b"\n" for line in lines)
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


class Copies:
    """Those that were taken in and have not begun, beside the conversations of this runtime."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders

    def take(self, pipe: io.BufferedReader, id: UUID, root: Path, limits: Boundaries) -> None:
        """What `write` wrote: the log in a folder of its own, the rest in `root`, which is emptied before. One that is
        there already is replaced. Raises BadCopy, BadPath, OSError; then there is none."""
        if any(root.resolve() in (own, *own.parents) for own in limits.private):
            raise BadCopy("files of the runtime itself lie in its working directory, which would be emptied")
        place = self._place(id)
        shutil.rmtree(place, ignore_errors=True)
        private_directory(place.parent)
        private_directory(place)
        try:
            with tarfile.open(fileobj=pipe, mode="r|", tarinfo=_Member) as archive:
                head = _read(archive, _next(archive, _RECORD))
                _take_log(archive, _next(archive, _EVENTS), place)
                with account.acting():
                    _empty(root)
                    _take_files(archive, Workspace(root, limits))
            write_atomic(place / _RECORD, head)
        except (tarfile.TarError, ValueError, DuplicateEvent) as error:  # ValidationError is a ValueError
            shutil.rmtree(place, ignore_errors=True)
            raise BadCopy(f"this is no copy of a conversation ({type(error).__name__})") from None
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise

    def begin(self, id: UUID) -> Carried | None:
        """Make the folder of the conversation of what was taken in for it; None: nothing was. Raises OSError."""
        try:
            found = Carried.model_validate_json((self._place(id) / _RECORD).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        os.rename(self._place(id), self._folders.path(id))
        return found

    def _place(self, id: UUID) -> Path:
        path = self._folders.path(id)
        return path.with_name(f"{path.name}.taken-in")


class _Member(tarfile.TarInfo):
    """One header. The library reads whole what a header announces as a longer name: that is bounded here."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type not in _KINDS and not (member.type in _EXTENDED and member.size <= _MOST_HEADER_BYTES):
            raise ValueError
        return member


def _next(archive: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    member = archive.next()
    if member is None or member.name != name or not member.isreg():
        raise BadCopy(f"this is no copy of a conversation: {name} is not where it should be")
    return member


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None or member.size > _MOST_RECORD_BYTES:
        raise BadCopy("this is no copy of a conversation: its record is too long")
    head = file.read()
    Carried.model_validate_json(head)
    return head


def _take_log(archive: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    file, log = archive.extractfile(member), EventLog(place)
    try:
        while file is not None and (line := file.readline(_MOST_LINE_BYTES)):
            if not line.endswith(b"\n"):
                raise BadCopy("this is no copy of a conversation: a line of its log has no end, or is too long")
            log.append(parse(line))
        log.sync()
    finally:
        log.close()


def _empty(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with os.scandir(root) as found:
        for entry in list(found):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def _take_files(archive: tarfile.TarFile, workspace: Workspace) -> None:
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined] # else it keeps every one of them
        if member.name == _END:
            return
        parts = parts_of(member.name.removeprefix(_WORKSPACE))
        if not member.name.startswith(_WORKSPACE) or not parts or member.issparse():
            raise BadCopy("this is no copy of a conversation: it names something that is not in its workspace")
        with workspace.folder(parts[:-1], make=True) as folder:
            if member.isdir():
                os.mkdir(parts[-1], _mode(member) | 0o700, dir_fd=folder)
            elif member.issym():
                os.symlink(member.linkname, parts[-1], dir_fd=folder)
            else:
                _take_file(archive, member, folder, parts[-1])
    raise BadCopy("the copy of the conversation broke off before its end")


def _take_file(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: int, name: str) -> None:
    file = archive.extractfile(member)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb") as target:
        while file is not None and (piece := file.read(_PIECE)):
            target.write(piece)
        target.flush()
        os.fchmod(target.fileno(), _mode(member))
        os.utime(target.fileno(), (member.mtime, member.mtime))


def _mode(member: tarfile.TarInfo) -> int:
    """Who may read, write and execute; no other right is carried over."""
    return member.mode & 0o777
