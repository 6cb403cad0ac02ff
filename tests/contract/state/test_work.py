"""Saga log, operations, inbox, events and idempotency."""

import anyio
import pytest

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import LimitReached, NotFound
from orchestrator.domain.ids import ConversationId, OperationId, RuntimeId, TenantId, message_event_id, new_uuid
from orchestrator.domain.operation import Operation, OperationState, Stage, StageState
from orchestrator.state.base import Lease, Store, StoredEvent

from .conftest import MOMENT, House, a_conversation, until

pytestmark = pytest.mark.anyio
LONG = 60_000


async def leased(store: Store) -> tuple[Lease, Conversation]:
    conversation = await store.conversations.create(a_conversation())
    got = await store.conversations.claim(conversation.tenant, conversation.id, "one", lease_ms=LONG)
    assert got is not None
    return got


def events(*sequences: int) -> list[StoredEvent]:
    return [StoredEvent(n, f"id-{n}", f'{{"n":{n}}}') for n in sequences]


async def test_the_saga_log_tells_what_may_have_run_in_order(house: House) -> None:
    lease, record = await leased(house.store)
    for step in ("volume", "create", "start"):
        await house.store.saga.started(lease, step, note=f"note of {step}")
    await house.store.saga.undone(lease, "start")
    await house.store.saga.stuck(lease, "create", "the engine is away")
    await house.store.saga.stuck(lease, "never-began", "x")
    assert await house.other.saga.attempted(record.tenant, record.id) == [
        ("volume", "note of volume", None),
        ("create", "note of create", "the engine is away"),
    ]
    await house.store.saga.started(lease, "volume", note="again")
    await house.store.saga.started(lease, "create")
    assert await house.other.saga.attempted(record.tenant, record.id) == [
        ("volume", "again", None),
        ("create", "", None),
    ]
    await house.store.saga.undone(lease, "volume")
    await house.store.saga.undone(lease, "volume")
    await house.store.saga.clear(lease)
    assert await house.other.saga.attempted(record.tenant, record.id) == []


def an_operation(conversation: Conversation) -> Operation:
    stages = (Stage("create"), Stage("alive"))
    return Operation(
        OperationId(new_uuid()),
        conversation.tenant,
        conversation.id,
        "start",
        OperationState.RUNNING,
        stages,
        MOMENT,
        MOMENT,
    )


async def test_an_operation_tells_its_stages(house: House) -> None:
    _, record = await leased(house.store)
    operation = an_operation(record)
    await house.store.operations.create(operation)
    await house.store.operations.create(operation)
    stage = Stage("alive", StageState.SUCCEEDED, MOMENT, 1.25, "it answered")
    await house.store.operations.stage(record.tenant, operation.id, stage)
    found = await house.other.operations.get(record.tenant, operation.id)
    assert found is not None
    assert found.stages == (Stage("create"), stage)
    assert (found.state, found.kind, found.conversation, found.created_at) == (
        OperationState.RUNNING,
        "start",
        record.id,
        MOMENT,
    )
    assert found.updated_at > MOMENT


async def test_the_first_end_of_an_operation_counts(store: Store) -> None:
    _, record = await leased(store)
    operation = an_operation(record)
    await store.operations.create(operation)
    await store.operations.finish(record.tenant, operation.id, OperationState.FAILED)
    await store.operations.finish(record.tenant, operation.id, OperationState.SUCCEEDED)
    found = await store.operations.get(record.tenant, operation.id)
    assert found is not None
    assert found.state is OperationState.FAILED


async def test_a_request_ends_the_operation_that_it_replaces_in_the_same_step(house: House) -> None:
    _, record = await leased(house.store)
    running, ended = an_operation(record), an_operation(record)
    await house.store.operations.create(running)
    await house.store.operations.create(ended)
    await house.store.operations.finish(record.tenant, ended.id, OperationState.SUCCEEDED)
    request, version = house.store.conversations.request, record.version
    assert not await request(record, expected_version=version + 7, replaces=running.id)
    found = await house.other.operations.get(record.tenant, running.id)
    assert found is not None
    assert found.state is OperationState.RUNNING, "a stale request changes nothing"
    assert await request(record, expected_version=version, replaces=running.id)
    assert await request(record, expected_version=version + 1, replaces=ended.id)
    assert await request(record, expected_version=version + 2, replaces=OperationId(new_uuid()))
    states = [await house.other.operations.get(record.tenant, one.id) for one in (running, ended)]
    assert [found and found.state for found in states] == [OperationState.FAILED, OperationState.SUCCEEDED]


