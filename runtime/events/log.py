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
from runtime.events.index import RECORD_BYTES, Entry, Index, unpack
from runtime.events.models import SOURCES, STORED_KINDS, StoredEvent, compact, parse_object

log = structlog.get_logger()

_CHUNK_BYTES = 1 << 20
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class EventLog:
    """Opened for one conversation. Not for use by several threads or processes at a time."""

    def __init__(self, folder: Path) -> None:
        """Open or make the log of this folder. Raises OSError; repairs a torn tail and a stale index."""
        self._folder = folder
        self._file = os.open(folder / "events.jsonl", _OPEN_FLAGS, 0o600)
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

        Raises OSError when the disk is full; then nothing of the event is stored.
        """
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
        return self.index.number(event_id) is not None

    def line(self, event_id: UUID) -> bytes | None:
        """The event's JSON, None when there is none."""
        number = self.index.number(event_id)
        return None if number is None else self.lines(number, number + 1)[0]

    def lines(self, first: int, last: int) -> list[bytes]:
        """The events from `first` (inclusive, from 0) to `last` (exclusive)."""
        last = min(last, len(self.index))
        if first >= last:
            return []
        start, end = self.index.span(first, last)
        return self._read(start, end).split(b"\n")[:-1]

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
        size = os.fstat(self._file).st_size
        index_size = os.fstat(self._index_file).st_size
        for entry in unpack(os.pread(self._index_file, index_size, 0)):
            if not self.index.end < entry.end <= size:
                break
            self.index.add(entry)
        if not self._index_fits():
            self.index = Index()
        indexed = len(self.index)
        self._index_rest(size)
        if not indexed == len(self.index) == index_size / RECORD_BYTES:
            self._rewrite_index()

    def _index_fits(self) -> bool:
        """Whether the last indexed event is where the index says: the file may belong to another log."""
        number = len(self.index) - 1
        if number < 0:
            return True
        line = self._read(*self.index.span(number, number + 1))
        return line.endswith(b"\n") and str(self.index.id_at(number)).encode() in line[:80]

    def _index_rest(self, size: int) -> None:
        """Index what the file has beyond the index, and move aside what is not a whole event."""
        base = self.index.end
        rest = self._read(base, size)
        position = 0
        while (cut := rest.find(b"\n", position)) >= 0:
            try:
                self.index.add(_entry_of_line(rest[position:cut], end=base + cut + 1))
            except (ValueError, KeyError):
                break
            position = cut + 1
        if position < len(rest):
            self._move_aside(rest[position:])

    def _move_aside(self, torn: bytes) -> None:
        log.warning("events.torn_tail", bytes=len(torn), moved_to="events.torn")
        with open(self._folder / "events.torn", "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as kept:
            kept.write(torn + b"\n")
        os.ftruncate(self._file, self.index.end)

    def _rewrite_index(self) -> None:
        os.ftruncate(self._index_file, 0)
        for first in range(0, len(self.index), 1000):
            last = min(first + 1000, len(self.index))
            end = self.index.span(first, last)[0]
            packed = bytearray()
            for line in self.lines(first, last):
                end += len(line) + 1
                packed += _entry_of_line(line, end=end).pack()
            self._write_index(bytes(packed))


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
