"""Snapshots in the archive, in files and in object storage: there whole or not at all, and gone with their log."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.domain.errors import TooLarge
from orchestrator.domain.ids import ConversationId, TenantId, new_uuid
from orchestrator.domain.snapshots import Snapshot, SnapshotId
from orchestrator.state.event_archive.archive import Log
from orchestrator.state.event_archive.places import Missing
from orchestrator.state.event_archive.snapshots import (
    ABANDONED,
    KEPT_FREE_BYTES,
    PIECE_BYTES,
    DamagedSnapshot,
    NoRoom,
    SnapshotArchive,
)
from tests.integration.event_archive.conftest import Open

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=UTC)
CONTENT = bytes(range(256)) * (PIECE_BYTES // 200)  # a piece, and some of the next


def a_log() -> Log:
    return Log(TenantId(new_uuid()), ConversationId(new_uuid()), NOW)


async def in_parts(content: bytes, *, breaks: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1_000_000):
        yield content[start : start + 1_000_000]
    if breaks:
        raise ConnectionError


async def taken(archive: SnapshotArchive, home: str, at: int, when: datetime = NOW) -> Snapshot:
    id = SnapshotId(new_uuid())
    await archive.begin(home, id, when)
    pieces = await archive.write(home, id, in_parts(CONTENT), limit_bytes=len(CONTENT))
    made = Snapshot(id, at, sum(piece.size for piece in pieces), when)
    await archive.finish(home, made, pieces)
    return made


async def read(archive: SnapshotArchive, home: str, id: SnapshotId) -> bytes:
    return b"".join([piece async for piece in archive.pieces(home, id)])


async def test_it_is_read_by_another_replica_as_it_was_written_and_goes_with_its_log(opened: Open) -> None:
    one, two, log, other = opened(), opened(), a_log(), a_log()
    later = await taken(one.snapshots, log.home, 7, NOW + timedelta(seconds=1))
    first = await taken(two.snapshots, log.home, 3)
    await taken(one.snapshots, other.home, 1)
    assert await two.snapshots.present(log.home) == [first, later]
    assert first.size == len(CONTENT)
    assert await read(one.snapshots, log.home, first.id) == CONTENT
    assert not (await one.check()).problems, "no part of a log"
    assert await one.snapshots.remove(log.home, first.id)
    assert not await two.snapshots.remove(log.home, first.id)
    with pytest.raises(Missing):
        await read(two.snapshots, log.home, first.id)
    assert await two.snapshots.present(log.home) == [later]
    await one.remove(log)
    assert await two.snapshots.present(log.home) == []
    assert len(await two.snapshots.present(other.home)) == 1


async def test_what_breaks_off_or_is_too_large_is_not_there_and_leaves_nothing_for_long(opened: Open) -> None:
    archive, log = opened().snapshots, a_log()
    broken, large = SnapshotId(new_uuid()), SnapshotId(new_uuid())
    for id, wrong in ((broken, ConnectionError), (large, TooLarge)):
        await archive.begin(log.home, id, NOW)
        with pytest.raises(wrong):
            await archive.write(
                log.home, id, in_parts(CONTENT, breaks=id == broken), limit_bytes=len(CONTENT) - (id == large)
            )
    assert await archive.present(log.home) == []
    assert not await archive.remove(log.home, large)
    place = archive._place  # what is left is seen only there
    assert [name for name in await place.below() if broken in name]
    await archive.begin(log.home, SnapshotId(new_uuid()), NOW + ABANDONED - timedelta(seconds=1))
    assert [name for name in await place.below() if broken in name]
    await archive.begin(log.home, SnapshotId(new_uuid()), NOW + ABANDONED)
    assert not [name for name in await place.below() if broken in name or large in name]


async def test_the_last_of_a_disk_is_left_to_the_logs(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, log = opened().snapshots, a_log()
    left = iter([KEPT_FREE_BYTES + PIECE_BYTES, KEPT_FREE_BYTES])

    async def room(_: object) -> int:
        return next(left)

    monkeypatch.setattr(type(archive._place), "room", room)
    with pytest.raises(NoRoom):
        await taken(archive, log.home, 1)
    assert await archive.present(log.home) == []


async def test_one_with_a_damaged_piece_is_told_and_never_given_out(opened: Open) -> None:
    archive, log = opened().snapshots, a_log()
    made = await taken(archive, log.home, 2)
    place = archive._place
    name = f"{log.home}/snapshots/{made.id}/000001"
    content = await place.get(name, offset=0, length=PIECE_BYTES)
    for damage in (content[:-1], content[:-1] + b"x"):
        await place.put(name, damage)
        with pytest.raises(DamagedSnapshot):
            await read(archive, log.home, made.id)
    await place.remove(name)
    with pytest.raises(DamagedSnapshot):
        await read(archive, log.home, made.id)
    await place.put(f"{log.home}/snapshots/{made.id}.json", b"{")
    assert await archive.present(log.home) == []
