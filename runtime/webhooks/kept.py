"""What is kept of a deleted conversation until every receiver has acknowledged it: the events that somebody still
waits for, masked and in wire form, and the last post, which says that it is being deleted.

A folder each, complete before the conversation itself is removed. The events are bounded in bytes and in time; what the
bounds cost is told to the receiver as a gap. Blocking, except for `KeptSource`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from runtime.store.files import private_directory, sync_directory
from runtime.webhooks import position
from runtime.webhooks.batch import Batch
from runtime.webhooks.position import Position, PositionFile
from runtime.webhooks.source import DELETED, State, Vanished

log = structlog.get_logger()

#: beside the conversations' folders, which have hexadecimal names
FOLDER = ".webhooks"
#: of the events of one deleted conversation, and of all together
MOST_BYTES = 64 << 20
MOST_BYTES_TOGETHER = 256 << 20
#: as long as unacknowledged events of a deleted conversation are kept
KEPT_SECONDS = 24 * 3600.0
#: what is not finished for so long was broken off; until then another server of the folder may be at it
_UNFINISHED_SECONDS = 3600.0
_ABOUT, _EVENTS, _UNFINISHED = "about.json", "events.jsonl", ".unfinished-"


@dataclass(frozen=True)
class About:
    """What was deleted, when (seconds since 1970), and which events are kept: `first` to `through` of `last`."""

    conversation: str
    created_at: str
    deleted_at: float
    first: int
    through: int
    last: int
    body: dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """One folder."""

    folder: Path
    about: About

    @property
    def conversation(self) -> UUID:
        return UUID(self.about.conversation)

    def knows(self, receiver: str) -> bool:
        """Whether the receiver was told of this conversation's beginning, or should have been."""
        return position.exists(self.folder, receiver)

    def remove(self) -> None:
        """Idempotent."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Shelf:
    """All of them, below the conversations' folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / FOLDER

    def read(self, living: Set[tuple[UUID, str]]) -> list[Kept]:
        """What an earlier life left, oldest first. A conversation that still lives, told by id and creation, was not
        deleted after all."""
        if not self._directory.is_dir():
            return []
        self._forget_old_events()
        found = []
        for folder in sorted(self._directory.iterdir(), key=lambda entry: entry.name.rpartition(".")[2]):
            if folder.name.startswith(_UNFINISHED):
                if folder.stat().st_mtime < time.time() - _UNFINISHED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            about = _about(folder)
            if about is None or (UUID(about.conversation), about.created_at) in living:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                found.append(Kept(folder, about))
        return found

    def keep(
        self, conversation: UUID, about: About, events: Iterable[bytes], positions: Mapping[str, Position]
    ) -> Kept:
        """Write a folder. `events`, in wire form, are those after the position that is furthest behind; as many are
        kept as there is room for. Raises OSError; then nothing is left."""
        private_directory(self._directory)
        self._forget_old_events()
        room = min(MOST_BYTES, MOST_BYTES_TOGETHER - sum(path.stat().st_size for path in self._all_events()))
        unfinished = private_directory(self._directory / f"{_UNFINISHED}{conversation.hex}.{time.time_ns()}")
        try:
            first = min(one.acknowledged for one in positions.values()) + 1
            through = first - 1 + _write_events(unfinished / _EVENTS, events, room)
            told = replace(about, first=first, through=through)
            for receiver, one in positions.items():
                position.write(unfinished, receiver, one)
            _write(unfinished / _ABOUT, [json.dumps(asdict(told), ensure_ascii=False).encode()])
            folder = self._directory / unfinished.name.removeprefix(_UNFINISHED)
            os.rename(unfinished, folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        sync_directory(self._directory)
        return Kept(folder, told)

    def _forget_old_events(self) -> None:
        """Nobody may ask for them who could find them gone: a receiver that cannot be reached asks for nothing."""
        for path in self._all_events():
            if path.stat().st_mtime < time.time() - KEPT_SECONDS:
                path.unlink()

    def _all_events(self) -> list[Path]:
        return [path for path in self._directory.glob(f"*/{_EVENTS}") if path.is_file()]


class KeptSource:
    """Implements Source, for one receiver."""

    closing = True

    def __init__(self, kept: Kept, *, now: Callable[[], float] = time.time) -> None:
        self._kept = kept
        self._now = now
        self._place = (kept.about.first - 1, 0)  # an event's number and where its line ends
        self.conversation = kept.conversation

    @property
    def is_overdue(self) -> bool:
        return self._now() > self._kept.about.deleted_at + KEPT_SECONDS

    def position(self, receiver: str) -> PositionFile:
        return PositionFile(self._kept.folder, receiver)

    async def batch(self, after: int, through: int, *, most_events: int, most_bytes: int) -> Batch:
        return await asyncio.to_thread(self._batch, after, through, most_events, most_bytes)

    async def state(self) -> State:
        body = json.dumps(self._kept.about.body, ensure_ascii=False, separators=(",", ":")).encode()
        return State(body, DELETED, self._kept.about.last)

    def _batch(self, after: int, through: int, most_events: int, most_bytes: int) -> Batch:
        about = self._kept.about
        if self.is_overdue:
            (self._kept.folder / _EVENTS).unlink(missing_ok=True)
        last = min(through, about.through, after + most_events)
        events = self._lines(after, last, most_bytes) if about.first <= after + 1 <= last else []
        return Batch(after, events) if events else Batch(after, [], lost_through=about.last)

    def _lines(self, after: int, last: int, most_bytes: int) -> list[bytes]:
        """Empty when they are no longer kept."""
        try:
            stream = (self._kept.folder / _EVENTS).open("rb")
        except FileNotFoundError:
            if not self._kept.folder.is_dir():
                raise Vanished from None
            return []
        with stream:
            number, offset = self._place if self._place[0] <= after else (self._kept.about.first - 1, 0)
            stream.seek(offset)
            while number < after and stream.readline():
                number += 1
            self._place = (number, stream.tell())
            found: list[bytes] = []
            size = 2
            while number + len(found) < last and (line := stream.readline().rstrip(b"\n")):
                size += len(line) + 1
                if found and size > most_bytes:
                    break
                found.append(line)
            return found


def _write_events(path: Path, events: Iterable[bytes], room: int) -> int:
    """How many there was room for."""
    return _write(path, (event + b"\n" for event in events), room)


def _write(path: Path, parts: Iterable[bytes], room: int = sys.maxsize) -> int:
    """A new file, on disk when this returns, of as many parts as there is room for."""
    count = 0
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
        for part in parts:
            room -= len(part)
            if room < 0:
                break
            stream.write(part)
            count += 1
        stream.flush()
        os.fsync(stream.fileno())
    return count


def _about(folder: Path) -> About | None:
    try:
        found = About(**json.loads((folder / _ABOUT).read_bytes()))
        UUID(found.conversation)
        return found
    except (OSError, ValueError, TypeError) as error:
        log.error("webhook.kept_unreadable", folder=folder.name, error=type(error).__name__)
        return None
