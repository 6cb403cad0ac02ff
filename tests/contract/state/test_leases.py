"""The fenced lease: one holder, a fence that only grows, nothing asked for is lost."""

import anyio
import anyio.lowlevel
import pytest

from orchestrator.domain.conversation import REQUESTED, Conversation, Desired, Phase, advance
from orchestrator.domain.errors import LeaseLost, PreconditionFailed, StoreUnavailable
from orchestrator.domain.ids import ConversationId, TenantId, new_uuid
from orchestrator.state.base import Lease, Store

from .conftest import MOMENT, House, a_conversation, until

pytestmark = pytest.mark.anyio
LONG = 60_000


async def claimed(store: Store, owner: str = "one", lease_ms: int = LONG) -> tuple[Lease, Conversation]:
    [one] = await store.conversations.claim_due(owner, lease_ms=lease_ms, limit=10)
    return one


async def until_claimed(store: Store, owner: str) -> tuple[Lease, Conversation]:
    found = await until(lambda: store.conversations.claim_due(owner, lease_ms=LONG, limit=10))
    return found[0]


async def test_a_fresh_conversation_is_due_at_once_and_claimed_once(store: Store) -> None:
    conversation = await store.conversations.create(a_conversation())
    assert await store.conversations.next_due_ms() == 0
    lease, record = await claimed(store)
    assert (lease.tenant, lease.conversation, lease.owner) == (conversation.tenant, conversation.id, "one")
    assert lease.fence == record.fence == 1
    assert record.version == conversation.version
    assert await store.conversations.claim_due("two", lease_ms=LONG, limit=10) == []
    assert await store.conversations.claim(conversation.tenant, conversation.id, "two", lease_ms=LONG) is None


async def test_two_replicas_race_for_a_claim_and_exactly_one_wins(house: House) -> None:
    conversation = await house.store.conversations.create(a_conversation())
    fence = 0
    for _ in range(200):
        won: list[Lease] = []

        async def try_to_claim(store: Store, owner: str, won: list[Lease] = won) -> None:
            got = await store.conversations.claim(conversation.tenant, conversation.id, owner, lease_ms=LONG)
            if got is not None:
                won.append(got[0])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(try_to_claim, house.store, "one")
            tasks.start_soon(try_to_claim, house.other, "two")
        [lease] = won
        assert lease.fence == fence + 1
        fence = lease.fence
        await house.store.conversations.settle(lease, due_in_ms=None)


async def test_two_replicas_share_what_is_due_without_overlap(house: House) -> None:
    made = {(await house.store.conversations.create(a_conversation())).id for _ in range(40)}
    got: list[ConversationId] = []

    async def take(store: Store, owner: str) -> None:
        with anyio.fail_after(10):
            while len(got) < len(made):
                got.extend(
                    lease.conversation
                    for lease, _ in await store.conversations.claim_due(owner, lease_ms=LONG, limit=3)
                )
                await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take, house.store, "one")
        tasks.start_soon(take, house.other, "two")
    assert sorted(got) == sorted(made)


async def test_work_that_comes_while_replicas_look_for_work_is_found_soon(house: House) -> None:
    tenant = TenantId(new_uuid())
    made: set[ConversationId] = set()
    got: set[ConversationId] = set()
    everything_made = False

    async def create(store: Store) -> None:
        for _ in range(100):
            made.add((await store.conversations.create(a_conversation(tenant))).id)

    async def work(store: Store, owner: str) -> None:
        while not everything_made or got != made:
            for lease, _ in await store.conversations.claim_due(owner, lease_ms=LONG, limit=5):
                await store.conversations.settle(lease, due_in_ms=None)
                got.add(lease.conversation)
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as workers:
            workers.start_soon(work, house.store, "one")
            workers.start_soon(work, house.other, "two")
            async with anyio.create_task_group() as creators:
                creators.start_soon(create, house.store)
                creators.start_soon(create, house.other)
            everything_made = True


async def test_a_claim_takes_no_more_than_its_limit_and_leaves_the_rest_due(store: Store) -> None:
    tenant = TenantId(new_uuid())
    for _ in range(5):
        await store.conversations.create(a_conversation(tenant))
    first = await store.conversations.claim_due("one", lease_ms=LONG, limit=3)
    assert len(first) == 3
    assert await store.conversations.next_due_ms() == 0
    second = await store.conversations.claim_due("one", lease_ms=LONG, limit=3)
    assert len({lease.conversation for lease, _ in [*first, *second]}) == 5


