"""Where each event of a log lies, by number and by time: one record an event, in a file beside the log.

Only `log`, `ids` and `search` use it. The file is a cache: it is written without waiting for the disk, and made anew
from the log when it does not fit. Nothing of it stays in memory: what is asked is read where it lies, so that a log of
any length is opened in the same time. Appending is for one thread; others may read meanwhile.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID
from zlib import crc32

import structlog

log = structlog.get_logger()

_RECORD = struct.Struct("<QQ16sBB2xI")  # the last is the check sum of the rest: a power cut may keep half a record
_CHECKED_BYTES = _RECORD.size - 4
_SUM = struct.Struct("<I")
_ENDS = struct.Struct("<QQ")
RECORD_BYTES = _RECORD.size
_ID, _KIND, _SOURCE = 16, 32, 33
_BLOCK = 1024  #: records that are read at once when many are looked through
_NOTHING = bytes(RECORD_BYTES)


class Damaged(Exception):
    """The index does not fit its log: make it anew."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event: where its line ends in the log (bytes), its time (microseconds since 1970), id and filter codes."""

    end: int
    micros: int
    id: UUID
    kind: int
    source: int

    def pack(self) -> bytes:
        packed = _RECORD.pack(self.end, self.micros, self.id.bytes, self.kind, self.source, 0)[:_CHECKED_BYTES]
        return packed + _SUM.pack(crc32(packed))


class Index:
    """Records in the order of the log. Times never decrease, which the log sees to. What it reads may raise Damaged."""

    def __init__(self, file: int) -> None:
        """Over an open file of records, whose torn end is cut off; it stays its opener's. Raises OSError."""
        self._file = file
        size = os.fstat(file).st_size
        if size % RECORD_BYTES:
            os.ftruncate(file, size - size % RECORD_BYTES)
        #: how many records the file has, and those that it lacks since it could not be written; replaced as one
        self._kept: tuple[int, bytes] = (size // RECORD_BYTES, b"")
        self.end, self.last_micros = self._last()

    def __len__(self) -> int:
        stored, rest = self._kept
        return stored + len(rest) // RECORD_BYTES

    def extend(self, records: bytes) -> None:
        """Add packed entries. They are kept in memory from the first on that the file does not take."""
        stored, rest = self._kept
        if not rest and self._write(records):
            self._kept = (stored + len(records) // RECORD_BYTES, b"")
        else:
            self._kept = (stored, rest + records)
        self.end, self.last_micros = _ENDS.unpack_from(records, len(records) - RECORD_BYTES)

    def cut(self, count: int) -> None:
        """Keep the first entries only. Raises OSError."""
        stored, rest = self._kept
        if count < stored:
            os.ftruncate(self._file, count * RECORD_BYTES)
        self._kept = (min(count, stored), rest[: max(0, count - stored) * RECORD_BYTES])
        self.end, self.last_micros = self._last()

    def sync(self) -> bool:
        """Wait until the file is on disk; False when it lacks something. Raises OSError."""
        if self._kept[1]:
            return False
        os.fdatasync(self._file)
        return True

    def check(self, first: int) -> None:
        """Look at every record from this one on, as after a power cut. Raises Damaged."""
        before = self.end_at(first - 1)
        for _, block in self._blocks(first, len(self)):
            for at in range(0, len(block), RECORD_BYTES):
                end, _, _, _, _, found = _RECORD.unpack_from(block, at)
                if end <= before or found != crc32(block[at : at + _CHECKED_BYTES]):
                    raise Damaged
                before = end

    def id_at(self, number: int) -> UUID | None:
        """None past the end."""
        return None if number >= len(self) else UUID(bytes=self.ids(number, number + 1))

    def ids(self, first: int, last: int) -> bytes:
        """The ids of the events first (inclusive) to last (exclusive), sixteen bytes each."""
        return b"".join(raw for _, _, raw, _, _, _ in _RECORD.iter_unpack(self._read(first, last)))

    def find(self, raw: bytes, first: int, last: int) -> int | None:
        """The number of an id among these events, by looking at each of them; the newest are looked at first."""
        for start, block in self._blocks(first, last, backwards=True):
            at = block.find(raw)
            while at >= 0 and at % RECORD_BYTES != _ID:
                at = block.find(raw, at + 1)
            if at >= 0:
                return start + at // RECORD_BYTES
        return None

    def end_at(self, number: int) -> int:
        """Where the event's line ends; 0 for the number before the first."""
        return self._ends(number)[0] if number >= 0 else 0

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Byte range of the events first (inclusive) to last (exclusive)."""
        return self.end_at(first - 1), self.end_at(last - 1)

    def kinds(self, first: int, last: int, *, backwards: bool = False) -> Iterator[tuple[int, bytes]]:
        """The kinds' codes of these events, a byte each, by blocks with the number of their first event."""
        return self._column(_KIND, first, last, backwards=backwards)

    def sources(self, first: int, last: int, *, backwards: bool = False) -> Iterator[tuple[int, bytes]]:
        return self._column(_SOURCE, first, last, backwards=backwards)

    def first_at(self, micros: int) -> int:
        """The first event that is not older than this time; `len` when all are."""
        return bisect_left(range(len(self)), micros, key=lambda number: self._ends(number)[1])

    def whole_within(self, size: int) -> int:
        """How many events end within the first `size` bytes of the log."""
        return len(self) if self.end <= size else bisect_right(range(len(self)), size, key=self.end_at)

    def _ends(self, number: int) -> tuple[int, int]:
        end, micros = _ENDS.unpack_from(self._read(number, number + 1))
        return end, micros

    def _last(self) -> tuple[int, int]:
        try:
            return self._ends(len(self) - 1) if len(self) else (0, 0)
        except Damaged:
            return 0, 0  # fits no log, and is found by who compares

    def _column(self, offset: int, first: int, last: int, *, backwards: bool) -> Iterator[tuple[int, bytes]]:
        for start, block in self._blocks(first, last, backwards=backwards):
            yield start, block[offset::RECORD_BYTES]

    def _blocks(self, first: int, last: int, *, backwards: bool = False) -> Iterator[tuple[int, bytes]]:
        starts = range(first, last, _BLOCK)
        for start in reversed(starts) if backwards else starts:
            yield start, self._read(start, min(start + _BLOCK, last))

    def _read(self, first: int, last: int) -> bytes:
        """The records themselves. A part that never came to the disk reads as zeros, which no record consists of."""
        stored, rest = self._kept
        content = b""
        if first < stored:
            content = os.pread(self._file, (min(last, stored) - first) * RECORD_BYTES, first * RECORD_BYTES)
        if last > stored:
            content += rest[max(0, first - stored) * RECORD_BYTES : (last - stored) * RECORD_BYTES]
        if len(content) != (last - first) * RECORD_BYTES or _NOTHING in content:
            raise Damaged
        return content

    def _write(self, records: bytes) -> bool:
        """The file may only lack entries at its end, so one failed write ends writing."""
        try:
            if os.write(self._file, records) == len(records):
                return True
            reason: str | None = "cut short"
        except OSError as error:
            reason = error.strerror
        log.warning("events.index_not_written", error=reason, effect="made up for when the log is opened next")
        return False
