"""What every archive promises: order, one chain for many writers, nothing lost by compaction, damage by its place."""

from pathlib import Path

import pytest

from orchestrator.domain.errors import Misconfigured
from orchestrator.state.journal import files
from orchestrator.state.journal.archive import (
    Archive,
    ArchiveUnavailable,
    DamagedArchive,
    Overtaken,
    open_archive,
)
from orchestrator.state.journal.entry import Entry, Tail
from orchestrator.state.journal.files import FileArchive

from .conftest import Open

pytestmark = pytest.mark.anyio
HOME = "6f1d0f6e-0b0a-4d8e-9f5e-0a7a4c1d2e3f"


def entries(*bodies: str | None, id: str = "x") -> list[Entry]:
    return [Entry("secret", id, body) for body in bodies]


async def test_what_is_appended_is_read_back_by_another_replica(opened: Open) -> None:
    one, two = opened(), opened()
    tail = await one.append(HOME, [Entry("a", "1", 'ü\x00"'), Entry("b", "2", "x")], after=Tail())
    tail = await one.append(HOME, [Entry("b", "2", None), Entry("c", "3", "\udc80")], after=tail)
    assert await two.tail(HOME) == tail
    folded, at = await two.read(HOME)
    assert at == tail
    assert folded.entries() == [Entry("a", "1", 'ü\x00"'), Entry("c", "3", "\udc80")]
    assert await two.homes() == [HOME]
    assert await one.identity() == await two.identity()


async def test_of_two_that_append_behind_the_same_tail_one_is_overtaken(opened: Open) -> None:
    one, two = opened(), opened()
    tail = await one.append(HOME, entries("first"), after=Tail())
    assert await two.tail(HOME) == tail
    longer = await one.append(HOME, entries("second"), after=tail)
    with pytest.raises(Overtaken):
        await two.append(HOME, entries("late"), after=tail)
    assert await two.tail(HOME) == longer
    await two.append(HOME, entries("third"), after=longer)
    assert (await one.read(HOME))[0].entries() == entries("third")


async def test_compaction_keeps_what_is_known_and_the_chain(opened: Open) -> None:
    one, two = opened(), opened()
    tail = Tail()
    for number in range(50):
        tail = await one.append(HOME, entries("y" * 1000, str(number)), after=tail)
    assert not await one.compact(HOME, at_least=1_000_000)
    assert await one.compact(HOME, at_least=10_000)
    assert await two.tail(HOME) == tail
    found = await two.check(HOME)
    assert (found.entries, found.objects, found.segments) == (100, 1, 1)
    tail = await two.append(HOME, entries("after"), after=tail)
    assert (await one.read(HOME))[0].entries() == entries("after")
    assert (await one.check(HOME)).entries == 101


async def test_what_is_known_is_not_copied_again_for_little_that_came(opened: Open) -> None:
    one = opened()
    tail = await one.append(HOME, [Entry("secret", str(number), "y" * 100) for number in range(200)], after=Tail())
    assert await one.compact(HOME, at_least=10_000), "also where nothing is spared: else it is read again each time"
    assert (await one.check(HOME)).objects == 200
    tail = await one.append(HOME, entries("z" * 500, id="0"), after=tail)
    assert not await one.compact(HOME, at_least=1)
    for number in range(200):
        tail = await one.append(HOME, entries("z" * 200, id=str(number)), after=tail)
    assert await one.compact(HOME, at_least=1)
    found = await opened().read(HOME)
    assert found[1] == tail
    assert sorted(found[0].of("secret")) == sorted((str(number), "z" * 200) for number in range(200))


async def test_one_that_slept_through_a_compaction_is_overtaken(opened: Open) -> None:
    """Its tail is so old that the name behind it is free again: what it wrote there nobody would read."""
    one, two = opened(), opened()
    tail = await one.append(HOME, entries("first"), after=Tail())
    assert await two.tail(HOME) == tail
    longer = tail
    for _ in range(3):
        longer = await one.append(HOME, entries("z" * 1000), after=longer)
    assert await one.compact(HOME, at_least=1)
    with pytest.raises(Overtaken):
        await two.append(HOME, entries("late"), after=tail)
    assert await two.tail(HOME) == longer
    await two.append(HOME, entries("last"), after=longer)
    assert (await one.read(HOME))[0].entries() == entries("last")


async def test_what_came_behind_a_sequence(opened: Open) -> None:
    one, two = opened(), opened()
    tail = await one.append(HOME, entries("a", "b"), after=Tail())
    tail = await one.append(HOME, entries("c"), after=tail)
    assert await two.since(HOME, 0) == entries("a", "b", "c")
    assert await two.since(HOME, 1) == entries("b", "c")
    assert await two.since(HOME, 3) == []
    assert await one.compact(HOME, at_least=1)
    assert await two.since(HOME, 3) == []
    assert await two.since(HOME, 1) is None, "a compaction has taken it"
    await one.append(HOME, entries("d"), after=tail)
    assert await two.since(HOME, 3) == entries("d")
    assert await two.since(HOME, 2) is None


async def test_messages_go_with_their_conversation(archive: Archive) -> None:
    rows = [
        Entry("conversation", "c1", "[]"),
        Entry("message", "c1|1", "m"),
        Entry("delivered", "c1|1", ""),
        Entry("message", "c2|1", "other"),
        Entry("conversation", "c1", None),
    ]
    await archive.append(HOME, rows, after=Tail())
    assert (await archive.read(HOME))[0].entries() == [Entry("message", "c2|1", "other")]


