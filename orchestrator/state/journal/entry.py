"""An entry of the journal, as a line of text, and the chain of hashes that holds lines together. Pure.

A line is `<hash> <JSON>`. Each hash is taken over the hash before and the JSON, so a line that is changed, missing or
out of order shows in all that follow. It says that nothing was damaged; against somebody who may write the archive and
computes the hashes anew it says nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GENESIS = "0" * 64


class BrokenChain(Exception):
    """A line that does not belong where it was found; `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Entry:
    """One object as it is from here on; `body` None: it was removed."""

    kind: str
    id: str
    body: str | None


@dataclass(frozen=True)
class Noted:
    """An entry with the place in the stream that it came from."""

    stream_id: str
    entry: Entry


@dataclass(frozen=True)
class Tail:
    """The end of a chain: what the next line follows."""

    sequence: int = 0
    hash: str = GENESIS


def chained(tail: Tail, entries: Iterable[Entry]) -> tuple[list[bytes], Tail]:
    """The lines that put `entries` behind `tail`, and the tail behind them."""
    lines: list[bytes] = []
    for entry in entries:
        text = _json([tail.sequence + 1, entry.kind, entry.id, entry.body])
        tail = Tail(tail.sequence + 1, _hash(tail.hash, text))
        lines.append(f"{tail.hash} ".encode() + text + b"\n")
    return lines, tail


def unchained(tail: Tail, lines: Sequence[bytes]) -> tuple[list[Entry], Tail]:
    """The inverse, checked. Raises `BrokenChain`."""
    entries: list[Entry] = []
    for number, line in enumerate(lines, start=1):
        tail, found, _ = step(tail, line, number)
        entries.append(found)
    return entries, tail


def step(tail: Tail, line: bytes, number: int) -> tuple[Tail, Entry, bytes]:
    """One line, the `number`th of its file, behind `tail`: the tail behind it, its entry, and what follows its sequence
    (`renumbered` takes that). Raises `BrokenChain`."""
    found, _, text = line.rstrip(b"\n").partition(b" ")
    try:
        sequence, kind, id, body = json.loads(text)
    except (ValueError, TypeError):
        raise BrokenChain("the line is no entry", number) from None
    if sequence != tail.sequence + 1:
        raise BrokenChain(f"entry {tail.sequence + 1} is missing: the line holds entry {sequence}", number)
    tail = Tail(sequence, _hash(tail.hash, text))
    if found.decode(errors="replace") != tail.hash:
        raise BrokenChain(f"entry {sequence} was changed, or does not follow the line before it", number)
    return tail, Entry(kind, id, body), text.partition(b",")[2]


def renumbered(tail: Tail, rest: bytes) -> tuple[Tail, bytes]:
    """The line that puts an entry behind another tail, and the tail behind it; `rest` is from `step`."""
    text = b"[%d,%b" % (tail.sequence + 1, rest)
    tail = Tail(tail.sequence + 1, _hash(tail.hash, text))
    return tail, f"{tail.hash} ".encode() + text + b"\n"


def end_of(lines: Sequence[bytes]) -> Tail:
    """The tail behind `lines` of a chain whose beginning is elsewhere: the first line is taken as it is, the others are
    checked. Raises `BrokenChain`."""
    found, _, text = lines[0].rstrip(b"\n").partition(b" ")
    try:
        first = Tail(int(json.loads(text)[0]), found.decode())
    except (ValueError, TypeError, IndexError):
        raise BrokenChain("the line is no entry", 1) from None
    try:
        return unchained(first, lines[1:])[1]
    except BrokenChain as exc:
        raise BrokenChain(str(exc), exc.line + 1) from None


def behind(sequence: int, lines: Sequence[bytes]) -> list[Entry]:
    """The entries of these lines that come behind `sequence`. The chain is not looked at."""
    found = [json.loads(line.partition(b" ")[2]) for line in lines]
    return [Entry(kind, id, body) for number, kind, id, body in found if number > sequence]


def head_of_snapshot(line: bytes) -> Tail:
    """The tail at which a snapshot was made, from its first line. Raises `BrokenChain`."""
    found, _, head = line.rstrip(b"\n").partition(b" ")
    try:
        kind, sequence, hash, _count = json.loads(head)
    except (ValueError, TypeError):
        raise BrokenChain("the snapshot has no head", 1) from None
    if kind != "snapshot" or found.decode(errors="replace") != _hash(GENESIS, head):
        raise BrokenChain("the head of the snapshot was changed", 1)
    return Tail(sequence, hash)


def count_of_snapshot(line: bytes) -> int:
    """How many entries a snapshot holds, from its first line, which `head_of_snapshot` has checked."""
    return int(json.loads(line.partition(b" ")[2])[3])


def snapshot(tail: Tail, entries: Sequence[Entry]) -> bytes:
    """All that is known at `tail` as one text: a head that names the tail, then lines chained to the head."""
    head, begins = snapshot_head(tail, len(entries))
    lines, _ = chained(begins, entries)
    return b"".join([head, *lines])


def snapshot_head(tail: Tail, count: int) -> tuple[bytes, Tail]:
    """The first line of a snapshot made at `tail` that holds `count` entries, and what its second line follows."""
    head = _json(["snapshot", tail.sequence, tail.hash, count])
    digest = _hash(GENESIS, head)
    return f"{digest} ".encode() + head + b"\n", Tail(0, digest)


def of_snapshot(content: bytes) -> tuple[list[Entry], Tail]:
    """The inverse, checked: the entries, and the tail at which they held. Raises `BrokenChain`."""
    lines = content.splitlines(keepends=True)
    tail = head_of_snapshot(lines[0] if lines else b"")
    head = lines[0].rstrip(b"\n").partition(b" ")[2]
    digest, count = _hash(GENESIS, head), json.loads(head)[3]
    try:
        entries, _ = unchained(Tail(0, digest), lines[1:])
    except BrokenChain as exc:
        raise BrokenChain(str(exc), exc.line + 1) from None
    if len(entries) != count:
        raise BrokenChain(f"the snapshot holds {len(entries)} of its {count} entries", len(lines))
    return entries, tail


def _json(value: object) -> bytes:
    # ASCII: what is stored may hold halves of characters, which have no UTF-8.
    return json.dumps(value, separators=(",", ":")).encode()


def _hash(before: str, text: bytes) -> str:
    return hashlib.sha256(before.encode() + text).hexdigest()