async def test_unknown_operations_and_stages_are_not_found(store: Store) -> None:
    _, record = await leased(store)
    operation = an_operation(record)
    await store.operations.create(operation)
    assert await store.operations.get(TenantId(new_uuid()), operation.id) is None
    with pytest.raises(NotFound):
        await store.operations.stage(record.tenant, operation.id, Stage("other"))
    with pytest.raises(NotFound):
        await store.operations.stage(record.tenant, OperationId(new_uuid()), Stage("create"))
    with pytest.raises(NotFound):
        await store.operations.finish(record.tenant, OperationId(new_uuid()), OperationState.FAILED)


async def test_messages_keep_their_order_and_come_once(house: House) -> None:
    lease, record = await leased(house.store)
    where = (record.tenant, record.id)
    first = await house.store.inbox.put(*where, client_id="a", content="one", limit=10)
    second = await house.other.inbox.put(*where, client_id="b", content="two \x00 ü", limit=10)
    assert (first.sequence, second.sequence) == (1, 2)
    assert await house.other.inbox.put(*where, client_id="a", content="changed", limit=10) == first
    assert list(await house.other.inbox.waiting(*where, limit=10)) == [first, second]
    assert list(await house.other.inbox.waiting(*where, limit=1)) == [first]
    await house.store.inbox.delivered(lease, 1)
    await house.store.inbox.delivered(lease, 1)
    assert list(await house.store.inbox.waiting(*where, limit=10)) == [second]
    again = await house.store.inbox.put(*where, client_id="a", content="one", limit=10)
    assert again.delivered
    assert again.sequence == 1
    third = await house.store.inbox.put(*where, client_id="c", content="three", limit=10)
    assert third.sequence == 3


async def test_a_message_says_what_became_of_it(house: House) -> None:
    lease, record = await leased(house.store)
    where = (record.tenant, record.id)
    for client in "abc":
        await house.store.inbox.put(*where, client_id=client, content=f"{client}!", limit=10)
    await house.store.inbox.delivered(lease, 1)
    await house.store.inbox.delivered(lease, 2)
    mine = [message_event_id(record.id, "a"), "of-the-agent"]
    events = [StoredEvent(n, id, "{}", is_message=n == 1) for n, id in enumerate(mine, 1)]
    await house.other.events.append(*where, events)
    found = await house.other.inbox.page(*where, after=0, limit=10)
    assert [(one.sequence, one.client_id, one.content) for one in found] == [
        (1, "a", "a!"),
        (2, "b", "b!"),
        (3, "c", "c!"),
    ]
    assert [(one.delivered, one.accepted) for one in found] == [(True, 1), (True, None), (False, None)]
    assert await house.store.inbox.find(*where, "b") == found[1]
    assert await house.store.inbox.find(*where, "d") is None
    assert [one.sequence for one in await house.store.inbox.page(*where, after=1, limit=1)] == [2]
    assert not await house.store.inbox.page(*where, after=3, limit=1)
    elsewhere = (TenantId(new_uuid()), record.id)
    assert not await house.store.inbox.page(*elsewhere, after=0, limit=10)


async def test_twenty_at_once_with_one_client_id_make_one_message(house: House) -> None:
    _, record = await leased(house.store)
    got: list[int] = []

    async def put(store: Store) -> None:
        message = await store.inbox.put(record.tenant, record.id, client_id="same", content="x", limit=10)
        got.append(message.sequence)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(put, house.store if number % 2 else house.other)
    assert got == [1] * 20
    assert len(await house.store.inbox.waiting(record.tenant, record.id, limit=10)) == 1


