"""The route cache."""

import asyncio
from dataclasses import replace

import pytest

from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import SecretText
from orchestrator.proxy.cache import RouteCache
from orchestrator.proxy.route import Found, Route, Unavailable

pytestmark = pytest.mark.anyio
ID = RuntimeId("r")
ROUTE = Route(ID, TenantId("t"), ConversationId("c"), 1, "127.0.0.1", 1, "hash", SecretText("inner"))


class Store:
    """What the cache reads: a value, an error, or a wait."""

    def __init__(self, found: Found = ROUTE) -> None:
        self.found: Found = found
        self.loads = 0
        self.down = False
        self.gate: asyncio.Event | None = None
        self.now = 0.0

    async def load(self, runtime: RuntimeId) -> Found:
        self.loads += 1
        found = self.found
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise StoreUnavailable("down")
        return found

    def cache(self, **options: float) -> RouteCache:
        return RouteCache(self.load, clock=lambda: self.now, **options)  # type: ignore[arg-type]


async def test_all_who_ask_at_once_share_one_load() -> None:
    store = Store()
    store.gate = asyncio.Event()
    cache = store.cache()
    asked = [asyncio.ensure_future(cache.resolve(ID)) for _ in range(20)]
    await asyncio.sleep(0)
    asked[0].cancel()
    await asyncio.sleep(0)
    store.gate.set()
    assert await asyncio.gather(*asked[1:]) == [ROUTE] * 19
    assert store.loads == 1


async def test_live_routes_are_kept_longer_than_bad_news() -> None:
    store = Store()
    cache = store.cache()
    assert cache.known(ID) is None
    assert await cache.resolve(ID) is ROUTE
    assert cache.known(ID) is ROUTE
    store.now = 4.9
    await cache.resolve(ID)
    assert store.loads == 1
    store.now = 5.1
    assert cache.known(ID) is None
    store.found = Unavailable("asleep")
    assert await cache.resolve(ID) == Unavailable("asleep")
    assert cache.known(ID) is None
    store.now = 6.0
    await cache.resolve(ID)
    assert store.loads == 2
    store.found, store.now = None, 6.2
    assert await cache.resolve(ID) is None
    assert await cache.resolve(ID) is None
    assert store.loads == 3


async def test_an_invalidated_route_is_forgotten_and_subscribers_are_told() -> None:
    store, told = Store(), []
    cache = store.cache()
    cache.subscribe(told.append)
    await cache.resolve(ID)
    cache.invalidate(ID)
    assert (cache.known(ID), told) == (None, [ID])
    await cache.resolve(ID)
    cache.clear()
    assert (cache.known(ID), told) == (None, [ID, ID])


async def test_what_was_read_before_an_invalidation_is_not_believed() -> None:
    store = Store()
    store.gate = asyncio.Event()
    cache = store.cache()
    asked = asyncio.ensure_future(cache.resolve(ID))
    await asyncio.sleep(0)
    newer = replace(ROUTE, generation=2)
    store.found = newer
    cache.invalidate(ID)
    store.gate.set()
    assert await asked == newer
    assert cache.known(ID) == newer
    assert store.loads == 2


async def test_a_store_that_is_away_leaves_live_routes_in_use() -> None:
    store = Store()
    cache = store.cache()
    await cache.resolve(ID)
    store.down, store.now = True, 10.0
    assert await cache.resolve(ID) is ROUTE
    cache.invalidate(ID)
    with pytest.raises(StoreUnavailable):
        await cache.resolve(ID)


async def test_a_load_that_hangs_has_a_deadline() -> None:
    store = Store()
    store.gate = asyncio.Event()
    cache = store.cache(deadline=0.05)
    with pytest.raises(TimeoutError):
        await cache.resolve(ID)
    await cache.close()


async def test_the_cache_is_bounded() -> None:
    store = Store()
    cache = store.cache(limit=3)
    for number in range(10):
        await cache.resolve(RuntimeId(str(number)))
    assert [cache.known(RuntimeId(str(number))) is not None for number in range(10)] == [False] * 7 + [True] * 3


async def test_closing_ends_loads_under_way() -> None:
    store = Store()
    store.gate = asyncio.Event()
    cache = store.cache()
    asked = asyncio.ensure_future(cache.resolve(ID))
    await asyncio.sleep(0)
    cache.invalidate(ID)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await asked


@pytest.mark.parametrize("told", [ROUTE.conversation, None], ids=["of this one", "of any"])
async def test_a_route_that_changed_on_another_replica_is_forgotten(told: ConversationId | None) -> None:
    for found in (None, Unavailable("paused"), replace(ROUTE, generation=2), replace(ROUTE, session_key_hash="other")):
        store = Store()
        cache = store.cache(check=0.01)
        forgotten: list[RuntimeId] = []
        cache.subscribe(forgotten.append)
        await cache.resolve(ID)
        store.found = found
        cache.changed(told)
        async with asyncio.timeout(5):
            while not forgotten:
                await asyncio.sleep(0.001)
        assert cache.known(ID) is None
        await cache.close()


async def test_changes_that_are_none_of_the_route_cost_one_read_and_leave_it() -> None:
    store = Store()
    cache = store.cache(check=0.02)
    await cache.resolve(ID)
    store.found = replace(ROUTE)
    for _ in range(100):
        cache.changed(ROUTE.conversation)
        cache.changed(ConversationId("another"))
    await asyncio.sleep(0.1)
    assert cache.known(ID) is ROUTE
    assert store.loads == 2
    store.down = True
    cache.changed(ROUTE.conversation)
    await asyncio.sleep(0.1)
    assert cache.known(ID) is ROUTE
    await cache.close()


async def test_a_route_whose_record_did_not_change_is_as_good_as_read_again() -> None:
    store = Store(replace(ROUTE, version=7))
    cache = store.cache(ttl=5.0)
    await cache.resolve(ID)
    for _ in range(3):
        store.now += 4.5
        cache.confirm(ROUTE.conversation, 7)
    assert cache.known(ID) == ROUTE
    assert store.loads == 1
    store.now += 4.5
    for version in (8, 0):
        cache.confirm(ROUTE.conversation, version)
    cache.confirm(ConversationId("another"), 7)
    store.now += 1
    assert cache.known(ID) is None
    await cache.resolve(ID)
    assert store.loads == 2
    cache.invalidate(ID)
    cache.confirm(ROUTE.conversation, 7)
    assert cache.known(ID) is None


async def test_bad_news_are_not_confirmed() -> None:
    store = Store(Unavailable("asleep"))
    cache = store.cache()
    await cache.resolve(ID)
    cache.confirm(ROUTE.conversation, 0)
    store.now += 2
    await cache.resolve(ID)
    assert store.loads == 2
