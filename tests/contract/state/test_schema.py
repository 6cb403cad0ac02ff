"""Records of a newer version, and damaged ones: refused, named, untouched, and nobody else's trouble."""

import json

import pytest

from orchestrator.domain.errors import Unreadable
from orchestrator.domain.ids import TenantId, UserId, new_uuid
from orchestrator.domain.tenancy import Tenant, User
from orchestrator.state import records
from orchestrator.state.base import Store

from .conftest import MOMENT, House, a_conversation

pytestmark = pytest.mark.anyio
TENANT = TenantId(new_uuid())


@pytest.fixture
def url(server_url: str) -> str:
    """The store in memory keeps values, not texts."""
    return server_url


def newer(text: bytes) -> str:
    fields = json.loads(text)
    assert fields["schema"] <= records.SCHEMA
    return json.dumps({**fields, "schema": records.SCHEMA + 1, "what_matters_now": True})


async def dump(house: House, key: str) -> object:
    assert house.raw is not None
    return await house.raw.hgetall(key)


async def test_a_newer_conversation_is_refused_untouched_and_others_go_on(house: House) -> None:
    store, raw = house.store, house.raw
    assert raw is not None
    odd, plain = [await store.conversations.create(a_conversation(TENANT)) for _ in range(2)]
    key = f"t:{{{TENANT}}}:c:{odd.id}"
    await raw.hset(key, "record", newer(await raw.hget(key, "record")))
    before = await dump(house, key)
    with pytest.raises(Unreadable, match="newer version"):
        await store.conversations.get(TENANT, odd.id)
    page = await store.conversations.list(TENANT, user=None, cursor=None, limit=10)
    assert [item.id for item in page.items] == [plain.id]
    claimed = await store.conversations.claim_due("one", lease_ms=60_000, limit=10)
    assert [conversation.id for _, conversation in claimed] == [plain.id]
    assert await store.conversations.claim(TENANT, odd.id, "one", lease_ms=60_000) is None
    assert await dump(house, key) == before


async def test_flipped_bytes_of_one_record_are_nobody_else_s_trouble(house: House) -> None:
    store, raw = house.store, house.raw
    assert raw is not None
    odd, plain = [await store.conversations.create(a_conversation(TENANT)) for _ in range(2)]
    key = f"t:{{{TENANT}}}:c:{odd.id}"
    for field in ("record", "intent"):
        whole = await raw.hget(key, field)
        for place in range(0, len(whole), 7):
            await raw.hset(key, field, whole[:place] + bytes([whole[place] ^ 0x80]) + whole[place + 1 :])
            page = await store.conversations.list(TENANT, user=None, cursor=None, limit=10)
            assert plain.id in [item.id for item in page.items], place
        await raw.hset(key, field, whole[: len(whole) // 2])
        with pytest.raises(Unreadable, match="damaged"):
            await store.conversations.get(TENANT, odd.id)
        before = await dump(house, key)
        assert await store.conversations.claim(TENANT, odd.id, "one", lease_ms=60_000) is None
        assert await dump(house, key) == before
        await raw.hset(key, field, whole)
    assert (await store.conversations.get(TENANT, odd.id)) == odd


async def test_newer_tenants_users_and_keys_are_left_out_of_lists(house: House) -> None:
    store: Store = house.store
    raw = house.raw
    assert raw is not None
    await store.tenants.add_tenant(Tenant(TENANT, "acme", MOMENT))
    users = [User(UserId(new_uuid()), TENANT, name, None, MOMENT) for name in ("ann", "bob")]
    for user in users:
        await store.tenants.add_user(user)
    key = f"t:{{{TENANT}}}:users"
    changed = newer(await raw.hget(key, users[0].id))
    await raw.hset(key, users[0].id, changed)
    page = await store.tenants.list_users(TENANT, cursor=None, limit=10)
    assert list(page.items) == [users[1]]
    with pytest.raises(Unreadable):
        await store.tenants.user(TENANT, users[0].id)
    assert (await raw.hget(key, users[0].id)).decode() == changed
