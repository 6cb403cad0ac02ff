"""The append-only log of one conversation's events: one JSON line an event, in a file that is only ever extended.

The conversation is its only writer; `search` reads pages. Opening, appending and reading cost the same however long the
log is, because `index` knows where every line lies and `ids` which one has an id. What a crash left unfinished at the
end is moved aside when the log is opened; whole events are never changed. Knows nothing of sockets, or of what events
mean beyond their kind and source.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import structlog

from runtime.events.clock import micros_of, text_of_micros, utc_now
from runtime.events.ids import Ids
from runtime.events.index import Damaged, Entry, Index
from runtime.events.models import SOURCES, STORED_KINDS, StoredEvent, compact, parse_object

log = structlog.get_logger()
T = TypeVar("T")

LOG_NAME = "events.jsonl"
_CHUNK_BYTES = 1 << 20
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class DuplicateEvent(ValueError):
    """The log has an event of this id; it keeps the first."""


class EventLog:
    """Opened for one conversation by one process. Appending is for one thread; others may read meanwhile."""

    def __init__(self, folder: Path) -> None:
        """Open or make the log of this folder. Raises OSError; repairs a torn tail and a stale index."""
        self._folder = folder
        self._file = os.open(folder / LOG_NAME, _OPEN_FLAGS, 0o600)
        self._index_file = os.open(folder / "events.index", _OPEN_FLAGS, 0o600)
        self._changing = threading.RLock()  # a reader that finds the index damaged makes it anew
        self.index = Index(self._index_file)
        self._ids = self._load()
        self._whole = len(self.index)

    def __len__(self) -> int:
        return len(self.index)

    def close(self) -> None:
        """Give the descriptors back; nothing may be read or written afterwards. May wait for the disk."""
        try:
            self._ids.mark(self._whole, every=1)
        except OSError as error:
            log.warning("events.not_marked", error=error.strerror, effect="looked through when the log is opened next")
        self._ids.close()
        os.close(self._file)
        os.close(self._index_file)
        self._file = self._index_file = -1  # another file may have the numbers by now

    def next_timestamp(self) -> str:
        """A time for the next event, later than the last one even when the clock went back."""
        return text_of_micros(max(micros_of(utc_now()), self.index.last_micros + 1))

    def append(self, event: StoredEvent) -> bytes:
        """Store the event; returns its line. Survives the end of this process; `sync` makes it survive a power cut.

        Raises DuplicateEvent; OSError when the disk is full. In both cases nothing of the event is stored.
        """
        id = UUID(event.id)
        with self._changing:
            if self.contains(id):
                raise DuplicateEvent(event.id)
            line = compact(event)
            self._write(line + b"\n")
            self.index.extend(_entry_of(event, end=self.index.end + len(line) + 1).pack())
            self._whole = len(self.index)
            self._ids.put(self._whole - 1, id.bytes)
        return line

    def sync(self) -> None:
        """Wait until all that was appended is on disk. Blocks: call it in a thread."""
        whole = self._whole
        os.fdatasync(self._file)
        self._ids.mark(whole)

    def contains(self, event_id: UUID) -> bool:
        return self.number(event_id) is not None

    def number(self, event_id: UUID) -> int | None:
        """The event's place in the log, from 0; None when it is not there."""
        return self.reading(lambda: self._ids.number(event_id.bytes))

    def first_at(self, micros: int) -> int:
        """The first event that is not older than this time; `len` when all are."""
        return self.reading(lambda: self.index.first_at(micros))

    def line(self, event_id: UUID) -> bytes | None:
        """The event's JSON, None when there is none."""
        number = self.number(event_id)
        return None if number is None else self.lines(number, number + 1)[0]

    def lines(self, first: int, last: int) -> list[bytes]:
        """The events from `first` (inclusive, from 0) to `last` (exclusive)."""
        return self.reading(lambda: self._lines(first, min(last, len(self.index))))

    def reading(self, look: Callable[[], T]) -> T:
        """What `look` finds in the index; once more with an index made anew when it is damaged."""
        try:
            return look()
        except Damaged:
            self._rebuild()
            return look()

    def _lines(self, first: int, last: int) -> list[bytes]:
        if first >= last:
            return []
        start, end = self.index.span(first, last)
        if not 0 <= start < end <= self.index.end:
            raise Damaged
        # With the byte before: it must end the event before.
        lines = self._read(start - 1, end).split(b"\n") if start else [b"", *self._read(0, end).split(b"\n")]
        if lines[0] or lines[-1] or len(lines) != last - first + 2:
            raise Damaged
        return lines[1:-1]

    def _write(self, content: bytes) -> None:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            os.ftruncate(self._file, self.index.end)  # half a line must not stand before the next event
            raise

    def _read(self, start: int, end: int) -> bytes:
        parts: list[bytes] = []
        while start < end:
            part = os.pread(self._file, min(end - start, _CHUNK_BYTES), start)
            if not part:
                raise OSError("the event log is shorter than its index")
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def _load(self) -> Ids:
        """Take the index when its end fits; what else may be wrong is found when it is used."""
        size = os.fstat(self._file).st_size
        try:
            self.index.cut(self.index.whole_within(size))  # of a log that was cut
            if not self._end_fits():
                raise Damaged
            self._index_rest(size)
            return Ids(self._folder, self.index)
        except Damaged:
            self.index.cut(0)
            self._index_rest(os.fstat(self._file).st_size)  # a torn tail may have been moved aside just now
            return Ids(self._folder, self.index)

    def _rebuild(self) -> None:
        log.warning("events.index_damaged", effect="made anew from the log")
        with self._changing:
            self.index.cut(0)
            self._index_rest(os.fstat(self._file).st_size)
            self._ids.make_anew()

    def _end_fits(self) -> bool:
        """Whether the last indexed event is where the index says: the file may belong to another log."""
        number = len(self.index) - 1
        if number < 0:
            return True
        start, end = self.index.span(number, number + 1)
        if not start < end:
            return False
        line = self._read(start, end)
        return line.endswith(b"\n") and line.count(b"\n") == 1 and str(self.index.id_at(number)).encode() in line[:80]

    def _index_rest(self, size: int) -> None:
        """Index what the file has beyond the index, and move aside what is not a whole event."""
        rest = b""
        while (at := self.index.end + len(rest)) < size:
            rest += self._read(at, min(at + _CHUNK_BYTES, size))
            records, used, whole = _records_of(rest, start=self.index.end)
            if records:
                self.index.extend(records)
            rest = rest[used:]
            if not whole:
                rest = self._read(self.index.end, size)
                break
        if rest:
            self._move_aside(rest)

    def _move_aside(self, torn: bytes) -> None:
        log.warning("events.torn_tail", bytes=len(torn), moved_to="events.torn")
        with open(self._folder / "events.torn", "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as kept:
            kept.write(torn + b"\n")
        os.ftruncate(self._file, self.index.end)


def _records_of(content: bytes, *, start: int) -> tuple[bytes, int, bool]:
    """Index records of the whole lines, how many bytes those are, and whether all of them are events."""
    records, position = bytearray(), 0
    while (cut := content.find(b"\n", position)) >= 0:
        try:
            records += _entry_of_line(content[position:cut], end=start + cut + 1).pack()
        except (ValueError, KeyError, TypeError):
            return bytes(records), position, False
        position = cut + 1
    return bytes(records), position, True


def _entry_of(event: StoredEvent, *, end: int) -> Entry:
    return _entry(event.id, event.timestamp, event.kind, event.source, end=end)


def _entry_of_line(line: bytes, *, end: int) -> Entry:
    """The index entry of a log line. Raises ValueError or KeyError for a line that is no event."""
    event = parse_object(line)
    return _entry(event["id"], event["timestamp"], event["kind"], event["source"], end=end)


def _entry(event_id: str, timestamp: str, kind: str, source: str, *, end: int) -> Entry:
    sources: tuple[str, ...] = SOURCES
    return Entry(
        end=end,
        micros=micros_of(datetime.fromisoformat(timestamp)),
        id=UUID(event_id),
        kind=STORED_KINDS.index(kind),
        source=sources.index(source),
    )