class TestFiles:
    async def test_half_a_line_of_a_crash_is_cut_off(self, folder: Path) -> None:
        archive = FileArchive(folder)
        tail = await archive.append(HOME, entries("kept"), after=Tail())
        (segment,) = (folder / HOME).glob("0*.jsonl")
        whole = segment.read_bytes()
        for cut in range(1, len(whole)):
            segment.write_bytes(whole + whole[:cut])
            again = FileArchive(folder)
            assert await again.tail(HOME) == tail
            await again.close()
        again = FileArchive(folder)
        await again.append(HOME, entries("next"), after=tail)
        assert (await again.read(HOME))[0].entries() == entries("next")
        for one in (archive, again):
            await one.close()

    async def test_every_flipped_byte_is_told_by_file_and_line(self, folder: Path) -> None:
        archive = FileArchive(folder)
        await archive.append(HOME, [Entry("a", "1", "one"), Entry("b", "2", "two")], after=Tail())
        (segment,) = (folder / HOME).glob("0*.jsonl")
        whole = segment.read_bytes()
        for place in range(len(whole) - 1):  # the last one ends the line: without it the line is half
            segment.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            again = FileArchive(folder)
            with pytest.raises(DamagedArchive, match=rf"{segment.name}:\d"):
                await again.check(HOME)
            await again.close()
        await archive.close()

    async def test_a_missing_line_and_a_missing_file_are_told(self, folder: Path) -> None:
        archive = FileArchive(folder, segment_bytes=1)
        tail = Tail()
        for body in ("one", "two", "three"):
            tail = await archive.append(HOME, entries(body), after=tail)
        segments = sorted((folder / HOME).glob("0*.jsonl"))
        assert len(segments) == 3
        segments[1].unlink()
        with pytest.raises(DamagedArchive, match="entry 2 is missing"):
            await archive.check(HOME)
        await archive.close()

    async def test_a_crash_between_the_snapshot_and_the_removal_loses_nothing(self, folder: Path) -> None:
        archive = FileArchive(folder)
        tail = await archive.append(HOME, entries("old" * 1000, "new"), after=Tail())
        (segment,) = (folder / HOME).glob("0*.jsonl")
        left = segment.read_bytes()
        assert await archive.compact(HOME, at_least=1)
        segment.write_bytes(left)
        again = FileArchive(folder)
        assert await again.tail(HOME) == tail
        await again.append(HOME, entries("newest"), after=tail)
        assert (await again.read(HOME))[0].entries() == entries("newest")
        for one in (archive, again):
            await one.close()

    async def test_replicas_append_while_another_compacts(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        one, two = FileArchive(folder), FileArchive(folder)
        rows = [Entry("conversation", "c", "[]"), Entry("message", "c|1", "m"), *entries("a", "b")]
        rows += entries("c", id="y")
        tail = await one.append(HOME, [*rows, Entry("conversation", "c", None)], after=Tail())
        assert await two.tail(HOME) == tail
        (segment,) = (folder / HOME).glob("0*.jsonl")
        segment.write_bytes(segment.read_bytes() + b"half a li")
        really = files.compacted
        seen: list[Tail] = []

        def meanwhile(snapshot: Path | None, segments: list[Path], into: Path, at: Tail) -> None:
            seen.append(two._append(HOME, entries("d"), at))
            assert not two._compact(HOME, 1), "one at a time"
            really(snapshot, segments, into, at)
            seen.append(two._append(HOME, entries("e", id="y"), seen[-1]))

        monkeypatch.setattr(files, "compacted", meanwhile)
        assert await one.compact(HOME, at_least=1)
        third = FileArchive(folder)
        for archive in (one, two, third):
            found, at = await archive.read(HOME)
            assert sorted(found.of("secret")) == [("x", "d"), ("y", "e")]
            assert (len(found), at, await archive.tail(HOME)) == (2, seen[-1], seen[-1])
            await archive.append(HOME, entries("d"), after=at)
            seen.append(await archive.tail(HOME))
        for archive in (one, two, third):
            await archive.close()

    async def test_damage_that_a_compaction_meets_is_told_and_left(self, folder: Path) -> None:
        archive = FileArchive(folder)
        await archive.append(HOME, entries("one", "two", "three"), after=Tail())
        (segment,) = (folder / HOME).glob("0*.jsonl")
        damaged = segment.read_bytes().replace(b"two", b"twx")
        segment.write_bytes(damaged)
        with pytest.raises(DamagedArchive, match=rf"{segment.name}:2"):
            await FileArchive(folder).compact(HOME, at_least=1)
        assert segment.read_bytes() == damaged
        assert not list((folder / HOME).glob("*snapshot*"))
        await archive.close()

    async def test_a_folder_that_cannot_be_used_is_unavailable(self, folder: Path) -> None:
        (folder / "journal").write_text("no folder")
        archive = FileArchive(folder / "journal")
        with pytest.raises(ArchiveUnavailable, match="cannot be used"):
            await archive.append(HOME, entries("x"), after=Tail())
        await archive.close()


async def test_a_storage_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s-secret")
    archive = open_archive("s3://bucket/x?endpoint=http://127.0.0.1:9", folder)
    with pytest.raises(ArchiveUnavailable, match="s3://bucket/x/") as told:
        await archive.append(HOME, entries("x"), after=Tail())
    assert "s-secret" not in str(told.value)
    await archive.close()


@pytest.mark.parametrize(
    "url", ["journal", "http://host/x", "s3://", "s3://k:s@bucket/x", "s3://b/x?key=1", "file://host/x"]
)
def test_an_address_that_is_none_is_misconfigured(url: str, folder: Path) -> None:
    with pytest.raises(Misconfigured, match="NESTOR_JOURNAL_URL"):
        open_archive(url, folder)
