"""Every store of the suite: the one in memory, and the Redis store over each real server that this machine has."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from redis import Redis as Client
from redis.asyncio import Redis
from support.redis_container import redis_container, url_of
from support.state_servers import answers

from orchestrator.domain.clock import SystemClock
from orchestrator.domain.conversation import Conversation, StartRequest
from orchestrator.domain.ids import ConversationId, TenantId, UserId, new_uuid
from orchestrator.state.base import Store
from orchestrator.state.embedded import EmbeddedServer
from orchestrator.state.memory import MemoryStore
from orchestrator.state.redis_store import RedisStore

Found = TypeVar("Found")
MOMENT = datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=UTC)


@dataclass
class House:
    """Two replicas' views of one store, and how much is kept in it."""

    store: Store
    other: Store
    raw: Redis | None  # a client of our own, None for memory

    async def size(self) -> int:
        if self.raw is not None:
            # The journal stays: its stream is emptied by the shipper, and keeps the place that it has reached.
            # So do generations, one number a layer: given again, they would pass something new for something old.
            names = [name async for name in self.raw.scan_iter()]
            return len([name for name in names if b":journal" not in name and not name.endswith(b":generations")])
        assert isinstance(self.store, MemoryStore)
        return self.store.size()


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    # Not below pytest's own folder: the path of a unix socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="nst-", dir="/tmp"))
    server = EmbeddedServer(folder)
    asyncio.run(server.start())
    try:
        yield server.url
    finally:
        asyncio.run(server.stop())
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def container_url() -> Iterator[str]:
    """As compose has it: another program than the embedded one may be, over TCP."""
    with redis_container(fsync="everysec") as container, Client.from_url(url_of(container), socket_timeout=5) as client:
        deadline = time.monotonic() + 30
        while not answers(client):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield url_of(container)


_SERVERS = {"redis": "server_url", "container": "container_url"}


@pytest.fixture(params=["memory", "redis", pytest.param("container", marks=pytest.mark.docker)])
def url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "memory" else str(request.getfixturevalue(_SERVERS[request.param]))


@pytest.fixture
async def house(url: str | None) -> AsyncIterator[House]:
    if url is None:
        store = MemoryStore(SystemClock())
        yield House(store, store, None)
        return
    raw = Redis.from_url(url, protocol=2)
    await raw.flushall()
    first, second = RedisStore(url), RedisStore(url)
    try:
        yield House(first, second, raw)
    finally:
        await first.close()
        await second.close()
        await raw.aclose()


@pytest.fixture
def store(house: House) -> Store:
    return house.store


async def until(probe: Callable[[], Awaitable[Found]], *, within: float = 5.0) -> Found:
    """What `probe` answers once it is something; fails after `within` seconds."""
    with anyio.fail_after(within):
        while True:
            found = await probe()
            if found:
                return found
            await anyio.sleep(0.005)


def a_conversation(tenant: TenantId | None = None, user: UserId | None = None) -> Conversation:
    return Conversation(
        id=ConversationId(new_uuid()),
        tenant=tenant or TenantId(new_uuid()),
        user=user,
        request=StartRequest(repository="owner/name", initial_message="hällo \u2028 {}"),
        created_at=MOMENT,
        updated_at=MOMENT,
        phase_since=MOMENT,
    )
