"""Slots: how starts are counted, who waits, and when a slot comes back. The same for both stores."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
import pytest

from orchestrator.domain.admission import Ask, Rule, Scope, Verdict
from orchestrator.domain.conversation import Conversation, Desired, Phase, Reason, Why
from orchestrator.domain.errors import LeaseLost, LimitReached
from orchestrator.domain.ids import ConversationId, KeyId, OperationId, TenantId, UserId, new_uuid
from orchestrator.domain.operation import Operation, OperationState
from orchestrator.state.base import Lease, Store

from .conftest import MOMENT, House, a_conversation, until

pytestmark = pytest.mark.anyio
LONG = 60_000
MINUTE = 60_000


def at_most(number: int, scope: Scope = Scope.TENANT, **more: object) -> Ask:
    return replace(Ask(rules=(Rule(scope, number),)), **more)  # type: ignore[arg-type]  # fields of Ask by name


def waiting(number: int, **more: object) -> Ask:
    """An ask that takes a place in the queue."""
    return replace(at_most(number), **{"queue": 10, "wait_ms": LONG, **more})  # type: ignore[arg-type]  # as above


async def claimed(store: Store, conversation: Conversation) -> tuple[Lease, Conversation]:
    got = await store.conversations.claim(conversation.tenant, conversation.id, "one", lease_ms=LONG)
    assert got is not None
    return got


async def in_phase(store: Store, conversation: Conversation, phase: Phase) -> None:
    lease, record = await claimed(store, conversation)
    await store.conversations.save(lease, replace(record, phase=phase), expected_version=record.version)
    await store.conversations.settle(lease, due_in_ms=None)


async def taken_up(store: Store, conversation: Conversation) -> None:
    """A worker begins the start that was asked for."""
    lease, _ = await claimed(store, conversation)
    assert (await store.slots.take(lease, Ask())).verdict is Verdict.HELD
    await store.conversations.settle(lease, due_in_ms=None)


async def verdict(store: Store, conversation: Conversation) -> Verdict:
    return (await store.slots.standing(conversation.tenant, conversation.id)).verdict


async def burst(
    house: House, count: int, create: Callable[[Store, int], Awaitable[Conversation]]
) -> tuple[list[ConversationId], list[LimitReached]]:
    made: list[ConversationId] = []
    refused: list[LimitReached] = []

    async def one(store: Store, number: int) -> None:
        try:
            made.append((await create(store, number)).id)
        except LimitReached as exc:
            refused.append(exc)

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(one, house.store if number % 2 else house.other, number)
    return made, refused


@pytest.mark.parametrize("scope", list(Scope))
async def test_the_limit_holds_under_two_hundred_creates_at_once(house: House, scope: Scope) -> None:
    tenant, user, key = TenantId(new_uuid()), UserId(new_uuid()), KeyId(new_uuid())
    wanted, ask = replace(a_conversation(tenant, user), key=key), at_most(5, scope, user=user, key=key)
    made, refused = await burst(
        house,
        200,
        lambda store, _: store.conversations.create(replace(wanted, id=ConversationId(new_uuid())), ask=ask),
    )
    assert (len(made), len(refused)) == (5, 195)
    assert {(exc.details["limit"], exc.details["current"], exc.details["rule"]) for exc in refused} == {
        (5, 5, f"{scope}.runtimes")
    }
    stored = await house.store.conversations.list(tenant, user=None, cursor=None, limit=100)
    assert {conversation.id for conversation in stored.items} == set(made)
    assert set(await house.store.slots.oldest(tenant, limit=100)) == set(made)


async def test_the_limit_holds_for_starts_of_what_was_stopped(house: House) -> None:
    tenant = TenantId(new_uuid())
    rest = [await house.store.conversations.create(a_conversation(tenant)) for _ in range(40)]

    async def start(store: Store, number: int) -> Conversation:
        wanted = replace(rest[number], operation=OperationId(new_uuid()))
        assert await store.conversations.request(wanted, expected_version=1, ask=at_most(5))
        return wanted

    made, refused = await burst(house, 40, start)
    assert (len(made), len(refused)) == (5, 35)
    stale = replace(rest[0], title="t")
    assert not await house.store.conversations.request(stale, expected_version=99, ask=at_most(1000))
    unchanged = [await house.store.conversations.get(tenant, one.id) for one in rest if one.id not in made]
    assert {one.version for one in unchanged if one is not None} == {1}, "what was refused changed nothing"


async def test_nobody_is_counted_twice(store: Store) -> None:
    first = await store.conversations.create(a_conversation(), ask=at_most(1))
    assert (await store.conversations.create(first, ask=at_most(1))) == first, "a retry joins"
    again = replace(first, operation=OperationId(new_uuid()))
    assert await store.conversations.request(again, expected_version=1, ask=at_most(1)), "it has its slot"
    lease, _ = await claimed(store, first)
    assert (await store.slots.take(lease, at_most(1))).verdict is Verdict.HELD
    meters, _ = await store.slots.meters(first.tenant, at_most(1))
    assert [meter.current for meter in meters] == [1]


@pytest.mark.parametrize("scope", [Scope.USER, Scope.KEY])
async def test_users_and_keys_are_counted_apart(store: Store, scope: Scope) -> None:
    tenant = TenantId(new_uuid())
    one, other = new_uuid(), new_uuid()

    async def create(who: str) -> Conversation:
        user, key = (UserId(who), None) if scope is Scope.USER else (None, KeyId(who))
        conversation = replace(a_conversation(tenant, user), key=key)
        return await store.conversations.create(conversation, ask=at_most(1, scope, user=user, key=key))

    first = await create(one)
    await create(other)
    with pytest.raises(LimitReached) as refusal:
        await create(one)
    assert refusal.value.details["rule"] == f"{scope}.runtimes"
    await taken_up(store, first)
    await in_phase(store, first, Phase.STOPPED)
    await create(one)


async def test_starts_are_counted_in_a_window(store: Store) -> None:
    tenant, rule = TenantId(new_uuid()), Rule(Scope.TENANT, 2, window_ms=MINUTE)
    for _ in range(2):
        made = await store.conversations.create(a_conversation(tenant), ask=Ask(rules=(rule,)))
        await taken_up(store, made)
        await in_phase(store, made, Phase.STOPPED)
    with pytest.raises(LimitReached) as refusal:
        await store.conversations.create(a_conversation(tenant), ask=Ask(rules=(rule,)))
    assert refusal.value.details["rule"] == "tenant.starts"
    assert 0 < refusal.value.retry_after <= 60
    short = Rule(Scope.TENANT, 2, window_ms=300)
    await until(lambda: _room(store, tenant, short))
    await store.conversations.create(a_conversation(tenant), ask=Ask(rules=(short,)))


async def _room(store: Store, tenant: TenantId, rule: Rule) -> bool:
    meters, _ = await store.slots.meters(tenant, Ask(rules=(rule,)))
    return not meters[0].full


@pytest.mark.parametrize("phase", [Phase.PAUSED, Phase.STOPPED])
async def test_what_rests_gives_its_slot_back(store: Store, phase: Phase) -> None:
    first = await store.conversations.create(a_conversation(), ask=at_most(1))
    await taken_up(store, first)
    await in_phase(store, first, Phase.READY)
    with pytest.raises(LimitReached):
        await store.conversations.create(a_conversation(first.tenant), ask=at_most(1))
    await in_phase(store, first, phase)
    second = await store.conversations.create(a_conversation(first.tenant), ask=at_most(1))
    lease, _ = await claimed(store, first)
    assert (await store.slots.take(lease, waiting(1))).verdict is Verdict.QUEUED, "waking counts again"
    assert await verdict(store, second) is Verdict.HELD


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.DELETING, Phase.STOPPING, Phase.PENDING])
async def test_what_may_still_run_keeps_its_slot_until_it_is_given_back(store: Store, phase: Phase) -> None:
    first = await store.conversations.create(a_conversation(), ask=at_most(1))
    await taken_up(store, first)
    await in_phase(store, first, phase)
    assert await verdict(store, first) is Verdict.HELD
    lease, _ = await claimed(store, first)
    assert await store.slots.release(lease)
    assert not await store.slots.release(lease)
    assert await verdict(store, first) is Verdict.NONE
    stranger = replace(lease, fence=lease.fence - 1)
    with pytest.raises(LeaseLost):
        await store.slots.release(stranger)
    with pytest.raises(LeaseLost):
        await store.slots.take(stranger, Ask())


async def test_a_start_that_was_asked_for_meanwhile_keeps_the_slot(store: Store) -> None:
    first = await store.conversations.create(a_conversation(), ask=at_most(1))
    await taken_up(store, first)
    await in_phase(store, first, Phase.FAILED)
    record = await store.conversations.get(first.tenant, first.id)
    assert record is not None
    assert await store.conversations.request(record, expected_version=record.version, ask=at_most(1))
    lease, record = await claimed(store, first)  # the worker that still cleans up after the failure
    assert not await store.slots.release(lease)
    assert await verdict(store, first) is Verdict.HELD
    stopped = replace(record, desired=Desired.STOPPED)
    assert await store.conversations.request(stopped, expected_version=record.version)
    assert await store.slots.release(lease), "a stop takes the wish back"


async def test_one_that_is_removed_gives_its_slot_back(store: Store) -> None:
    first = await store.conversations.create(a_conversation(), ask=at_most(1))
    lease, _ = await claimed(store, first)
    await store.conversations.remove(lease)
    second = await store.conversations.create(a_conversation(first.tenant), ask=at_most(1))
    queued = await store.conversations.create(a_conversation(first.tenant), ask=waiting(1))
    lease, _ = await claimed(store, queued)
    await store.conversations.remove(lease)
    assert await verdict(store, second) is Verdict.HELD
    assert (await store.slots.next_waiting(first.tenant, at_most(2))).waiting == 0


async def test_a_record_that_runs_already_is_counted_and_not_refused(store: Store) -> None:
    """As one that is rebuilt from what the engine runs."""
    running = replace(a_conversation(), phase=Phase.READY)
    await store.conversations.create(running)
    assert await verdict(store, running) is Verdict.HELD
    with pytest.raises(LimitReached):
        await store.conversations.create(a_conversation(running.tenant), ask=at_most(1))


async def test_the_queue_keeps_its_order_and_its_bound(store: Store) -> None:
    tenant = TenantId(new_uuid())
    first = await store.conversations.create(a_conversation(tenant), ask=waiting(1, queue=2))
    second, third = [
        await store.conversations.create(a_conversation(tenant), ask=waiting(1, queue=2)) for _ in range(2)
    ]
    with pytest.raises(LimitReached) as refusal:
        await store.conversations.create(a_conversation(tenant), ask=waiting(1, queue=2))
    assert refusal.value.details["rule"] == "tenant.queue"
    assert await verdict(store, first) is Verdict.HELD
    places = [(await store.slots.standing(tenant, one.id)).place for one in (second, third)]
    assert places == [1, 2]
    stands = await store.slots.standing(tenant, third.id)
    assert 0 < stands.left_ms <= LONG
    found = await store.slots.next_waiting(tenant, at_most(1))
    assert (found.first, found.standing.rule, found.waiting) == (second.id, "tenant.runtimes", 2)
    assert (await store.slots.admit(tenant, second.id, at_most(1))).verdict is Verdict.REFUSED
    await taken_up(store, first)
    await in_phase(store, first, Phase.STOPPED)
    await in_phase(store, second, Phase.PENDING)  # not due any more
    found = await store.slots.next_waiting(tenant, at_most(1))
    assert (found.first, found.standing.verdict) == (second.id, Verdict.NONE)
    assert (await store.slots.admit(tenant, second.id, at_most(1))).verdict is Verdict.ADMITTED
    assert (await store.slots.admit(tenant, second.id, at_most(1))).verdict is Verdict.NONE, "once"
    due = {conversation.id for _, conversation in await store.conversations.claim_due("two", lease_ms=LONG, limit=50)}
    assert second.id in due
    assert (await store.slots.standing(tenant, third.id)).place == 1


async def test_who_waits_comes_before_who_comes(store: Store) -> None:
    tenant = TenantId(new_uuid())
    await store.conversations.create(a_conversation(tenant), ask=waiting(2))
    second = await store.conversations.create(a_conversation(tenant), ask=waiting(2, behind=True))
    assert await verdict(store, second) is Verdict.QUEUED
    third = await store.conversations.create(a_conversation(tenant), ask=waiting(2))
    assert await verdict(store, third) is Verdict.QUEUED
    with pytest.raises(LimitReached) as refusal:  # one that does not wait takes no place of those who do
        await store.conversations.create(a_conversation(tenant), ask=at_most(2))
    assert refusal.value.details["current"] == 3


async def test_a_user_at_its_limit_does_not_keep_the_others_waiting(store: Store) -> None:
    tenant, one, other = TenantId(new_uuid()), UserId(new_uuid()), UserId(new_uuid())
    rules = (Rule(Scope.TENANT, 10), Rule(Scope.USER, 1))
    asks = [Ask(user=who, rules=rules, queue=10, wait_ms=LONG) for who in (one, one, other)]
    made = [
        await store.conversations.create(a_conversation(tenant, ask.user), ask=replace(ask, behind=place > 0))
        for place, ask in enumerate(asks)
    ]
    found = await store.slots.next_waiting(tenant, Ask(rules=rules))
    assert (found.first, found.waiting) == (made[2].id, 2)


async def test_tenants_take_turns(store: Store) -> None:
    tenants = [TenantId(new_uuid()) for _ in range(3)]
    for tenant in tenants:
        for _ in range(2):
            await store.conversations.create(a_conversation(tenant), ask=waiting(5, behind=True))
        await anyio.sleep(0.003)
    order = []
    for _ in range(6):
        tenant = (await store.slots.queues(limit=10))[0]
        found = await store.slots.next_waiting(tenant, at_most(5))
        assert found.first is not None
        await store.slots.admit(tenant, found.first, at_most(5))
        await store.slots.served(tenant)
        order.append(tenant)
        await anyio.sleep(0.003)
    assert order == tenants * 2
    for tenant in tenants:
        await store.slots.leave(tenant)
    assert list(await store.slots.queues(limit=10)) == []


async def test_a_tenant_that_still_waits_stays_in_line(store: Store) -> None:
    waiter = await store.conversations.create(a_conversation(), ask=waiting(5, behind=True))
    await store.slots.leave(waiter.tenant)
    assert list(await store.slots.queues(limit=10)) == [waiter.tenant]


async def test_the_least_used_is_asked_to_make_room_once(store: Store) -> None:
    tenant = TenantId(new_uuid())
    made = []
    for _ in range(3):
        made.append(await store.conversations.create(a_conversation(tenant), ask=at_most(3)))
        await anyio.sleep(0.003)
    await store.conversations.touch(tenant, made[0].id)
    assert list(await store.slots.oldest(tenant, limit=2)) == [made[1].id, made[2].id]
    assert not await store.slots.evict(tenant, made[1].id, hold_ms=LONG), "it is not ready"
    await in_phase(store, made[1], Phase.READY)
    await in_phase(store, made[2], Phase.READY)
    assert await store.slots.evict(tenant, made[1].id, hold_ms=LONG)
    assert not await store.slots.evict(tenant, made[1].id, hold_ms=LONG)
    assert list(await store.slots.evictions(tenant)) == [made[1].id]
    due = {conversation.id for _, conversation in await store.conversations.claim_due("two", lease_ms=LONG, limit=50)}
    assert made[1].id in due
    await store.slots.spare(tenant, made[1].id)
    assert list(await store.slots.evictions(tenant)) == []
    assert await store.slots.evict(tenant, made[2].id, hold_ms=30)
    await anyio.sleep(0.05)
    assert list(await store.slots.evictions(tenant)) == [], "a mark that nobody acts on ends"


async def test_places_on_the_host_are_held_confirmed_and_end(store: Store) -> None:
    places = [(TenantId(new_uuid()), ConversationId(new_uuid())) for _ in range(4)]

    async def hold(number: int, *, ms: int = LONG, rate: int = 0) -> str:
        stands = await store.slots.hold_host(places[number], limit=2, rate=rate, window_ms=MINUTE, hold_ms=ms)
        return stands.rule or str(stands.verdict)

    assert await hold(0) == "admitted"
    assert await hold(0) == "held"
    assert await hold(1, ms=30) == "admitted"
    assert await hold(2) == "host.runtimes"
    await anyio.sleep(0.05)
    assert await hold(2, ms=30) == "admitted", "what a crash left behind ended"
    await store.slots.confirm_host(places[2], ms=LONG)
    await anyio.sleep(0.05)
    assert await hold(3) == "host.runtimes"
    await store.slots.free_host(places[2])
    assert await hold(3, rate=1) == "admitted"
    await store.slots.free_host(places[3])
    assert await hold(1, rate=1) == "host.starts"
    await store.slots.free_host(places[3], uncount=True)
    assert await hold(1, rate=1) == "admitted"


async def test_the_host_limit_holds_in_a_burst(house: House) -> None:
    admitted = 0

    async def one(store: Store) -> None:
        nonlocal admitted
        place = (TenantId(new_uuid()), ConversationId(new_uuid()))
        stands = await store.slots.hold_host(place, limit=5, rate=0, window_ms=MINUTE, hold_ms=LONG)
        admitted += stands.verdict is Verdict.ADMITTED

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(one, house.store if number % 2 else house.other)
    assert admitted == 5


async def test_a_refused_operation_leaves_nothing(house: House) -> None:
    before = await house.size()
    operation = Operation(
        OperationId(new_uuid()),
        TenantId(new_uuid()),
        ConversationId(new_uuid()),
        "start",
        OperationState.RUNNING,
        (),
        MOMENT,
        MOMENT,
    )
    await house.store.operations.create(operation)
    await house.store.operations.forget(operation.tenant, operation.id)
    await house.store.operations.forget(operation.tenant, operation.id)
    assert await house.size() == before


async def test_a_failure_is_kept_with_its_operation(store: Store) -> None:
    conversation = await store.conversations.create(a_conversation())
    operation = Operation(
        OperationId(new_uuid()),
        conversation.tenant,
        conversation.id,
        "start",
        OperationState.RUNNING,
        (),
        MOMENT,
        MOMENT,
    )
    await store.operations.create(operation)
    why = Why(Reason.OOM, "m", "h", True, "alive", ("a", "b"))
    await store.operations.finish(conversation.tenant, operation.id, OperationState.FAILED, failure=why)
    await store.operations.finish(conversation.tenant, operation.id, OperationState.FAILED)
    found = await store.operations.get(conversation.tenant, operation.id)
    assert found is not None
    assert (found.state, found.failure) == (OperationState.FAILED, why), "the first end counts"


async def test_one_that_is_poked_is_due(store: Store) -> None:
    conversation = await store.conversations.create(a_conversation())
    await in_phase(store, conversation, Phase.READY)
    assert await store.conversations.claim_due("two", lease_ms=LONG, limit=50) == []
    await store.conversations.poke(conversation.tenant, ConversationId(new_uuid()))
    await store.conversations.poke(conversation.tenant, conversation.id)
    (taken,) = await store.conversations.claim_due("two", lease_ms=LONG, limit=50)
    assert taken[1].id == conversation.id
