"""Whoever listens hears which conversations changed, whatever replica changed them."""

from dataclasses import replace

import anyio
import pytest

from orchestrator.domain.ids import ConversationId
from orchestrator.state.base import Store, StoredEvent

from .conftest import House, a_conversation, until

pytestmark = pytest.mark.anyio
LONG = 60_000


async def test_every_kind_of_change_is_heard_by_the_other_replica(house: House) -> None:
    store, heard = house.store, list[ConversationId]()
    probe = await store.conversations.create(a_conversation())
    conversation = await store.conversations.create(a_conversation())
    place = conversation.tenant, conversation.id

    async def listen() -> None:
        async for id in house.other.changes.listen():
            if id == conversation.id or not heard:
                heard.append(id)

    async def hears(count: int) -> None:
        async def did() -> bool:
            return heard.count(conversation.id) >= count

        await until(did)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await until(lambda: poked(store, probe.tenant, probe.id, heard))
        await store.events.append(*place, [StoredEvent(1, "e-1", "{}")])
        await hears(1)
        stored = await store.conversations.get(*place)
        assert stored is not None
        await store.conversations.request(replace(stored, title="t"), expected_version=stored.version)
        await hears(2)
        claimed = await store.conversations.claim(*place, "o", lease_ms=LONG)
        assert claimed is not None
        lease, held = claimed
        await store.conversations.save(lease, held, expected_version=held.version)
        await hears(3)
        await store.conversations.remove(lease)
        await hears(4)
        tasks.cancel_scope.cancel()


async def poked(store: Store, tenant, id, heard) -> bool:
    """A listener begins a moment after it is asked to: something harmless, again and again, until it is heard."""
    stored = await store.conversations.get(tenant, id)
    assert stored is not None
    await store.conversations.request(stored, expected_version=stored.version)
    return bool(heard)
