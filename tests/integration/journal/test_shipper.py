"""From a real state server's streams to a real archive: order, durability of answers, two shippers, faults."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from redis.asyncio import Redis
from support.records import a_conversation

from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.ids import TenantId, new_uuid
from orchestrator.domain.tenancy import Tenant
from orchestrator.state.journal.archive import Overtaken
from orchestrator.state.journal.entry import Entry, Tail
from orchestrator.state.journal.files import FileArchive
from orchestrator.state.journal.shipper import Shipper
from orchestrator.state.journal.stream import Streams
from orchestrator.state.redis_store import RedisStore

from .conftest import Run

pytestmark = pytest.mark.anyio
TENANT = TenantId(new_uuid())


@pytest.fixture
def url(run_server: Run) -> str:
    return run_server("--appendonly", "no").url


@pytest.fixture
async def stores(url: str, folder: Path) -> AsyncIterator[list[RedisStore]]:
    """Two replicas with shippers over one server and one folder."""
    made = []
    for _ in range(2):
        store = RedisStore(url)
        store.archive_to(FileArchive(folder / "journal"))
        await store.check()
        made.append(store)
    yield made
    for store in made:
        assert store.journal is not None
        await store.journal.archive.close()
        await store.close()


async def test_a_change_is_in_the_archive_when_it_is_answered(stores: list[RedisStore], folder: Path) -> None:
    """The server keeps nothing on disk, so the answer waits for the journal: without any shipper running."""
    assert "journal" in (await stores[0].check())["durability"]
    for version in range(5):
        assert await stores[version % 2].configuration.put_settings(
            TENANT, None, f"s{version}", expected_version=version
        )
        folded, tail = await FileArchive(folder / "journal").read(TENANT)
        assert folded.entries() == [Entry("settings", "", f"{version + 1}:s{version}")]
        assert tail.sequence >= version + 1  # two that ship at once may append twice


async def test_writers_at_once_share_appends_and_lose_nothing(stores: list[RedisStore], folder: Path) -> None:
    async def write(number: int) -> None:
        made = a_conversation(TENANT)
        await stores[number % 2].conversations.create(made)
        ids.add(made.id)

    ids: set[str] = set()
    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(write, number)
    folded, _ = await FileArchive(folder / "journal").read(TENANT)
    assert {id for id, _ in folded.of("conversation")} == ids


async def test_a_tick_ships_and_empties_and_a_second_one_has_nothing_to_do(url: str, folder: Path) -> None:
    silent = RedisStore(url)  # a replica that died before it shipped
    await silent.conversations.create(a_conversation(TENANT))
    await silent.close()
    store = RedisStore(url)
    shipper = store.archive_to(FileArchive(folder))
    assert await shipper.tick() == 1
    assert await shipper.tick() == 0
    assert (await shipper.archive.tail(TENANT)).sequence == 1
    await shipper.archive.close()
    await store.close()


async def test_what_the_index_forgot_is_found_by_the_sweep(url: str, folder: Path) -> None:
    store = RedisStore(url)
    created = a_conversation()
    await store.tenants.add_tenant(Tenant(created.tenant, "acme", created.created_at))
    raw = Redis.from_url(url, protocol=2)
    await raw.delete("x:journal:due")
    await raw.aclose()
    shipper = store.archive_to(FileArchive(folder))
    assert await shipper.tick() == 0
    assert await shipper.sweep()
    assert await shipper.tick() == 1
    await shipper.archive.close()
    await store.close()


async def test_a_full_archive_refuses_and_recovers(stores: list[RedisStore], folder: Path) -> None:
    """Nothing is answered that is not in the archive, and what waited gets there."""
    journal = folder / "journal" / TENANT
    await stores[0].configuration.put_settings(TENANT, None, "one", expected_version=0)
    os.rename(journal, folder / "away")
    journal.write_text("in the way")
    with pytest.raises(StoreUnavailable, match="journal"):
        await stores[0].configuration.put_settings(TENANT, None, "two", expected_version=1)
    assert stores[0].journal is not None
    assert stores[0].journal.problem is not None
    journal.unlink()
    os.rename(folder / "away", journal)
    await stores[0].configuration.put_settings(TENANT, None, "three", expected_version=2)
    folded, tail = await FileArchive(folder / "journal").read(TENANT)
    assert folded.entries() == [Entry("settings", "", "3:three")]
    assert tail.sequence == 3
    assert stores[0].journal.problem is None


async def test_a_long_chain_is_compacted_by_the_way_and_nothing_is_lost(url: str, folder: Path) -> None:
    store = RedisStore(url)
    archive = FileArchive(folder)
    shipper = Shipper(Streams(store._funnel), archive, compact_bytes=20_000, look_every=10)
    for version in range(60):
        await store.configuration.put_settings(TENANT, None, f"{version}" * 500, expected_version=version)
        await shipper.tick()
    found = await archive.check(TENANT)
    assert found.entries == 60
    assert sum(file.stat().st_size for file in (folder / TENANT).iterdir()) < 45_000, "sixty of a thousand bytes each"
    assert (await archive.read(TENANT))[0].entries() == [Entry("settings", "", f"60:{'59' * 500}")]
    assert [file.name for file in (folder / TENANT).glob("snapshot-*")]
    await archive.close()
    await store.close()


async def test_a_shipper_that_slept_between_reading_and_writing_changes_nothing(
    stores: list[RedisStore], folder: Path
) -> None:
    slept, other = stores
    assert slept.journal is not None
    tail: Tail = await slept.journal.archive.tail(TENANT)
    await other.configuration.put_settings(TENANT, None, "one", expected_version=0)
    await other.configuration.put_settings(TENANT, None, "two", expected_version=1)
    with pytest.raises(Overtaken):
        await slept.journal.archive.append(TENANT, [Entry("settings", "", "1:one")], after=tail)
    folded, _ = await FileArchive(folder / "journal").read(TENANT)
    assert folded.entries() == [Entry("settings", "", "2:two")]