async def test_a_tenant_with_much_to_do_does_not_keep_the_others_waiting(store: Store) -> None:
    giant = TenantId(new_uuid())
    for _ in range(30):
        await store.conversations.create(a_conversation(giant))
    small = await store.conversations.create(a_conversation())
    rounds = 0
    with anyio.fail_after(30):
        while small.id not in {
            lease.conversation for lease, _ in await store.conversations.claim_due("one", lease_ms=LONG, limit=10)
        }:
            rounds += 1
            await anyio.lowlevel.checkpoint()
    assert rounds <= 3


async def test_an_expired_lease_is_taken_over_and_its_late_holder_is_refused(house: House) -> None:
    await house.store.conversations.create(a_conversation())
    late, record = await claimed(house.store, lease_ms=20)
    lease, seen = await until_claimed(house.other, "two")
    assert lease.fence == late.fence + 1
    changed = advance(record, Phase.PROVISIONING, why=REQUESTED, now=MOMENT)
    with pytest.raises(LeaseLost):
        await house.store.conversations.save(late, changed, expected_version=record.version)
    assert await house.store.conversations.renew([late], lease_ms=LONG) == [False]
    with pytest.raises(LeaseLost):
        await house.store.conversations.remove(late)
    await house.store.conversations.settle(late, due_in_ms=0)  # fine, and without effect
    assert await house.store.conversations.claim_due("one", lease_ms=LONG, limit=1) == []
    stored = await house.other.conversations.save(
        lease, advance(seen, Phase.PROVISIONING, why=REQUESTED, now=MOMENT), expected_version=seen.version
    )
    assert stored.phase is Phase.PROVISIONING
    assert stored.fence == lease.fence


async def test_a_renewed_lease_is_not_taken_over(house: House) -> None:
    conversation = await house.store.conversations.create(a_conversation())
    lease, _ = await claimed(house.store, lease_ms=100)
    assert await house.store.conversations.renew([lease], lease_ms=LONG) == [True]
    due = await house.other.conversations.next_due_ms()
    assert due is not None
    marker = await house.store.conversations.create(a_conversation())
    # Once a lease of 100 ms that began later is over, the first one's original time is over as well.
    short, _ = await claimed(house.store, lease_ms=100)
    assert short.conversation == marker.id
    taken, _ = await until_claimed(house.other, "two")
    assert taken.conversation == marker.id
    assert await house.other.conversations.claim(conversation.tenant, conversation.id, "two", lease_ms=LONG) is None


async def test_leases_are_renewed_together_and_each_is_answered_for_itself(house: House) -> None:
    made = [await house.store.conversations.create(a_conversation()) for _ in range(3)]
    leases = []
    for one in made:
        taken = await house.store.conversations.claim(one.tenant, one.id, "one", lease_ms=LONG)
        assert taken is not None
        leases.append(taken[0])
    await house.store.conversations.settle(leases[1], due_in_ms=None)
    assert await house.store.conversations.renew(leases, lease_ms=LONG) == [True, False, True]
    assert await house.store.conversations.renew([], lease_ms=LONG) == []
    if house.raw is None:
        return
    # What is wrong with one tenant's index costs nobody else a lease; alone it is a refusal like any other.
    await house.raw.set(f"t:{{{made[2].tenant}}}:due", "broken")
    assert await house.store.conversations.renew(leases, lease_ms=LONG) == [True, False, None]
    with pytest.raises(StoreUnavailable):
        await house.store.conversations.renew(leases[2:], lease_ms=LONG)


async def test_a_lease_that_was_given_back_writes_no_more(store: Store) -> None:
    await store.conversations.create(a_conversation())
    lease, record = await claimed(store)
    await store.conversations.settle(lease, due_in_ms=LONG)
    with pytest.raises(LeaseLost):
        await store.conversations.save(lease, record, expected_version=record.version)
    assert await store.conversations.renew([lease], lease_ms=LONG) == [False]
    with pytest.raises(LeaseLost):
        await store.saga.started(lease, "create")


async def test_settle_says_when_it_is_due_next(store: Store) -> None:
    conversation = await store.conversations.create(a_conversation())
    lease, _ = await claimed(store)
    await store.conversations.settle(lease, due_in_ms=30)
    again, _ = await until_claimed(store, "one")
    assert again.fence == lease.fence + 1
    await store.conversations.settle(again, due_in_ms=None)
    assert await store.conversations.claim_due("one", lease_ms=LONG, limit=1) == []
    got = await store.conversations.claim(conversation.tenant, conversation.id, "one", lease_ms=LONG)
    assert got is not None
    assert got[0].fence == again.fence + 1


async def test_a_long_wait_is_reported_as_such(store: Store) -> None:
    await store.conversations.create(a_conversation())
    lease, _ = await claimed(store)
    await store.conversations.settle(lease, due_in_ms=LONG)
    assert await store.conversations.claim_due("one", lease_ms=LONG, limit=1) == []
    due = await store.conversations.next_due_ms()
    assert due is not None
    assert LONG - 10_000 < due <= LONG


