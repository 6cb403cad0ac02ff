"""Spares of the warm pool: counted before they are made, claimed once, and never anybody else's after that."""

import uuid
from collections import Counter

import anyio
import pytest
from support.records import claimed

from orchestrator.domain.ids import ConversationId, TenantId, new_uuid
from orchestrator.state.base import Lease, Spares
from orchestrator.state.spares_base import Claimed, SpareState

from .conftest import House

pytestmark = pytest.mark.anyio
KIND = "one-kind"
LIMITS = {"minimum": 5, "maximum": 10, "at_once": 50, "hold_ms": 60_000, "pace_ms": 0}


def a_name() -> str:
    return f"nestor-spare-{uuid.uuid4()}"


def a_lease(fence: int = 1) -> Lease:
    return Lease(TenantId(new_uuid()), ConversationId(new_uuid()), "somebody", fence)


async def made(spares: Spares, *, kind: str = KIND) -> str:
    name = a_name()
    assert await spares.reserve(name, kind, **{**LIMITS, "minimum": 100, "maximum": 100})
    assert await spares.ready(name, kind, reference="ref", address="127.0.0.1:1", sealed="sealed")
    return name


async def test_replicas_that_fill_it_at_once_never_overfill_it(house: House) -> None:
    won: list[str] = []

    async def fill(spares: Spares) -> None:
        name = a_name()
        if await spares.reserve(name, KIND, **LIMITS):
            won.append(name)

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(fill, (house.store, house.other)[number % 2].spares)
    assert len(won) == 5
    assert (await house.store.spares.counts()).making == 5


async def test_the_maximum_of_a_kind_counts_those_of_it_that_leave_and_no_other_kind(house: House) -> None:
    spares = house.store.spares
    for kind in ("one", "one", "two", "two"):
        await made(spares, kind=kind)
    assert await spares.retire("one", keep=1) == 1
    assert not await spares.reserve(a_name(), "one", **{**LIMITS, "maximum": 2})
    (leaving,) = await spares.leaving()
    await spares.forget(leaving)
    assert await spares.reserve(a_name(), "one", **{**LIMITS, "maximum": 2})


async def test_a_refill_is_bounded_in_number_and_in_time(house: House) -> None:
    spares = house.store.spares
    assert await spares.reserve(a_name(), KIND, **{**LIMITS, "pace_ms": 60_000})
    assert not await spares.reserve(a_name(), KIND, **{**LIMITS, "pace_ms": 60_000})
    assert not await spares.reserve(a_name(), KIND, **{**LIMITS, "at_once": 1})
    assert await spares.reserve(a_name(), KIND, **LIMITS)


async def test_fifty_claims_for_five_spares_are_five_hits_and_forty_five_misses(house: House) -> None:
    names = {await made(house.store.spares) for _ in range(5)}
    answers: list[Claimed | str | None] = []

    async def claim(spares: Spares) -> None:
        answers.append(await spares.claim(a_lease(), KIND))

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(claim, (house.store, house.other)[number % 2].spares)
    hits = Counter(answer.name for answer in answers if isinstance(answer, Claimed))
    assert set(hits) == names
    assert set(hits.values()) == {1}
    assert answers.count(None) == 45
    counts = await house.store.spares.counts()
    assert (counts.ready, counts.bound, counts.hits, counts.misses) == (0, 5, 5, 45)


async def test_a_claim_names_its_conversation_and_the_key_is_kept_no_more(house: House) -> None:
    spares, lease = house.store.spares, await claimed(house.store)
    name = await made(spares)
    found = await spares.claim(lease, KIND)
    assert found == Claimed(name, "ref", "127.0.0.1:1", "sealed")
    stored = await spares.get(name)
    assert stored is not None
    assert (stored.state, stored.tenant, stored.conversation) == (SpareState.BOUND, lease.tenant, lease.conversation)
    assert stored.generation == lease.fence
    assert await spares.bound_to(lease.tenant, lease.conversation) == stored
    if house.raw is not None:
        assert b"sealed" not in (await house.raw.hgetall(f"x:{{spares}}:of:{name}")).values()


async def test_a_conversation_that_has_one_is_told_its_name_and_gets_no_second(house: House) -> None:
    spares, lease = house.store.spares, a_lease()
    await made(spares)
    await made(spares)
    first = await spares.claim(lease, KIND)
    assert isinstance(first, Claimed)
    assert await spares.claim(lease, KIND) == first.name
    await spares.forget(first.name)
    assert isinstance(await spares.claim(lease, KIND), Claimed)


async def test_one_that_leaves_cannot_be_claimed_and_one_that_is_bound_cannot_leave(house: House) -> None:
    spares = house.store.spares
    first, second = await made(spares), await made(spares)
    assert await spares.retire(KIND, keep=1) == 1
    found = await spares.claim(a_lease(), KIND)
    assert isinstance(found, Claimed)
    assert {*await spares.leaving(), found.name} == {first, second}
    assert not await spares.drop(found.name, KIND)
    assert await spares.retire(KIND, keep=0, made_too=True) == 0
    assert await spares.claim(a_lease(), KIND) is None


async def test_one_that_was_not_ready_in_time_leaves_and_its_maker_is_told(house: House) -> None:
    spares, name = house.store.spares, a_name()
    assert await spares.reserve(name, KIND, **{**LIMITS, "hold_ms": 0})
    await anyio.sleep(0.005)
    assert await spares.retire(KIND, keep=5) == 1
    assert not await spares.ready(name, KIND, reference="", address="127.0.0.1:1", sealed="sealed")
    assert await spares.claim(a_lease(), KIND) is None


async def test_what_is_forgotten_or_set_aside_leaves_nothing_that_could_be_claimed(house: House) -> None:
    spares, lease = house.store.spares, a_lease()
    name = await made(spares)
    await spares.claim(lease, KIND)
    await spares.set_aside(name)
    assert await spares.bound_to(lease.tenant, lease.conversation) is None
    stored = await spares.get(name)
    assert stored is not None
    assert stored.state is SpareState.STRANGE
    await spares.forget(name)
    await spares.forget(name)
    assert await spares.get(name) is None
    assert await spares.kinds() == []


async def test_a_binding_that_was_lost_is_noted_again_from_the_record(house: House) -> None:
    """As after a loss of the last second: the spare is ready again in what was kept, and is not."""
    if house.raw is None:
        return
    from orchestrator.state.redis_store import RedisStore
    from orchestrator.state.spares import rebound

    assert isinstance(house.store, RedisStore)
    spares, lease = house.store.spares, a_lease()
    name = await made(spares)
    await house.store._funnel.one(rebound(name, lease.tenant, lease.conversation, 7))
    assert await spares.claim(a_lease(), KIND) is None
    bound = await spares.bound_to(lease.tenant, lease.conversation)
    assert bound is not None
    assert (bound.name, bound.generation) == (name, 7)
