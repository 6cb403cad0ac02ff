"""Buckets of calls, in memory. See `base.Buckets`."""

import math
from collections.abc import Sequence

from orchestrator.domain.ids import KeyId, TenantId
from orchestrator.domain.rates import Rate, Taken
from orchestrator.state.memory.shelf import Shelf


class MemoryBuckets:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._full_at: dict[tuple[TenantId, KeyId | None], float] = {}

    async def take(self, tenant: TenantId, rates: Sequence[tuple[KeyId | None, Rate]], *, wanted: int) -> Taken:
        now = self._shelf.now_ms()
        full = {key: max(self._full_at.get((tenant, key), 0), now) for key, _ in rates}
        granted, rule, wait = wanted, "", 0
        for key, rate in rates:
            room = rate.burst - (full[key] - now) * rate.per_second / 1000
            if math.floor(room + 0.001) < granted:
                granted, rule = max(0, math.floor(room + 0.001)), rate.rule
                wait = max(1, math.ceil((1 - room) * 1000 / rate.per_second))
        if granted == 0:
            return Taken(0, rule, wait)
        for key, rate in rates:
            self._full_at[tenant, key] = full[key] + granted * 1000 / rate.per_second
        return Taken(granted)
