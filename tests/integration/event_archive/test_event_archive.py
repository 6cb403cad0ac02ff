"""What the archive of events promises: immutable pieces found by sequence, in files and in object storage alike."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.app.doctor import events as doctor
from orchestrator.app.doctor.finding import Level
from orchestrator.domain.errors import Misconfigured
from orchestrator.domain.ids import ConversationId, TenantId, new_uuid
from orchestrator.settings import OrchestratorSettings
from orchestrator.state.base import GAP, StoredEvent
from orchestrator.state.event_archive import archive as archives
from orchestrator.state.event_archive.archive import DamagedEvents, EventArchive, Log, open_event_archive
from orchestrator.state.event_archive.files import FilePlace
from orchestrator.state.event_archive.places import EventsUnavailable, Missing, Place
from orchestrator.state.event_archive.segment import Span

from .conftest import Open

pytestmark = pytest.mark.anyio
BORN = datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=UTC)


def a_log() -> Log:
    return Log(TenantId(new_uuid()), ConversationId(new_uuid()), BORN)


def events(first: int, last: int, payload: str = '{"ü":"\udc80"}') -> list[StoredEvent]:
    return [StoredEvent(n, f"id-{n}", payload) for n in range(first, last + 1)]


async def test_what_was_written_is_read_at_any_cursor_by_another_replica(opened: Open) -> None:
    one, two, log = opened(), opened(), a_log()
    assert await two.through(log) == 0
    assert await two.last(log) is None
    await one.write(log, events(1, 4500))
    await one.write(log, events(4501, 4507))
    assert await two.through(log) == 4507
    assert await two.last(log) == events(4507, 4507)[0]
    for after, limit in ((0, 3), (99, 2), (1999, 2), (3990, 600), (4500, 100), (4506, 1)):
        assert await two.read(log, after=after, limit=limit) == events(after + 1, min(after + limit, 4507))
    assert await two.read(log, after=4507, limit=10) == []
    assert await one.identity() == await two.identity()


async def test_segments_that_overlap_are_one_log(opened: Open) -> None:
    one, two, log = opened(), opened(), a_log()
    await one.write(log, events(1, 150))
    await two.write(log, events(1, 220))
    await one.write(log, events(1, 150))
    await one.write(log, events(140, 300))
    assert await opened().read(log, after=0, limit=1000) == events(1, 300)
    assert await opened().read(log, after=219, limit=10) == events(220, 229)
    await one.merge(log)
    assert await opened().read(log, after=0, limit=1000) == events(1, 300)


async def test_what_another_replica_wrote_and_merged_meanwhile_is_found(opened: Open) -> None:
    writer, reader, log = opened(), opened(), a_log()
    await writer.write(log, events(1, 5))
    assert await reader.read(log, after=0, limit=100) == events(1, 5)
    for number in range(6, 6 + archives.MERGE_AT):
        await writer.write(log, events(number, number))
    last = 5 + archives.MERGE_AT
    assert await reader.read(log, after=0, limit=100) == events(1, last)
    assert await writer.merge(log)
    assert await reader.read(log, after=0, limit=100) == events(1, last), "its list names pieces that are gone"
    assert await opened().through(log) == last
    assert not await writer.merge(log)


async def test_the_mark_of_a_gap_is_kept(opened: Open) -> None:
    log, mark = a_log(), StoredEvent(900_000, f"{GAP}3-900000", "{}", first=3)
    await opened().write(log, [*events(1, 2), mark, *events(900_001, 900_002)])
    archive = opened()
    assert await archive.through(log) == 900_002
    assert await archive.read(log, after=2, limit=2) == [mark, events(900_001, 900_001)[0]]
    assert (await archive.read(log, after=500, limit=1))[0].first == 3


async def test_a_removed_log_is_gone_and_another_of_the_same_id_is_another(opened: Open) -> None:
    archive, log = opened(), a_log()
    later = Log(log.tenant, log.conversation, BORN.replace(year=2027))
    await archive.write(log, events(1, 10))
    assert await archive.through(later) == 0
    await archive.remove(log)
    assert await archive.read(log, after=0, limit=10) == []
    assert await opened().through(log) == 0
    await archive.remove(log)


async def test_a_page_costs_the_same_wherever_it_is(folder: Path) -> None:
    """Counted in bytes read, which no other load on the machine changes."""
    place, log = _Counting(folder), a_log()
    await EventArchive(place).write(log, events(1, 100_000, '{"kind":"MessageEvent","n":"%s"}' % ("x" * 200)))
    costs = {}
    for after in (5, 50_000, 99_900):
        archive = EventArchive(place)  # cold
        await archive.read(log, after=after, limit=50)
        place.bytes = place.calls = 0
        fresh = EventArchive(place)
        assert len(await fresh.read(log, after=after, limit=50)) == 50
        costs[after] = (place.bytes, place.calls)
    sizes = [size for size, _ in costs.values()]
    assert max(sizes) <= 1.5 * min(sizes), costs
    assert max(calls for _, calls in costs.values()) <= 4, costs


class _Counting(FilePlace):
    bytes = calls = 0

    async def get(self, name: str, *, offset: int, length: int) -> bytes:
        found = await super().get(name, offset=offset, length=length)
        self.bytes, self.calls = self.bytes + len(found), self.calls + 1
        return found


async def test_a_torn_or_damaged_segment_is_never_read(folder: Path) -> None:
    place, log = FilePlace(folder), a_log()
    await EventArchive(place).write(log, events(1, 300))
    path = folder / log.folder / Span(1, 300).name
    whole = path.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], b"", whole[:20] + b"\0\0\0\0" + whole[24:]):
        path.write_bytes(content)
        with pytest.raises(DamagedEvents) as failed:
            await EventArchive(place).read(log, after=0, limit=10)
        assert str(folder) not in str(failed.value)
    path.write_bytes(whole)
    (path.parent / f".{path.name}.abc").write_bytes(whole[:100])  # what a killed writer leaves
    assert await EventArchive(place).through(log) == 300
    path.unlink()
    with pytest.raises(Missing):
        await place.get(f"{log.folder}/{path.name}", offset=0, length=1)


async def test_a_place_that_cannot_be_used_says_so(folder: Path) -> None:
    (folder / "file").write_text("")
    place: Place = FilePlace(folder / "file" / "events")
    with pytest.raises(EventsUnavailable):
        await EventArchive(place).write(a_log(), events(1, 2))


@pytest.mark.parametrize(
    ("url", "journal", "root"),
    [
        (None, None, "default"),
        ("file:///a/b", "file:///x", "/a/b"),
        (None, "file:///a/journal", "/a/journal-events"),
        (None, "file:///a/journal/", "/a/journal-events"),
    ],
)
def test_where_it_is(url: str | None, journal: str | None, root: str) -> None:
    archive = open_event_archive(url, journal=journal, default=Path("default"))
    assert isinstance(archive._place, FilePlace)
    assert archive._place._root == Path(root)


@pytest.mark.parametrize(
    ("url", "journal"),
    [("http://x/y", None), ("file://host/x", None), ("s3://", None), ("s3://u:p@b/x", None), (None, "s3://bucket")],
)
def test_what_is_no_address_is_refused(url: str | None, journal: str | None) -> None:
    with pytest.raises(Misconfigured, match="NESTOR_"):
        open_event_archive(url, journal=journal, default=Path("default"))


async def test_a_check_reads_all_and_names_what_is_damaged_or_missing(opened: Open) -> None:
    archive, sound, holed, broken = opened(), a_log(), a_log(), a_log()
    await archive.write(sound, events(1, 2500))
    await archive.write(sound, events(2000, 2600))
    assert vars(await opened().check()) == {"logs": 1, "segments": 3, "events": 2600, "problems": []}
    await archive.write(holed, events(1, 10))
    await archive.write(holed, events(21, 30))
    await archive.write(broken, events(1, 10))
    name = f"{broken.folder}/{Span(1, 10).name}"
    place = archive._place
    content = await place.get(name, offset=0, length=100_000)
    await place.put(name, content[:30] + bytes([content[30] ^ 1]) + content[31:])
    found = await opened().check()
    assert sorted(found.problems) == sorted(
        [f"{holed.folder}: events 11 to 20 are in no segment", f"{name}: a check sum is wrong"]
    )
    await place.put(name, content[:-5])
    assert f"{name}: it has no end" in (await opened().check()).problems
    await place.put(name, (await place.get(f"{holed.folder}/{Span(21, 30).name}", offset=0, length=100_000)))
    assert f"{name}: its events do not follow one another" in (await opened().check()).problems


async def test_the_doctor_tells_it_and_makes_nothing(tmp_path: Path) -> None:
    settings = OrchestratorSettings(data_dir=tmp_path, operator_key="operator-key-of-the-tests-0123456789")
    (fine,) = await doctor.look(settings, None)
    assert (fine.level, (tmp_path / "events").exists()) == (Level.OK, False)
    archive, log = EventArchive(FilePlace(tmp_path / "events")), a_log()
    await archive.write(log, events(1, 10))
    (fine,) = await doctor.look(settings, None)
    assert "1 logs with 10 events in 1 segments" in fine.message
    segment = tmp_path / "events" / log.folder / Span(1, 10).name
    segment.write_bytes(segment.read_bytes()[:-1])
    (told,) = await doctor.look(settings, None)
    assert (told.level, told.about) == (Level.FAILURE, "events")
    assert Span(1, 10).name in told.message
    assert "copy" in told.hint
    await archive.close()
