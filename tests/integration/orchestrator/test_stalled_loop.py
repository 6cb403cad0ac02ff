"""Leases while something keeps the event loop of their holder from everybody: another replica tries to take them."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog
from support.orchestrators import nestor_at
from support.records import claimed

from orchestrator.domain.clock import SystemClock
from orchestrator.domain.errors import LeaseLost
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.services.lease_keeper import LeaseKeeper
from orchestrator.state.base import Lease
from orchestrator.state.embedded import EmbeddedServer
from orchestrator.state.redis_store import RedisStore
from orchestrator.telemetry import metrics

pytestmark = pytest.mark.anyio
LEASE_SECONDS = 3.0
SHORT_SECONDS = 0.3


class Rival(threading.Thread):
    """Another replica, which wants the conversation, with a loop of its own. It gives up after `seconds`."""

    def __init__(self, url: str, tenant: TenantId, id: ConversationId, *, seconds: float) -> None:
        super().__init__(name="rival", daemon=True)
        self.taken: Lease | None = None
        self._wanted = (url, tenant, id)
        self._seconds = seconds

    def run(self) -> None:
        asyncio.run(self._try())

    async def _try(self) -> None:
        url, tenant, id = self._wanted
        store = RedisStore(url)
        until = time.monotonic() + self._seconds
        try:
            while self.taken is None and time.monotonic() < until:
                got = await store.conversations.claim(tenant, id, "the rival", lease_ms=60_000)
                self.taken = None if got is None else got[0]
                await asyncio.sleep(0.01)
        finally:
            await store.close()

    def kept_from_all_others(self, also: Callable[[], bool] = lambda: True) -> None:
        """Let it try, and wait for what is wanted `also`, in the caller's event loop, where nothing else runs
        meanwhile."""
        self.start()
        self.join()
        until = time.monotonic() + self._seconds
        while not also() and time.monotonic() < until:
            time.sleep(0.01)


@pytest.fixture
async def server(data_dir: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(data_dir) as running:
        yield running


@pytest.fixture
async def store(server: EmbeddedServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(server.url, timeout=0.5)
    yield opened
    await opened.close()


def keeper_of(store: RedisStore) -> LeaseKeeper:
    return LeaseKeeper(store.leases, SystemClock(), lease_seconds=SHORT_SECONDS)


async def short_lease(store: RedisStore) -> Lease:
    return await claimed(store, lease_ms=int(SHORT_SECONDS * 1000))  # type: ignore[arg-type]


def keeping() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "leases"]


async def test_an_act_goes_on_after_a_stall_that_was_longer_than_its_lease(
    data_dir: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nestor_at(data_dir, engine, lease_seconds=LEASE_SECONDS) as nestor:
        server, driver = nestor.house.state_server, nestor.house.driver
        assert server is not None
        key = await nestor.ready_tenant()
        tenant = TenantId((await nestor.call("GET", "/api/v2/tenants", status=200))["items"][0]["id"])
        start, rivals = driver.start, []

        async def stalled(handle: Any, **more: Any) -> Any:
            conversation = ConversationId(handle.labels.conversation)
            rivals.append(Rival(server.url, tenant, conversation, seconds=LEASE_SECONDS * 1.5))
            rivals[-1].kept_from_all_others()
            return await start(handle, **more)

        monkeypatch.setattr(driver, "start", stalled)
        lost = metrics.LEASES_LOST.collect()[0].samples[0].value
        begun = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
        await nestor.until(key, begun["id"], "ready", seconds=60)
        assert [rival.taken for rival in rivals] == [None]
        assert (await nestor.ended(key, begun["operation"], 30))["state"] == "succeeded"
        assert metrics.LEASES_LOST.collect()[0].samples[0].value == lost


async def test_a_loop_that_gives_no_sign_for_long_loses_its_leases_and_the_place_is_told(
    server: EmbeddedServer, store: RedisStore
) -> None:
    keeper = keeper_of(store)
    with structlog.testing.capture_logs() as logs:
        async with keeper.running():
            lease = await short_lease(store)
            held = keeper.hold(lease, keeper.now())
            rival = Rival(server.url, lease.tenant, lease.conversation, seconds=60)
            rival.kept_from_all_others(also=lambda: any(one["event"] == "leases.let_go" for one in logs))
            assert rival.taken is not None
            assert rival.taken.fence > lease.fence
            with anyio.fail_after(30), pytest.raises(LeaseLost, match="another replica"):
                await held.lost()
    (told,) = (one for one in logs if one["event"] == "leases.let_go")
    assert any("kept_from_all_others" in place for place in told["at"])


async def test_what_was_released_is_renewed_no_more_and_no_thread_stays(
    server: EmbeddedServer, store: RedisStore
) -> None:
    keeper = keeper_of(store)
    async with keeper.running():
        assert keeping() == ["leases"]
        kept, released = await short_lease(store), await short_lease(store)
        held = keeper.hold(kept, keeper.now())
        keeper.release(keeper.hold(released, keeper.now()))
        rival = Rival(server.url, released.tenant, released.conversation, seconds=60)
        await anyio.to_thread.run_sync(rival.kept_from_all_others)
        assert rival.taken is not None
        keeper.release(held)
    assert keeping() == []


async def test_a_state_server_that_is_silent_costs_the_lease_and_does_not_keep_the_thread(
    server: EmbeddedServer, store: RedisStore
) -> None:
    assert server.pid is not None
    keeper = keeper_of(store)
    async with keeper.running():
        held = keeper.hold(await short_lease(store), keeper.now())
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with anyio.fail_after(30), pytest.raises(LeaseLost, match="in time"):
                await held.lost()
            keeper.hold(held.lease, keeper.now())  # so that it asks on
        except BaseException:
            os.kill(server.pid, signal.SIGCONT)
            raise
    os.kill(server.pid, signal.SIGCONT)
    assert keeping() == []