async def test_a_full_inbox_refuses_new_messages_but_knows_the_old(store: Store) -> None:
    lease, record = await leased(store)
    where = (record.tenant, record.id)
    for client in "ab":
        await store.inbox.put(*where, client_id=client, content="x", limit=2)
    with pytest.raises(LimitReached):
        await store.inbox.put(*where, client_id="c", content="x", limit=2)
    assert (await store.inbox.put(*where, client_id="a", content="x", limit=2)).sequence == 1
    await store.inbox.delivered(lease, 1)
    assert (await store.inbox.put(*where, client_id="c", content="x", limit=2)).sequence == 3


async def test_events_are_appended_in_order_without_gaps_or_duplicates(house: House) -> None:
    _, record = await leased(house.store)
    where = (record.tenant, record.id)
    assert await house.store.events.last(*where) is None
    assert await house.store.events.append(*where, []) == 0
    assert await house.store.events.append(*where, events(2)) == 0
    assert await house.store.events.append(*where, events(1, 2, 3)) == 3
    assert await house.other.events.append(*where, events(2, 3, 4)) == 4
    assert await house.other.events.append(*where, events(5, 7, 6)) == 5
    assert await house.store.events.read(*where, after=0, limit=100) == events(1, 2, 3, 4, 5)
    assert await house.store.events.read(*where, after=2, limit=2) == events(3, 4)
    assert await house.store.events.read(*where, after=5, limit=2) == []
    assert await house.store.events.last(*where) == events(5)[0]


async def test_an_event_already_there_is_not_replaced(store: Store) -> None:
    _, record = await leased(store)
    await store.events.append(record.tenant, record.id, events(1))
    assert await store.events.append(record.tenant, record.id, [StoredEvent(1, "other", "{}")]) == 1
    assert await store.events.read(record.tenant, record.id, after=0, limit=9) == events(1)


async def test_a_long_batch_of_events_is_kept_whole(store: Store) -> None:
    _, record = await leased(store)
    batch = events(*range(1, 1001))
    assert await store.events.append(record.tenant, record.id, batch) == 1000
    assert await store.events.read(record.tenant, record.id, after=990, limit=100) == batch[990:]


