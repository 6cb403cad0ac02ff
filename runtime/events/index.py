"""Where each event of a log lies, by number, by id and by time; kept in memory and in a file beside the log.

Only `log` and `search` use it. The file is a cache: it is written without waiting for the disk and rebuilt from the log
when it does not fit. Memory holds the file's bytes and nothing for each event, so that opening a long log is one read.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from dataclasses import dataclass
from uuid import UUID

_RECORD = struct.Struct("<QQ16sBB6x")
_NUMBER = struct.Struct("<16sI")
_U64 = struct.Struct("<Q")
RECORD_BYTES = _RECORD.size
_MICROS, _ID, _KIND, _SOURCE = 8, 16, 32, 33


class Damaged(Exception):
    """The index does not fit its log: rebuild it."""


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


class Index:
    """Entries in the order of the log. Times never decrease, which the log sees to."""

    def __init__(self, content: bytearray | None = None) -> None:
        """From what a file holds, which is the index's own from now on; a torn last record is left out."""
        self._records = bytearray() if content is None else content
        del self._records[len(self._records) - len(self._records) % RECORD_BYTES :]
        self._numbers: list[bytearray] | None = None

    def __len__(self) -> int:
        return len(self._records) // RECORD_BYTES

    def add(self, entry: Entry) -> None:
        if self._numbers is not None:
            raw = entry.id.bytes
            self._numbers[_bucket(raw)] += _NUMBER.pack(raw, len(self))
        self._records += entry.pack()

    @property
    def has_hole(self) -> bool:
        """Whether a part never came to the disk: it reads as zeros, which no entry consists of."""
        return bytes(RECORD_BYTES) in self._records

    def packed(self) -> bytes:
        """What a file should hold."""
        return bytes(self._records)

    def cut(self, count: int) -> None:
        """Keep the first entries only."""
        del self._records[count * RECORD_BYTES :]
        self._numbers = None

    def number(self, event_id: UUID) -> int | None:
        """The event's place in the log, from 0; None when it is not there. Raises Damaged."""
        raw = event_id.bytes
        if self._numbers is None:
            self._numbers = self._in_buckets()
        bucket = self._numbers[_bucket(raw)]
        at = bucket.find(raw)
        while at >= 0 and at % _NUMBER.size:
            at = bucket.find(raw, at + 1)
        if at < 0:
            return None
        number: int = _NUMBER.unpack_from(bucket, at)[1]
        return number

    def id_at(self, number: int) -> UUID | None:
        """None past the end."""
        if number >= len(self):
            return None
        at = number * RECORD_BYTES + _ID
        return UUID(bytes=bytes(self._records[at : at + 16]))

    @property
    def end(self) -> int:
        """Bytes of the log that are indexed."""
        return self.end_at(len(self) - 1)

    @property
    def last_micros(self) -> int:
        return self._micros_at(len(self) - 1) if self._records else 0

    def end_at(self, number: int) -> int:
        """Where the event's line ends; 0 for the number before the first."""
        if number < 0:
            return 0
        end: int = _U64.unpack_from(self._records, number * RECORD_BYTES)[0]
        return end

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Byte range of the events first (inclusive) to last (exclusive)."""
        return self.end_at(first - 1), self.end_at(last - 1)

    def kinds(self, first: int, last: int) -> bytes:
        """The kinds' codes of the events first (inclusive) to last (exclusive), a byte each."""
        return self._column(_KIND, first, last)

    def sources(self, first: int, last: int) -> bytes:
        return self._column(_SOURCE, first, last)

    def first_at(self, micros: int) -> int:
        """The first event that is not older than this time; `len` when all are."""
        return bisect_left(range(len(self)), micros, key=self._micros_at)

    def _micros_at(self, number: int) -> int:
        micros: int = _U64.unpack_from(self._records, number * RECORD_BYTES + _MICROS)[0]
        return micros

    def _column(self, offset: int, first: int, last: int) -> bytes:
        return bytes(self._records[first * RECORD_BYTES + offset : last * RECORD_BYTES : RECORD_BYTES])

    def _in_buckets(self) -> list[bytearray]:
        """Ids with their numbers, spread so that a look-up reads few of them. Made when first needed."""
        buckets = [bytearray() for _ in range(_BUCKETS)]
        before = 0
        for number, (end, _, raw, _, _) in enumerate(_RECORD.iter_unpack(self._records)):
            if end <= before:
                raise Damaged
            before = end
            buckets[_bucket(raw)] += _NUMBER.pack(raw, number)
        return buckets


_BUCKETS = 1024


def _bucket(raw: bytes) -> int:
    # Parts that are random in every version of a UUID that a client may choose.
    return (raw[15] ^ raw[3] ^ (raw[14] ^ raw[2]) << 8) % _BUCKETS
