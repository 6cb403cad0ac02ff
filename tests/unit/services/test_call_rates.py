"""What passes a key's rate, with a clock of the test's own."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.domain.errors import LimitReached, StoreUnavailable
from orchestrator.domain.ids import KeyId, TenantId, new_uuid
from orchestrator.domain.rates import Rate, Taken
from orchestrator.domain.tenancy import ALL_SCOPES, Caller, KeyKind
from orchestrator.services.call_rates import CallRates
from orchestrator.state.memory import MemoryStore

pytestmark = pytest.mark.anyio
TENANT = TenantId(new_uuid())


class Time:
    """Both the store's clock and the replica's."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class Watched:
    """The buckets in memory; counts what is asked of them, and is away when it is told to be."""

    def __init__(self, time: Time) -> None:
        self._buckets = MemoryStore(time).buckets
        self.asked = 0
        self.away = False

    async def take(self, tenant: TenantId, rates: Sequence[tuple[KeyId | None, Rate]], *, wanted: int) -> Taken:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("away")
        return await self._buckets.take(tenant, rates, wanted=wanted)


def a_caller(tenant: TenantId | None = TENANT) -> Caller:
    kind = KeyKind.OPERATOR if tenant is None else KeyKind.TENANT
    return Caller(kind, tenant, None, ALL_SCOPES, KeyId(new_uuid()))


async def passed(rates: CallRates, caller: Caller, calls: int) -> int:
    """How many of them."""
    count = 0
    for _ in range(calls):
        try:
            await rates.take(caller)
        except LimitReached:
            continue
        count += 1
    return count


async def test_ten_seconds_worth_passes_at_once_and_then_the_rate() -> None:
    time = Time()
    buckets = Watched(time)
    rates, caller = CallRates(buckets, per_key=100, per_tenant=0, now=time.monotonic), a_caller()
    assert await passed(rates, caller, 5000) == 1000
    assert buckets.asked < 210, "a twentieth of a second's calls at once, and nothing for what is refused"
    time.seconds = 2.0
    assert await passed(rates, caller, 5000) == 200
    with pytest.raises(LimitReached) as refusal:
        await rates.take(caller)
    assert refusal.value.details["rule"] == "key.calls"
    assert (refusal.value.details["limit"], 0 < refusal.value.retry_after < 1) == (100, True)
    assert await passed(rates, a_caller(), 10) == 10, "another key of the tenant has a bucket of its own"


async def test_a_tenant_cannot_pass_its_own_rate_by_more_keys_or_replicas() -> None:
    time = Time()
    buckets = Watched(time)
    replicas = [CallRates(buckets, per_key=100, per_tenant=150, now=time.monotonic) for _ in range(2)]
    counts = [await passed(replicas[turn % 2], a_caller(), 1000) for turn in range(4)]
    assert sum(counts) == 1500
    other = a_caller(TenantId(new_uuid()))
    assert await passed(replicas[0], other, 5) == 5


async def test_the_operator_and_a_rate_of_none_are_not_counted() -> None:
    time = Time()
    buckets = Watched(time)
    assert await passed(CallRates(buckets, per_key=1, per_tenant=1), a_caller(None), 100) == 100
    assert await passed(CallRates(buckets, per_key=0, per_tenant=0), a_caller(), 100) == 100
    assert buckets.asked == 0


async def test_half_as_many_pass_while_the_state_server_is_away() -> None:
    time = Time()
    buckets = Watched(time)
    rates, caller = CallRates(buckets, per_key=100, per_tenant=0, now=time.monotonic), a_caller()
    assert await passed(rates, caller, 10) == 10
    buckets.away = True
    assert await passed(rates, caller, 500) == 50
    time.seconds = 1.5
    assert await passed(rates, caller, 500) == 50
    buckets.away, time.seconds = False, 3.0
    assert await passed(rates, caller, 500) == 500


async def test_what_a_call_cost_beyond_one_is_paid_before_the_next_by_key_and_tenant() -> None:
    time = Time()
    rates, caller = CallRates(Watched(time), per_key=10, per_tenant=20, now=time.monotonic), a_caller()
    await rates.take(caller)
    rates.charge(caller, 60)
    assert await passed(rates, caller, 500) == 39, "of a full bucket of a hundred"
    time.seconds = 20.0  # full again
    await rates.take(caller)
    rates.charge(caller, 10_000)
    with pytest.raises(LimitReached) as refusal:
        await rates.take(caller)
    assert refusal.value.details["rule"] == "key.calls"
    assert await passed(rates, a_caller(), 500) == 100, "another key owes nothing"
    time.seconds = 32.0
    assert await passed(rates, caller, 1) == 1, "no more is owed than a bucket holds"


async def test_nobody_owes_where_nothing_is_counted() -> None:
    time = Time()
    rates, unlimited = (CallRates(Watched(time), per_key=n, per_tenant=n, now=time.monotonic) for n in (1, 0))
    operator, caller = a_caller(None), a_caller()
    rates.charge(operator, 50)
    unlimited.charge(caller, 50)
    assert await passed(rates, operator, 20) == await passed(unlimited, caller, 20) == 20
