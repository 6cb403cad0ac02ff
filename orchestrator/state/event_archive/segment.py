"""A segment: some hundred or thousand events of one log in a row, written once. Pure.

Blocks of events, each compressed by itself, then an index of the blocks, then a tail of a fixed length that says where
the index is. So the events at one cursor cost the index and one block, wherever in the segment they are. gzip's check
sums tell damage; a segment that was not written to its end has no tail and is never taken for one.
"""

import gzip
import json
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.state.base import StoredEvent

BLOCK_EVENTS = 100
BLOCK_CHARACTERS = 256 * 1024
_MAGIC = b"nst-ev1\n"
_TAIL = struct.Struct(">QI8s")
TAIL_BYTES = _TAIL.size
_NAME = re.compile(r"(\d{16})-(\d{16})(m?)\.events")
_LEVEL = 5


class BrokenSegment(Exception):
    """What was read is no segment, or a damaged one."""


@dataclass(frozen=True, order=True)
class Span:
    """What a segment holds, which is its name: the sequences from `first` to `last` without a hole."""

    first: int
    last: int
    merged: bool = False  #: made of smaller ones, and never merged again

    @property
    def name(self) -> str:
        return f"{self.first:016d}-{self.last:016d}{'m' if self.merged else ''}.events"


@dataclass(frozen=True)
class Block:
    """Where the events from `first` to `last` are in their segment."""

    first: int
    last: int
    offset: int
    length: int


def span_of(name: str) -> Span | None:
    """None for what is no segment's name."""
    found = _NAME.fullmatch(name)
    return Span(int(found[1]), int(found[2]), bool(found[3])) if found else None


def encoded(events: Sequence[StoredEvent], *, merged: bool = False) -> tuple[Span, bytes]:
    """`events` follow one another."""
    index: list[tuple[int, int, int, int]] = []
    content = bytearray()
    for some in _blocks(events):
        lines = "\n".join(json.dumps([e.sequence, e.id, e.payload, e.first], separators=(",", ":")) for e in some)
        block = gzip.compress(lines.encode(), _LEVEL, mtime=0)
        index.append((some[0].first, some[-1].sequence, len(content), len(block)))
        content += block
    packed = gzip.compress(json.dumps(index).encode(), _LEVEL, mtime=0)
    content += packed + _TAIL.pack(len(content), len(packed), _MAGIC)
    return Span(events[0].first, events[-1].sequence, merged), bytes(content)


def _blocks(events: Sequence[StoredEvent]) -> Iterator[list[StoredEvent]]:
    some: list[StoredEvent] = []
    size = 0
    for event in events:
        if some and (len(some) == BLOCK_EVENTS or size + len(event.payload) > BLOCK_CHARACTERS):
            yield some
            some, size = [], 0
        some.append(event)
        size += len(event.payload)
    yield some


def index_place(end: bytes) -> tuple[int, int]:
    """Offset and length of the index, from the segment's last bytes. Raises `BrokenSegment`."""
    if len(end) < TAIL_BYTES:
        raise BrokenSegment("it has no end")
    offset, length, magic = _TAIL.unpack(end[-TAIL_BYTES:])
    if magic != _MAGIC:
        raise BrokenSegment("it has no end")
    return offset, length


def index_of(packed: bytes) -> list[Block]:
    """Raises `BrokenSegment`."""
    try:
        return [Block(*entry) for entry in json.loads(_unpacked(packed))]
    except (ValueError, TypeError):
        raise BrokenSegment("its index is damaged") from None


def events_of(packed: bytes) -> list[StoredEvent]:
    """The events of one block. Raises `BrokenSegment`."""
    try:
        rows = [json.loads(line) for line in _unpacked(packed).split(b"\n")]
        return [StoredEvent(sequence, id, payload, first=first) for sequence, id, payload, first in rows]
    except (ValueError, TypeError):
        raise BrokenSegment("a block is damaged") from None


def _unpacked(packed: bytes) -> bytes:
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error):
        raise BrokenSegment("a check sum is wrong") from None
