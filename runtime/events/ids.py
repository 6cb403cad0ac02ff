"""The number of each event by its id: hash tables in a file beside the index, so that an id is found, or known to be
new, in the same time however long the log is.

Only `log` uses it. The first events are looked for in the index itself; after them, each time that the log has become
four times as long, a table follows that is filled event by event and never copied. The file is a cache like the index.
Its head says how many events were on disk with their records and slots (`synced`): what came after is put in again when
the log is opened, because a power cut may have kept any part of it.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import structlog

from runtime.events.index import Index

log = structlog.get_logger()

#: events before this number are in no table
FIRST = 512
#: events between two marks in the head
SYNC_EVERY = 256

_NAME = "events.ids"
_HEAD = struct.Struct("<8s16sQ")
_MAGIC = b"nestor.1"
_HEAD_BYTES = 4096
_SLOT = struct.Struct("<II")  # a print of the id, and the number, which is never 0
_EMPTY = bytes(_SLOT.size)
_WINDOW = 16  #: slots that are read at once


class Ids:
    """The ids of one log. Putting is for one thread; others may look meanwhile."""

    def __init__(self, folder: Path, index: Index) -> None:
        """Over the folder's file, brought up to the index. Raises Damaged when the index itself has a hole."""
        self._path = folder / _NAME
        self._index = index
        self._file: int | None = None
        self._broken = False  #: the file lacks something; ids are looked for in the index until the log is opened anew
        self._salt = b""
        self._synced = 0
        self._marking = threading.Lock()
        try:
            if len(index) <= FIRST:
                index.check(0)
            else:
                self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the descriptor back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def number(self, raw: bytes) -> int | None:
        """The event's place in the log; None when it is not there. Raises Damaged, OSError."""
        count = len(self._index)
        if count > FIRST:
            if self._broken:
                return self._index.find(raw, 0, count)
            hashed = self._hash(raw)
            for table in range(_table_of(count - 1), -1, -1):
                for _, number in self._chain(table, hashed):
                    if number and number < count and self._index.ids(number, number + 1) == raw:
                        return number
        return self._index.find(raw, 0, min(count, FIRST))

    def put(self, number: int, raw: bytes) -> None:
        """An event that the index has from now on. What the file does not take is looked for in the index."""
        if number < FIRST or self._broken:
            return
        try:
            if self._file is None:
                self._begin()
            self._put(number, raw)
        except OSError as error:
            self._broken = True
            log.warning("events.ids_not_written", error=error.strerror, effect="ids are looked for one by one")

    def mark(self, count: int, *, every: int = SYNC_EVERY) -> None:
        """Remember that so many events need not be put in again, once in a while. Blocks for the disk."""
        with self._marking:
            if self._file is None or self._broken or count - self._synced < every or not self._index.sync():
                return
            os.fdatasync(self._file)
            self._write_head(count)

    def make_anew(self) -> None:
        """Every table, from the index. Raises Damaged."""
        self._index.check(0)
        self._broken = False
        try:
            if len(self._index) > FIRST or self._file is not None:
                self._begin()
            for table in range(_table_of(len(self._index) - 1) + 1):
                self._write(self._table(table), _offset(table))
        except OSError as error:
            self._broken = True
            log.warning("events.ids_not_written", error=error.strerror, effect="ids are looked for one by one")

    def _open(self) -> None:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            self._read_head()
            self._index.check(max(FIRST, self._synced))
            for number in range(max(FIRST, self._synced), len(self._index)):
                self._put(number, self._index.ids(number, number + 1))
        except (OSError, ValueError):
            self.make_anew()

    def _read_head(self) -> None:
        """Raises ValueError when the file is none of ours, or not of this log."""
        assert self._file is not None  # noqa: S101 - it was opened
        head = os.pread(self._file, _HEAD.size, 0)
        if len(head) != _HEAD.size:
            raise ValueError("no head")
        magic, self._salt, self._synced = _HEAD.unpack(head)
        count = len(self._index)
        if magic != _MAGIC or not FIRST < self._synced <= count:
            raise ValueError("no head of ours")
        for number in (FIRST, self._synced - 1):
            if self.number(self._index.ids(number, number + 1)) != number:
                raise ValueError("of another log")

    def _begin(self) -> None:
        """An empty file. Raises OSError."""
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, 0)
        self._salt = os.urandom(16)
        self._write_head(0)

    def _table(self, table: int) -> bytes:
        slots = _slots(table)
        content = bytearray(slots * _SLOT.size)
        last = min(_first(table + 1), len(self._index))
        for number in range(_first(table), last, 4096):
            ids = self._index.ids(number, min(number + 4096, last))
            for at in range(0, len(ids), 16):
                hashed = self._hash(ids[at : at + 16])
                slot = hashed % slots
                while content[slot * 8 : slot * 8 + 8] != _EMPTY:
                    slot = (slot + 1) % slots
                _SLOT.pack_into(content, slot * 8, hashed >> 32, number + at // 16)
        return bytes(content)

    def _put(self, number: int, raw: bytes) -> None:
        """Idempotent. Raises OSError."""
        table, hashed = _table_of(number), self._hash(raw)
        for slot, found in self._chain(table, hashed):
            if found == number:
                return
            if not found:
                self._write(_SLOT.pack(hashed >> 32, number), _offset(table) + slot * _SLOT.size)
                return
        raise OSError(None, "the table is full")  # of numbers that were cut off; it is made anew

    def _chain(self, table: int, hashed: int) -> Iterator[tuple[int, int]]:
        """Slots and numbers that may be the id's, and the free slot (number 0) that ends them. Raises OSError."""
        assert self._file is not None  # noqa: S101 - there is a table
        slots, wanted = _slots(table), hashed >> 32
        slot, left = hashed % slots, slots
        while left > 0:
            amount = min(_WINDOW, slots - slot)
            window = os.pread(self._file, amount * _SLOT.size, _offset(table) + slot * _SLOT.size)
            for found, number in _SLOT.iter_unpack(window.ljust(amount * _SLOT.size, b"\0")):
                if not number:
                    yield slot, 0
                    return
                if found == wanted:
                    yield slot, number
                slot += 1
            slot, left = slot % slots, left - amount

    def _hash(self, raw: bytes) -> int:
        """Salted: ids are chosen by clients."""
        return int.from_bytes(blake2b(raw, digest_size=8, key=self._salt).digest(), "little")

    def _write_head(self, synced: int) -> None:
        self._write(_HEAD.pack(_MAGIC, self._salt, synced), 0)
        self._synced = synced

    def _write(self, content: bytes, at: int) -> None:
        assert self._file is not None  # noqa: S101 - it was opened
        view = memoryview(content)
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written


def _table_of(number: int) -> int:
    """Table 0 has the events from FIRST to four times that, the next one four times as many, and so on."""
    return ((number // FIRST).bit_length() - 1) // 2


def _first(table: int) -> int:
    return FIRST << 2 * table


def _slots(table: int) -> int:
    """Twice as many as events, so that chains stay short."""
    return 2 * 3 * _first(table)


def _offset(table: int) -> int:
    return _HEAD_BYTES + 2 * (_first(table) - FIRST) * _SLOT.size
