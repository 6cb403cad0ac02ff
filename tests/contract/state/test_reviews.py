"""Looking again at who rests: whose, in pages, and not past a request that came meanwhile."""

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.domain.conversation import REQUESTED, Phase, advance
from orchestrator.domain.ids import TenantId, UserId, new_uuid
from orchestrator.domain.tenancy import Tenant
from orchestrator.state import reviews
from orchestrator.state.base import Store

from .conftest import MOMENT, House, a_conversation

pytestmark = pytest.mark.anyio
TENANT, USER = TenantId(new_uuid()), UserId(new_uuid())
PAGE = 6
in_pages = pytest.mark.parametrize("url", ["redis"], indirect=True)  # the store in memory takes all in one step


async def at_rest(store: Store, number: int = 0, *, user: UserId | None = None, tenant: TenantId = TENANT) -> str:
    """One that is stopped, and not due."""
    made = replace(a_conversation(tenant, user), created_at=MOMENT + timedelta(seconds=number))
    await store.conversations.create(made)
    found = await store.conversations.claim(tenant, made.id, "w", lease_ms=10_000)
    assert found is not None
    lease, conversation = found
    for phase in (Phase.STOPPING, Phase.STOPPED):
        moved = advance(conversation, phase, why=REQUESTED, now=MOMENT)
        conversation = await store.conversations.save(lease, moved, expected_version=conversation.version)
    await store.conversations.settle(lease, due_in_ms=None)
    return str(made.id)


async def due(store: Store, limit: int = 1000) -> set[str]:
    """Who is due; not any more afterwards."""
    claimed = await store.conversations.claim_due("w", lease_ms=10_000, limit=limit)
    for lease, _ in claimed:
        await store.conversations.settle(lease, due_in_ms=None)
    return {str(conversation.id) for _, conversation in claimed}


async def test_whose_is_looked_at(store: Store) -> None:
    assert await store.reviews.step() is None
    users, tenants = await at_rest(store, user=USER), await at_rest(store)
    await at_rest(store, tenant=TenantId(new_uuid()))
    pending = a_conversation(TENANT)
    await store.conversations.create(pending)
    await due(store)
    await store.reviews.ask(TENANT, USER)
    assert await store.reviews.step() == 1
    assert await due(store) == {users}
    await store.reviews.ask(TENANT, None)
    assert await store.reviews.step() == 2
    assert await due(store) == {users, tenants}, "not the one that is no more at rest than it is due"
    assert await store.reviews.step() is None


async def test_settings_that_are_stored_ask_for_it(store: Store) -> None:
    id = await at_rest(store, user=USER)
    await store.configuration.put_settings(TENANT, USER, "one", expected_version=0)
    assert await store.reviews.step() is None
    await store.configuration.put_settings(TENANT, USER, "two", expected_version=1, review=True)
    assert await store.reviews.step() == 1
    assert await due(store) == {id}


async def test_a_reason_asks_for_all_once(store: Store) -> None:
    await store.tenants.add_tenant(Tenant(TENANT, "one", MOMENT))
    id = await at_rest(store)
    for reason, asked in (("a", True), ("a", False), ("b", True)):
        assert await store.reviews.ask_all(reason) is asked
        found = [made for _ in range(4) if (made := await store.reviews.step())]
        assert found == ([1] if asked else [])
        assert await due(store) == ({id} if asked else set())


@in_pages
async def test_a_long_list_goes_in_pages_that_wait_for_the_workers(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert house.raw is not None
    monkeypatch.setattr(reviews, "PAGE", PAGE)
    store = house.store
    ids = [await at_rest(store, number) for number in range(PAGE + 2)]
    await store.reviews.ask(TENANT, None)
    assert await store.reviews.step() == PAGE
    assert await store.reviews.step() == 0, "a page of it is due"
    assert await store.reviews.step() is None, "nor is it asked at once again"
    assert await due(store) == set(ids[2:]), "the newest first"
    await house.raw.zadd("x:{reviews}", {TENANT: 0})
    visits = await house.raw.zrange("x:{reviews}", 0, -1)
    assert visits == [TENANT.encode()]
    assert await house.other.reviews.step() == 2
    assert await due(store) == set(ids[:2])
    assert await store.reviews.step() is None


@in_pages
async def test_one_that_is_asked_for_anew_begins_anew(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    assert house.raw is not None
    monkeypatch.setattr(reviews, "PAGE", PAGE)
    store = house.store
    ids = [await at_rest(store, number) for number in range(PAGE + 2)]
    await store.reviews.ask(TENANT, None)
    assert await store.reviews.step() == PAGE
    await due(store)
    await store.reviews.ask(TENANT, None)
    assert await store.reviews.step() == PAGE
    assert await due(store) == set(ids[2:])
    assert await store.reviews.step() == 2
