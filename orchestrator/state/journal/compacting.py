"""Making one snapshot of a snapshot and the segments behind it, line by line.

The files are read twice: first checked, and each object's last line found, then those lines are copied. What is held
meanwhile is a digest and a number for each object, never the objects: a tenant's journal may be larger than memory.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.state.journal import entry
from orchestrator.state.journal.archive import DamagedArchive
from orchestrator.state.journal.entry import BrokenChain, Entry, Tail
from orchestrator.state.journal.folded import owner_of
from orchestrator.state.new_file import writing_new

_DIGEST_BYTES = 16


class _Last:
    """Which line holds each object's last state."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._belonging: dict[str, list[bytes]] = {}

    def add(self, place: int, one: Entry) -> None:
        key = _digest(one.kind, one.id)
        if one.body is None:
            self._places.pop(key, None)
            if one.kind == "conversation":
                for belonging in self._belonging.pop(one.id, ()):
                    self._places.pop(belonging, None)
            return
        if key not in self._places and (owner := owner_of(one)) is not None:
            self._belonging.setdefault(owner, []).append(key)
        self._places[key] = place

    def marks(self, lines: int) -> bytearray:
        """For each line whether it is the last of its object."""
        found = bytearray(lines)
        for place in self._places.values():
            found[place] = 1
        return found


def compacted(snapshot: Path | None, segments: Sequence[Path], into: Path, tail: Tail) -> None:
    """Write what is known after `segments`, which end at `tail`, as the snapshot `into`. Raises `DamagedArchive` and
    OSError; then nothing was written."""
    last, lines = _Last(), 0
    reached = Tail()
    for found, one, _ in _checked(snapshot, segments):
        last.add(lines, one)
        lines += 1
        reached = found
    if reached != tail and segments:
        raise DamagedArchive("it does not end where its last segment was closed", str(segments[-1]))
    keep = last.marks(lines)
    del last
    head, behind = entry.snapshot_head(tail, sum(keep))
    with writing_new(into) as file:
        file.write(head)
        for place, (_, _, rest) in enumerate(_checked(snapshot, segments)):
            if keep[place]:
                behind, line = entry.renumbered(behind, rest)
                file.write(line)


def _checked(snapshot: Path | None, segments: Sequence[Path]) -> Iterator[tuple[Tail, Entry, bytes]]:
    """Every line of all: the tail behind it, its entry, and what follows its number."""
    tail, place = Tail(), snapshot
    try:
        if snapshot is not None:
            with snapshot.open("rb") as file:
                head = file.readline()
                tail = entry.head_of_snapshot(head)
                _, within = entry.snapshot_head(tail, entry.count_of_snapshot(head))
                for number, line in enumerate(file, start=2):
                    within, one, rest = entry.step(within, line, number)
                    yield tail, one, rest
                if within.sequence != entry.count_of_snapshot(head):
                    raise BrokenChain(f"the snapshot holds {within.sequence} entries and says otherwise", 1)
        for place in segments:
            with place.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    tail, one, rest = entry.step(tail, line, number)
                    yield tail, one, rest
    except BrokenChain as exc:
        raise DamagedArchive(str(exc), f"{place}:{exc.line}") from exc


def _digest(kind: str, id: str) -> bytes:
    return hashlib.blake2b(json.dumps([kind, id]).encode(), digest_size=_DIGEST_BYTES).digest()
