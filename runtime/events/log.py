"""The append-only log of one conversation's events: one JSON line an event, in a file that is only ever extended.

The conversation is its only writer; `search` reads pages. Reading costs the same however long the log is, because
`index` knows where every line lies. What a crash left unfinished at the end is moved aside when the log is opened;
whole events are never changed. Knows nothing of sockets, or of what events mean beyond their kind and source.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from uuid import UUID

import structlog

from runtime.events.clock import micros_of, text_of_micros, utc_now
from runtime.events.index import RECORD_BYTES, Damaged, Entry, Index
from runtime.events.models import SOURCES, STORED_KINDS, StoredEvent, compact, parse_object

log = structlog.get_logger()

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
        self._index_writable = True
        self.index = Index()
        self._load()

    def __len__(self) -> int:
        return len(self.index)

    def close(self) -> None:
        """Give the descriptors back; nothing may be read or written afterwards."""
        os.close(self._file)
        os.close(self._index_file)

    def next_timestamp(self) -> str:
        """A time for the next event, later than the last one even when the clock went back."""
        return text_of_micros(max(micros_of(utc_now()), self.index.last_micros + 1))

    def append(self, event: StoredEvent) -> bytes:
        """Store the event; returns its line. Survives the end of this process; `sync` makes it survive a power cut.

        Raises DuplicateEvent; OSError when the disk is full. In both cases nothing of the event is stored.
        """
        if self.contains(UUID(event.id)):
            raise DuplicateEvent(event.id)
        line = compact(event)
        self._write(line + b"\n")
        entry = _entry_of(event, end=self.index.end + len(line) + 1)
        self.index.add(entry)
        self._write_index(entry.pack())
        return line

    def sync(self) -> None:
        """Wait until all that was appended is on disk. Blocks: call it in a thread."""
        os.fdatasync(self._file)

    def contains(self, event_id: UUID) -> bool:
        return self.number(event_id) is not None

    def number(self, event_id: UUID) -> int | None:
        """The event's place in the log, from 0; None when it is not there."""
        try:
            return self.index.number(event_id)
        except Damaged:
            self._rebuild()
            return self.index.number(event_id)

    def line(self, event_id: UUID) -> bytes | None:
        """The event's JSON, None when there is none."""
        number = self.number(event_id)
        return None if number is None else self.lines(number, number + 1)[0]

    def lines(self, first: int, last: int) -> list[bytes]:
        """The events from `first` (inclusive, from 0) to `last` (exclusive)."""
        last = min(last, len(self.index))
        if first >= last:
            return []
        try:
            return self._lines(first, last)
        except Damaged:
            self._rebuild()
            return self._lines(first, min(last, len(self.index))) if first < len(self.index) else []

    def _lines(self, first: int, last: int) -> list[bytes]:
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

    def _write_index(self, packed: bytes) -> None:
        """The index file may only lack entries at its end, so one failed write ends writing; loading rebuilds it."""
        if not self._index_writable:
            return
        try:
            self._index_writable = os.write(self._index_file, packed) == len(packed)
        except OSError as error:
            self._index_writable = False
            log.warning("events.index_not_written", error=error.strerror, effect="rebuilt when the log is opened next")

    def _read(self, start: int, end: int) -> bytes:
        parts: list[bytes] = []
        while start < end:
            part = os.pread(self._file, min(end - start, _CHUNK_BYTES), start)
            if not part:
                raise OSError("the event log is shorter than its index")
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def _load(self) -> None:
        """Take the index when it is whole and its end fits; what else may be wrong is found when it is used."""
        size = os.fstat(self._file).st_size
        index_size = os.fstat(self._index_file).st_size
        self.index = Index(self._read_index(index_size))
        while len(self.index) and self.index.end > size:  # of a log that was cut
            self.index.cut(len(self.index) - 1)
        if self.index.has_hole or not self._end_fits():
            self.index = Index()
        indexed = len(self.index)
        self._index_rest(size)
        if not indexed == len(self.index) == index_size / RECORD_BYTES:
            self._rewrite_index()

    def _rebuild(self) -> None:
        log.warning("events.index_damaged", effect="made anew from the log")
        self.index = Index()
        self._index_rest(os.fstat(self._file).st_size)
        self._rewrite_index()

    def _read_index(self, size: int) -> bytearray:
        """Straight into the memory where it stays."""
        content = bytearray(size)
        free, read = memoryview(content), 0
        while read < size and (part := os.preadv(self._index_file, [free[read:]], read)):
            read += part
        free.release()
        del content[read:]
        return content

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
            base, position = self.index.end, 0
            while (cut := rest.find(b"\n", position)) >= 0:
                try:
                    self.index.add(_entry_of_line(rest[position:cut], end=base + cut + 1))
                except (ValueError, KeyError, TypeError):
                    self._move_aside(self._read(self.index.end, size))
                    return
                position = cut + 1
            rest = rest[position:]
        if rest:
            self._move_aside(rest)

    def _move_aside(self, torn: bytes) -> None:
        log.warning("events.torn_tail", bytes=len(torn), moved_to="events.torn")
        with open(self._folder / "events.torn", "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as kept:
            kept.write(torn + b"\n")
        os.ftruncate(self._file, self.index.end)

    def _rewrite_index(self) -> None:
        os.ftruncate(self._index_file, 0)
        self._write_index(self.index.packed())


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
