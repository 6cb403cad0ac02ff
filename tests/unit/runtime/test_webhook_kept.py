"""What is kept of deleted conversations, its bounds, and the small file with a receiver's position."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from runtime.webhooks import kept as kept_module
from runtime.webhooks import position
from runtime.webhooks.batch import Batch, events_parcel
from runtime.webhooks.kept import KEPT_SECONDS, About, Kept, KeptSource, Shelf
from runtime.webhooks.position import Position, PositionFile
from runtime.webhooks.source import DELETED

pytestmark = pytest.mark.anyio
ID = uuid4()
LONG_AGO = 1_000_000.0


def about(**more: Any) -> About:
    return About(str(ID), "2026-11-26T00:00:00", LONG_AGO, 0, 0, 9, {"execution_status": "deleting"}, **more)


def keep(shelf: Shelf, numbers: range = range(4, 10), positions: Mapping[str, Position] = {"a": Position(3)}) -> Kept:
    return shelf.keep(ID, about(), (b'{"id":"%d"}' % number for number in numbers), positions)


def source(kept: Kept, now: float = LONG_AGO) -> KeptSource:
    return KeptSource(kept, now=lambda: now)


async def drained(source: KeptSource, after: int, *, most_events: int = 1000, most_bytes: int = 10_000) -> list[Batch]:
    found = []
    while after < 9:
        found.append(await source.batch(after, 9, most_events=most_events, most_bytes=most_bytes))
        after = found[-1].last
    return found


async def test_all_that_a_receiver_lacks_is_kept_over_a_restart(tmp_path: Path) -> None:
    positions = {"a": Position(3, 5), "b": Position(8, 8, "digest")}
    keep(Shelf(tmp_path), positions=positions)
    (found,) = Shelf(tmp_path).read(frozenset())
    assert (found.conversation, found.about.first, found.about.through) == (ID, 4, 9)
    assert [found.knows(name) for name in ("a", "b", "c")] == [True, True, False]
    for name, one in positions.items():
        assert source(found).position(name).now == one
    for after in (3, 8):
        for size in ({}, {"most_events": 2}, {"most_bytes": 1}):
            batches = await drained(source(found), after, **size)
            events = [json.loads(event)["id"] for batch in batches for event in batch.events]
            assert events == [str(number) for number in range(after + 1, 10)]
    state = await source(found).state()
    assert (json.loads(state.body), state.digest, state.events) == ({"execution_status": "deleting"}, DELETED, 9)
    found.remove()
    found.remove()
    assert Shelf(tmp_path).read(frozenset()) == []


async def test_a_reader_may_go_back(tmp_path: Path) -> None:
    reading = source(keep(Shelf(tmp_path)))
    for after in (7, 3, 8, 5):
        batch = await reading.batch(after, 9, most_events=1, most_bytes=1000)
        assert [json.loads(event)["id"] for event in batch.events] == [str(after + 1)]


async def test_what_there_was_no_room_for_is_told_as_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "MOST_BYTES", 30)  # two lines of eleven bytes
    found = keep(Shelf(tmp_path))
    batches = await drained(source(found), 3)
    assert [(batch.after, batch.last, len(batch.events)) for batch in batches] == [(3, 5, 2), (5, 9, 0)]
    parcel = events_parcel(ID.hex, batches[-1], [], {})
    assert parcel.body == b"[]"
    assert parcel.headers == {"x-nestor-gap-first": "6", "x-nestor-gap-last": "9"}
    monkeypatch.setattr(kept_module, "MOST_BYTES_TOGETHER", 30)
    assert keep(Shelf(tmp_path)).about.through == 3  # the first one has filled the shelf


async def test_what_waited_too_long_is_told_as_a_gap(tmp_path: Path) -> None:
    found = keep(Shelf(tmp_path))
    late = source(found, LONG_AGO + KEPT_SECONDS + 1)
    assert late.is_overdue
    assert not source(found).is_overdue
    assert await late.batch(5, 9, most_events=9, most_bytes=1000) == Batch(5, [], lost_through=9)
    assert [path.name for path in found.folder.iterdir() if path.name == "events.jsonl"] == []
    assert (await late.state()).digest == DELETED


def test_what_waited_too_long_frees_the_disk_though_nobody_asks_for_it(tmp_path: Path) -> None:
    found = keep(Shelf(tmp_path))
    os.utime(found.folder / "events.jsonl", (LONG_AGO, LONG_AGO))
    assert Shelf(tmp_path).read(frozenset()) == [found]
    assert not (found.folder / "events.jsonl").exists()


def test_a_conversation_that_lives_was_not_deleted_after_all(tmp_path: Path) -> None:
    found = keep(Shelf(tmp_path))
    other = frozenset({(ID, "2026-11-27T00:00:00")})  # of the same id, made later
    assert Shelf(tmp_path).read(other) == [found]
    assert Shelf(tmp_path).read(frozenset({(ID, found.about.created_at)})) == []
    assert not found.folder.exists()


def test_what_a_crash_left_half_is_removed(tmp_path: Path) -> None:
    found = keep(Shelf(tmp_path))
    for name, age in ((".unfinished-1", LONG_AGO), (".unfinished-2", None)):
        (found.folder.parent / name).mkdir()
        if age is not None:
            os.utime(found.folder.parent / name, (age, age))
    torn = found.folder.parent / f"{UUID(int=1).hex}.2"
    torn.mkdir()
    (torn / "about.json").write_text("{")
    assert Shelf(tmp_path).read(frozenset()) == [found]
    assert {path.name for path in found.folder.parent.iterdir()} == {found.folder.name, ".unfinished-2"}


def test_a_failure_to_keep_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Any:
        yield b"{}"
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        Shelf(tmp_path).keep(ID, about(), failing(), {"a": Position()})
    assert list((tmp_path / ".webhooks").iterdir()) == []


def test_a_position_is_remembered_and_shrinks_cleanly(tmp_path: Path) -> None:
    file = PositionFile(tmp_path, "a")
    assert file.now == Position()
    file.change(acknowledged=10**17, sending=10**17, state="f" * 16)
    file.change(acknowledged=3, sending=4, state="")
    assert PositionFile(tmp_path, "a").now == position.read(tmp_path, "a") == Position(3, 4, "")
    assert not PositionFile(tmp_path, "b").now.acknowledged


@pytest.mark.parametrize("content", [b"", b"\0" * 160, b"{", b"[]", b'{"acknowledged": -1}', b'{"acknowledged": "1"}'])
def test_a_position_that_makes_no_sense_is_the_beginning(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "webhook-a").write_bytes(content)
    assert PositionFile(tmp_path, "a").now == Position()


def test_a_position_that_cannot_be_written_is_remembered_all_the_same(tmp_path: Path) -> None:
    file = PositionFile(tmp_path / "missing", "a")
    file.change(acknowledged=3)
    assert file.now.acknowledged == 3
