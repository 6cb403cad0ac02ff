"""The index of tenants with something due: what happens between the steps of a visit, one interleaving at a time."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import anyio
import pytest

from orchestrator.domain.conversation import Conversation, StartRequest
from orchestrator.domain.ids import ConversationId, TenantId, new_uuid
from orchestrator.state import due
from orchestrator.state.funnel import Funnel
from orchestrator.state.redis_store import RedisStore

from .conftest import Run

pytestmark = pytest.mark.anyio
TENANT = TenantId(new_uuid())
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def store(run_server: Run) -> AsyncIterator[RedisStore]:
    made = RedisStore(run_server().url)
    yield made
    await made.close()


@pytest.fixture
def funnel(store: RedisStore) -> Funnel:
    return store._funnel


async def create(store: RedisStore) -> Conversation:
    conversation = Conversation(ConversationId(new_uuid()), TENANT, None, StartRequest(), NOW, NOW, NOW)
    return await store.conversations.create(conversation)


async def test_a_tenant_woken_during_a_visit_stays_due(store: RedisStore, funnel: Funnel) -> None:
    await due.wake(funnel, TENANT)
    mark, tenants = await due.visit(funnel, limit=5)
    assert tenants == [TENANT]
    conversation = await create(store)  # after the visitor looked, before it filed what it saw: nothing
    await funnel.one(due.refile(TENANT, mark=mark, next_due_ms=""))
    [(lease, _)] = await store.conversations.claim_due("one", lease_ms=60_000, limit=5)
    assert lease.conversation == conversation.id


async def test_a_later_time_seen_by_a_visit_does_not_put_off_what_came_during_it(
    store: RedisStore, funnel: Funnel
) -> None:
    await due.wake(funnel, TENANT)
    mark, _ = await due.visit(funnel, limit=5)
    await create(store)
    await funnel.one(due.refile(TENANT, mark=mark, next_due_ms=str(int(mark) + 60_000)))
    assert await store.conversations.next_due_ms() == 0
    assert len(await store.conversations.claim_due("one", lease_ms=60_000, limit=5)) == 1


async def test_a_visitor_that_dies_costs_a_moment_and_nothing_else(store: RedisStore, funnel: Funnel) -> None:
    await create(store)
    await due.visit(funnel, limit=5)
    assert await store.conversations.claim_due("one", lease_ms=60_000, limit=5) == []
    with anyio.fail_after(due.VISIT_MS / 1000 + 3):
        while True:
            if await store.conversations.claim_due("one", lease_ms=60_000, limit=5):
                break
            await anyio.sleep(0.02)


async def test_a_visit_that_finds_nothing_takes_the_tenant_out(store: RedisStore, funnel: Funnel) -> None:
    await due.wake(funnel, TENANT)
    assert await store.conversations.claim_due("one", lease_ms=60_000, limit=5) == []
    assert await store.conversations.next_due_ms() is None
