"""Records, limits, lists, routes and removal."""

from datetime import timedelta

import anyio
import pytest

from orchestrator.domain.conversation import (
    Conversation,
    Desired,
    Phase,
    Reason,
    RuntimeRecord,
    StartRequest,
    Why,
)
from orchestrator.domain.errors import InvalidRequest, NotFound
from orchestrator.domain.ids import ConversationId, OperationId, RuntimeId, TenantId, UserId, new_uuid
from orchestrator.domain.operation import Operation, OperationState, Stage
from orchestrator.state.base import Store, StoredEvent

from .conftest import MOMENT, House, a_conversation, until

pytestmark = pytest.mark.anyio
LONG = 60_000


async def in_phase(store: Store, conversation: Conversation, phase: Phase) -> None:
    got = await store.conversations.claim(conversation.tenant, conversation.id, "one", lease_ms=LONG)
    assert got is not None
    lease, record = got
    await store.conversations.save(
        lease, Conversation(**{**vars(record), "phase": phase}), expected_version=record.version
    )
    await store.conversations.settle(lease, due_in_ms=None)


async def test_a_record_comes_back_as_it_was_written(store: Store) -> None:
    full = Conversation(
        id=ConversationId(new_uuid()),
        tenant=TenantId(new_uuid()),
        user=UserId(new_uuid()),
        request=StartRequest("o/n", "main", "github", 'say "hi"\n\x00', "image:1"),
        created_at=MOMENT,
        updated_at=MOMENT + timedelta(microseconds=1),
        phase_since=MOMENT,
        phase=Phase.FAILED,
        desired=Desired.STOPPED,
        why=Why(Reason.OOM, "m", "h", True, "create", ("a", "b")),
        title="ünïcode \U0001f600",
        labels={"k": "v"},
        runtime=RuntimeRecord(RuntimeId(new_uuid()), 7, "handle", "127.0.0.1:1", "hash", "s1.1.x", "s1.1.y"),
        operation=OperationId(new_uuid()),
        attempt=3,
        version=5,
        fence=7,
    )
    assert await store.conversations.create(full) == full
    assert await store.conversations.get(full.tenant, full.id) == full
    bare = a_conversation(full.tenant)
    await store.conversations.create(bare)
    assert await store.conversations.get(bare.tenant, bare.id) == bare


async def test_an_id_that_exists_answers_the_stored_record(store: Store) -> None:
    first = await store.conversations.create(a_conversation())
    again = Conversation(**{**vars(first), "title": "another"})
    assert await store.conversations.create(again) == first


async def test_another_tenants_id_is_unknown(store: Store) -> None:
    conversation = await store.conversations.create(a_conversation())
    stranger = TenantId(new_uuid())
    assert await store.conversations.get(stranger, conversation.id) is None
    assert await store.conversations.claim(stranger, conversation.id, "one", lease_ms=LONG) is None
    with pytest.raises(NotFound):
        await store.inbox.put(stranger, conversation.id, client_id="a", content="x", limit=1)