async def test_two_replicas_append_the_same_events_and_each_is_kept_once(house: House) -> None:
    _, record = await leased(house.store)

    async def append(store: Store) -> None:
        for start in range(1, 100, 5):
            await store.events.append(record.tenant, record.id, events(*range(start, start + 10)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(append, house.store)
        tasks.start_soon(append, house.other)
    kept = await house.store.events.read(record.tenant, record.id, after=0, limit=1000)
    assert [event.sequence for event in kept] == list(range(1, 106))


async def test_events_of_an_unknown_conversation_are_empty(store: Store) -> None:
    assert await store.events.read(TenantId(new_uuid()), ConversationId(new_uuid()), after=0, limit=9) == []


async def test_the_first_with_an_idempotency_key_serves_and_the_rest_learn_its_answer(house: House) -> None:
    begin, finish = house.store.idempotency.begin, house.store.idempotency.finish
    assert await begin("tenant|POST|/x", "k", "digest", holder="h", ttl_ms=LONG) is None
    running = await house.other.idempotency.begin("tenant|POST|/x", "k", "digest", holder="o", ttl_ms=LONG)
    assert running is not None
    assert (running.request_digest, running.body) == ("digest", "")
    await finish("tenant|POST|/x", "k", "digest", holder="h", status=201, body='{"id":1}', ttl_ms=LONG)
    done = await house.other.idempotency.begin("tenant|POST|/x", "k", "another digest", holder="o", ttl_ms=LONG)
    assert done is not None
    assert (done.request_digest, done.status, done.body) == ("digest", 201, '{"id":1}')
    assert await begin("other|POST|/x", "k", "digest", holder="h", ttl_ms=LONG) is None
    assert await begin("tenant|POST|/x", "k2", "digest", holder="h", ttl_ms=LONG) is None


async def test_fifty_at_once_with_one_idempotency_key_have_one_first(house: House) -> None:
    firsts: list[bool] = []

    async def begin(store: Store) -> None:
        firsts.append(await store.idempotency.begin("s", "k", "d", holder=new_uuid(), ttl_ms=LONG) is None)

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(begin, house.store if number % 2 else house.other)
    assert firsts.count(True) == 1


async def test_an_abandoned_idempotency_key_is_free_again(store: Store) -> None:
    answers = store.idempotency
    assert await answers.begin("s", "k", "d", holder="one", ttl_ms=LONG) is None
    await answers.abandon("s", "k", holder="another")
    assert await answers.begin("s", "k", "d", holder="two", ttl_ms=LONG) is not None
    await answers.abandon("s", "k", holder="one")
    assert await answers.begin("s", "k", "d", holder="two", ttl_ms=LONG) is None
    await answers.finish("s", "k", "d", holder="two", status=200, body="x", ttl_ms=LONG)
    await answers.abandon("s", "k", holder="two")
    assert await answers.begin("s", "k", "d", holder="three", ttl_ms=LONG) is not None


async def test_an_idempotency_key_is_free_when_its_holder_is_no_more(store: Store) -> None:
    answers = store.idempotency
    assert await answers.begin("s", "k", "d", holder="dead", ttl_ms=20) is None
    await until(lambda: _first(store, "d", "follower"))
    # The first was not dead, it slept: nothing of its follower's is changed.
    await answers.finish("s", "k", "d", holder="dead", status=200, body="late", ttl_ms=LONG)
    await answers.abandon("s", "k", holder="dead")
    await answers.renew("s", "k", holder="dead", ttl_ms=1)
    found = await answers.begin("s", "k", "d", holder="third", ttl_ms=LONG)
    assert found is not None
    assert found.body == ""
    await answers.finish("s", "k", "d", holder="follower", status=201, body="its own", ttl_ms=LONG)
    await answers.finish("s", "k", "d", holder="dead", status=200, body="late", ttl_ms=LONG)
    found = await answers.begin("s", "k", "d", holder="third", ttl_ms=LONG)
    assert found is not None
    assert (found.status, found.body) == (201, "its own")


async def test_an_idempotency_key_is_held_for_as_long_as_it_is_renewed(store: Store) -> None:
    answers = store.idempotency
    assert await answers.begin("s", "k", "d", holder="one", ttl_ms=1_000) is None
    await answers.renew("s", "k", holder="one", ttl_ms=LONG)
    await anyio.sleep(1.1)
    assert await answers.begin("s", "k", "d", holder="two", ttl_ms=LONG) is not None
    await answers.finish("s", "k", "d", holder="one", status=200, body="x", ttl_ms=30)
    await answers.renew("s", "k", holder="one", ttl_ms=LONG)  # it is answered: the answer's own time counts
    await until(lambda: _first(store, "e", "two"))


async def _first(store: Store, digest: str, holder: str) -> bool:
    return await store.idempotency.begin("s", "k", digest, holder=holder, ttl_ms=LONG) is None


async def test_a_replica_is_there_until_it_leaves_or_says_nothing_for_long(house: House) -> None:
    presence = house.store.presence
    assert list(await presence.renew("one", ttl_ms=LONG)) == ["one"]
    assert sorted(await presence.renew("two", ttl_ms=200)) == ["one", "two"]
    await until(lambda: _is_alone(house))
    assert sorted(await presence.renew("two", ttl_ms=LONG)) == ["one", "two"]
    await presence.leave("two")
    await presence.leave("nobody")
    assert list(await presence.renew("one", ttl_ms=LONG)) == ["one"]


async def test_what_one_has_taken_no_other_one_takes_for_a_while(house: House) -> None:
    presence = house.store.presence
    assert [await presence.take("remove:a", ttl_ms=LONG) for _ in range(2)] == [True, False]
    assert await presence.take("remove:b", ttl_ms=200)
    await until(lambda: presence.take("remove:b", ttl_ms=LONG))


async def _is_alone(house: House) -> bool:
    return list(await house.store.presence.renew("one", ttl_ms=LONG)) == ["one"]


async def test_runtimes_that_sleep_are_remembered_until_they_are_dropped(house: House) -> None:
    conversations, first, second = house.store.conversations, RuntimeId(new_uuid()), RuntimeId(new_uuid())
    for runtime in (first, second, first):
        await conversations.add_sleeper(runtime)
    assert set(await conversations.sleepers()) == {first, second}
    await conversations.drop_sleeper(first)
    await conversations.drop_route(second)
    assert await conversations.sleepers() == []
