"""Where each event of a log lies, by number, by id and by time; kept in memory and in a file beside the log.

Only `log` uses it. The file is a cache: it is written without waiting for the disk, checked against the log when
loaded, and rebuilt from it when it does not fit. A record has a fixed size, so that loading costs one read.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

_RECORD = struct.Struct("<QQ16sBB6x")
RECORD_BYTES = _RECORD.size


@dataclass(frozen=True, slots=True)
class Entry:
    """One event: where its line ends in the log (bytes), its time (microseconds since 1970), id and filter codes."""

    end: int
    micros: int
    id: UUID
    kind: int
    source: int

    def pack(self) -> bytes:
        return _RECORD.pack(self.end, self.micros, self.id.bytes, self.kind, self.source)


def unpack(content: bytes) -> Iterator[Entry]:
    """The entries of an index file; a torn last record is left out."""
    whole = len(content) - len(content) % RECORD_BYTES
    for end, micros, raw, kind, source in _RECORD.iter_unpack(content[:whole]):
        yield Entry(end=end, micros=micros, id=UUID(bytes=raw), kind=kind, source=source)


class Index:
    """Entries in the order of the log. Times never decrease, which the log sees to."""

    def __init__(self) -> None:
        self._ends = array("Q")
        self._micros = array("Q")
        self._kinds = bytearray()
        self._sources = bytearray()
        self._ids = bytearray()
        self._numbers: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, entry: Entry) -> None:
        self._numbers[entry.id.bytes] = len(self._ends)
        self._ids += entry.id.bytes
        self._ends.append(entry.end)
        self._micros.append(entry.micros)
        self._kinds.append(entry.kind)
        self._sources.append(entry.source)

    def number(self, event_id: UUID) -> int | None:
        """The event's place in the log, from 0; None when it is not there."""
        return self._numbers.get(event_id.bytes)

    def id_at(self, number: int) -> UUID | None:
        """None past the end."""
        return None if number >= len(self) else UUID(bytes=bytes(self._ids[number * 16 : number * 16 + 16]))

    @property
    def end(self) -> int:
        """Bytes of the log that are indexed."""
        return self._ends[-1] if self._ends else 0

    @property
    def last_micros(self) -> int:
        return self._micros[-1] if self._micros else 0

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Byte range of the events first (inclusive) to last (exclusive)."""
        return (self._ends[first - 1] if first else 0), (self._ends[last - 1] if last else 0)

    def matches(self, number: int, *, kind: int | None, source: int | None) -> bool:
        return (kind is None or self._kinds[number] == kind) and (source is None or self._sources[number] == source)

    def first_at(self, micros: int) -> int:
        """The first event that is not older than this time; `len` when all are."""
        return bisect_left(self._micros, micros)