async def test_a_list_is_newest_first_and_its_pages_hold_still(store: Store) -> None:
    tenant = TenantId(new_uuid())
    made = []
    for number in range(10):
        # Pairs with the same moment: the id decides, and no page may repeat or skip one.
        at = MOMENT + timedelta(seconds=number // 2)
        made.append(Conversation(**{**vars(a_conversation(tenant)), "created_at": at}))
        await store.conversations.create(made[-1])
    expected = [c.id for c in sorted(made, key=lambda c: (c.created_at, c.id), reverse=True)]
    first = await store.conversations.list(tenant, user=None, cursor=None, limit=3)
    assert [c.id for c in first.items] == expected[:3]
    # Newer ones come and the last of the page goes: the next page begins where the first ended.
    newer = Conversation(**{**vars(a_conversation(tenant)), "created_at": MOMENT + timedelta(days=1)})
    await store.conversations.create(newer)
    got = await store.conversations.claim(tenant, first.items[-1].id, "one", lease_ms=LONG)
    assert got is not None
    await store.conversations.remove(got[0])
    seen, cursor = [c.id for c in first.items], first.next_cursor
    while cursor is not None:
        page = await store.conversations.list(tenant, user=None, cursor=cursor, limit=3)
        seen += [c.id for c in page.items]
        cursor = page.next_cursor
    assert seen == expected


async def test_a_list_of_a_user_has_only_that_users(store: Store) -> None:
    tenant, user = TenantId(new_uuid()), UserId(new_uuid())
    own = await store.conversations.create(a_conversation(tenant, user))
    await store.conversations.create(a_conversation(tenant, UserId(new_uuid())))
    await store.conversations.create(a_conversation(tenant))
    page = await store.conversations.list(tenant, user=user, cursor=None, limit=10)
    assert [c.id for c in page.items] == [own.id]
    assert page.next_cursor is None
    assert len((await store.conversations.list(tenant, user=None, cursor=None, limit=10)).items) == 3


async def test_a_full_last_page_has_no_cursor(store: Store) -> None:
    tenant = TenantId(new_uuid())
    for _ in range(2):
        await store.conversations.create(a_conversation(tenant))
    assert (await store.conversations.list(tenant, user=None, cursor=None, limit=2)).next_cursor is None


@pytest.mark.parametrize("cursor", ["!", "", "AAAA", "MTIz", "é"])
async def test_a_made_up_cursor_is_refused_by_name(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await store.conversations.list(TenantId(new_uuid()), user=None, cursor=cursor, limit=2)
    assert caught.value.field == "page_id"


async def test_routes_are_found_until_they_are_dropped(house: House) -> None:
    runtime, tenant, conversation = RuntimeId(new_uuid()), TenantId(new_uuid()), ConversationId(new_uuid())
    assert await house.store.conversations.route(runtime) is None
    await house.store.conversations.put_route(runtime, tenant, conversation)
    assert await house.other.conversations.route(runtime) == (tenant, conversation)
    await house.store.conversations.drop_route(runtime)
    await house.store.conversations.drop_route(runtime)
    assert await house.other.conversations.route(runtime) is None


async def test_a_route_whose_record_never_came_goes_and_one_that_is_kept_stays(store: Store) -> None:
    tenant, conversation = TenantId(new_uuid()), ConversationId(new_uuid())
    lost, kept = RuntimeId(new_uuid()), RuntimeId(new_uuid())
    await store.conversations.put_route(lost, tenant, conversation, ttl_ms=20)
    await store.conversations.put_route(kept, tenant, conversation, ttl_ms=200)
    await store.conversations.put_route(kept, tenant, conversation)
    await anyio.sleep(0.25)
    assert await store.conversations.route(lost) is None
    assert await store.conversations.route(kept) == (tenant, conversation)


async def test_a_removed_conversation_leaves_nothing_behind(house: House) -> None:
    store = house.store
    before = await house.size()
    conversation = await store.conversations.create(a_conversation(user=UserId(new_uuid())))
    tenant, id = conversation.tenant, conversation.id
    await store.inbox.put(tenant, id, client_id="a", content="x", limit=10)
    await store.inbox.put(tenant, id, client_id="b", content="y", limit=10)
    await store.events.append(tenant, id, [StoredEvent(1, "e1", "{}"), StoredEvent(2, "e2", "{}")])
    [(lease, _)] = await store.conversations.claim_due("one", lease_ms=50, limit=1)
    await store.saga.started(lease, "create", note="n")
    await store.saga.stuck(lease, "create", "m")
    await store.inbox.delivered(lease, 1)
    await store.conversations.remove(lease)
    assert await store.conversations.get(tenant, id) is None
    assert (await store.conversations.list(tenant, user=conversation.user, cursor=None, limit=10)).items == []
    # The name of the tenant in the due index goes with the next visit.

    async def nothing_due() -> bool:
        assert await store.conversations.claim_due("one", lease_ms=LONG, limit=1) == []
        return await store.conversations.next_due_ms() is None

    await until(nothing_due)
    assert await house.size() == before


async def test_what_comes_late_for_a_removed_conversation_is_refused_and_leaves_nothing(house: House) -> None:
    store = house.store
    conversation = await store.conversations.create(a_conversation())
    [(lease, record)] = await store.conversations.claim_due("one", lease_ms=LONG, limit=1)
    await store.conversations.remove(lease)
    kept = await house.size()
    with pytest.raises(NotFound):
        await store.events.append(conversation.tenant, conversation.id, [StoredEvent(1, "e", "{}")])
    with pytest.raises(NotFound):
        await store.inbox.put(conversation.tenant, conversation.id, client_id="a", content="x", limit=1)
    assert not await store.conversations.request(record, expected_version=record.version)
    assert await store.conversations.renew([lease], lease_ms=LONG) == [False]
    assert await house.size() == kept


async def test_operations_outlive_the_conversation_but_not_for_ever(house: House) -> None:
    store = house.store
    conversation = await store.conversations.create(a_conversation())
    operation = Operation(
        OperationId(new_uuid()),
        conversation.tenant,
        conversation.id,
        "delete",
        OperationState.RUNNING,
        (Stage("remove"),),
        MOMENT,
        MOMENT,
    )
    await store.operations.create(operation)
    [(lease, _)] = await store.conversations.claim_due("one", lease_ms=LONG, limit=1)
    await store.conversations.remove(lease)
    await store.operations.finish(conversation.tenant, operation.id, OperationState.SUCCEEDED)
    found = await store.operations.get(conversation.tenant, operation.id)
    assert found is not None
    assert found.state is OperationState.SUCCEEDED
    if house.raw is not None:
        everything = [key.decode() for key in await house.raw.keys("t:*") if not key.endswith(b":journal")]
        assert len(everything) == 1
        assert 0 < await house.raw.pttl(everything[0]) <= 24 * 3600 * 1000


async def test_a_use_is_noted_without_changing_the_record(house: House) -> None:
    stored = await house.store.conversations.create(a_conversation())
    assert await house.other.conversations.unused_ms(stored.tenant, stored.id) is None
    assert await house.store.conversations.touch(stored.tenant, stored.id) == stored.version
    first = await house.other.conversations.unused_ms(stored.tenant, stored.id)
    assert first is not None
    await anyio.sleep(0.02)
    later = await house.other.conversations.unused_ms(stored.tenant, stored.id)
    assert later is not None
    assert later > first >= 0
    assert await house.store.conversations.get(stored.tenant, stored.id) == stored


async def test_a_use_of_what_is_gone_leaves_nothing(house: House) -> None:
    before = await house.size()
    assert await house.store.conversations.touch(TenantId(new_uuid()), ConversationId(new_uuid())) == 0
    assert await house.size() == before