async def test_nothing_due_is_reported_as_none(store: Store) -> None:
    assert await store.conversations.next_due_ms() is None
    await store.conversations.create(a_conversation())
    lease, _ = await claimed(store, lease_ms=50)
    await store.conversations.settle(lease, due_in_ms=None)

    async def nothing_due() -> bool:
        assert await store.conversations.claim_due("one", lease_ms=LONG, limit=1) == []
        return await store.conversations.next_due_ms() is None

    await until(nothing_due)


async def test_a_request_while_leased_is_due_as_soon_as_the_lease_is_given_back(house: House) -> None:
    await house.store.conversations.create(a_conversation())
    lease, record = await claimed(house.store)
    wished = Conversation(**{**vars(record), "desired": Desired.PAUSED})
    assert await house.other.conversations.request(wished, expected_version=record.version)
    assert await house.other.conversations.claim_due("two", lease_ms=LONG, limit=1) == []
    await house.store.conversations.settle(lease, due_in_ms=None)
    assert await house.store.conversations.next_due_ms() == 0
    _, seen = await claimed(house.other, "two")
    assert seen.desired is Desired.PAUSED


async def test_a_request_after_the_lease_ended_survives_a_late_settle(house: House) -> None:
    conversation = await house.store.conversations.create(a_conversation())
    lease, record = await claimed(house.store, lease_ms=1)

    async def over() -> bool:
        return await house.store.conversations.next_due_ms() == 0

    await until(over)
    assert await house.store.conversations.request(record, expected_version=record.version)
    await house.store.conversations.settle(lease, due_in_ms=None)
    again, _ = await until_claimed(house.other, "two")
    assert again.conversation == conversation.id


async def test_a_message_while_leased_is_not_lost_either(store: Store) -> None:
    conversation = await store.conversations.create(a_conversation())
    lease, _ = await claimed(store)
    await store.inbox.put(conversation.tenant, conversation.id, client_id="a", content="x", limit=10)
    await store.conversations.settle(lease, due_in_ms=None)
    again, _ = await claimed(store)
    assert again.conversation == conversation.id


async def test_a_request_wakes_a_conversation_that_was_not_due(store: Store) -> None:
    conversation = await store.conversations.create(a_conversation())
    lease, record = await claimed(store)
    await store.conversations.settle(lease, due_in_ms=None)
    assert await store.conversations.claim_due("one", lease_ms=LONG, limit=1) == []
    assert await store.conversations.request(record, expected_version=record.version)
    again, _ = await claimed(store)
    assert again.conversation == conversation.id


async def test_a_save_keeps_what_callers_wished_meanwhile(house: House) -> None:
    await house.store.conversations.create(a_conversation())
    lease, record = await claimed(house.store)
    wished = Conversation(**{**vars(record), "desired": Desired.STOPPED, "labels": {"a": "b"}, "title": "T"})
    assert await house.other.conversations.request(wished, expected_version=record.version)
    changed = advance(record, Phase.PROVISIONING, why=REQUESTED, now=MOMENT)
    with pytest.raises(PreconditionFailed):
        await house.store.conversations.save(lease, changed, expected_version=record.version)
    fresh = await house.store.conversations.get(record.tenant, record.id)
    assert fresh is not None
    assert fresh.version == record.version + 1
    stale_wish = Conversation(**{**vars(fresh), "desired": Desired.RUNNING, "labels": {}, "title": None})
    changed = advance(stale_wish, Phase.PROVISIONING, why=REQUESTED, now=MOMENT)
    stored = await house.store.conversations.save(lease, changed, expected_version=fresh.version)
    assert (stored.phase, stored.desired, stored.title) == (Phase.PROVISIONING, Desired.STOPPED, "T")
    assert dict(stored.labels) == {"a": "b"}
    assert stored.version == fresh.version + 1
    assert await house.other.conversations.get(record.tenant, record.id) == stored


async def test_a_request_never_changes_phase_runtime_or_fence(store: Store) -> None:
    await store.conversations.create(a_conversation())
    _, record = await claimed(store)
    wished = Conversation(**{**vars(record), "phase": Phase.READY, "fence": 99, "title": "new"})
    assert await store.conversations.request(wished, expected_version=record.version)
    stored = await store.conversations.get(record.tenant, record.id)
    assert stored is not None
    assert (stored.phase, stored.fence, stored.title) == (Phase.PENDING, record.fence, "new")


async def test_a_request_on_an_old_version_is_refused(store: Store) -> None:
    conversation = await store.conversations.create(a_conversation())
    assert await store.conversations.request(conversation, expected_version=1)
    assert not await store.conversations.request(conversation, expected_version=1)
    assert not await store.conversations.request(a_conversation(), expected_version=1)
