"""Buckets of calls, shared by all replicas. See `base.Buckets`."""

from collections.abc import Sequence

from orchestrator.domain.ids import KeyId, TenantId
from orchestrator.domain.rates import Rate, Taken
from orchestrator.state.funnel import Funnel, run
from orchestrator.state.keys import TenantKeys


class RedisBuckets:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def take(self, tenant: TenantId, rates: Sequence[tuple[KeyId | None, Rate]], *, wanted: int) -> Taken:
        keys = TenantKeys(tenant)
        names = tuple(keys.calls(key) for key, _ in rates)
        numbers = [number for _, rate in rates for number in (rate.per_second, rate.burst)]
        granted, place, wait = await self._funnel.one(run("rate_take", names, wanted, *numbers))
        return Taken(int(granted), rates[int(place) - 1][1].rule if int(place) else "", int(wait))
