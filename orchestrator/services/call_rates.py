"""How often a key may call the API: refused before anything else is done for it, at next to no cost.

The buckets are the state server's, one for each key and one for each tenant, so that a limit is one of all replicas
together. A replica takes some tokens ahead and spends them within a second, so that a key that calls a hundred times a
second costs some twenty commands and not a hundred; a key that is refused costs none until it may call again. What
passes the proxy on its way to a runtime is no call of the API and is not counted here. Used by `api/auth.py`.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import anyio

from orchestrator.domain.errors import LimitReached, StoreUnavailable
from orchestrator.domain.ids import KeyId, TenantId
from orchestrator.domain.rates import BURST_SECONDS, Rate, Taken
from orchestrator.domain.tenancy import Caller, KeyKind
from orchestrator.state.base import Buckets
from orchestrator.telemetry import metrics

KEPT_SECONDS = 1.0  #: for which what was taken ahead is good
MOST_PURSES = 10_000
_SHARE_AHEAD = 20  #: of a second's calls, what is taken at once
_SHARE_ALONE = 2  #: of a second's calls, what passes while the state server says nothing


@dataclass
class _Purse:
    """What this replica holds for one key."""

    left: int = 0
    until: float = 0.0
    alone: bool = False  #: what is left is not out of the shared buckets
    refused: Taken | None = None  #: until then nothing is asked for
    owed: int = 0  #: what calls cost beyond one each, paid before the next one
    asking: anyio.Lock = field(default_factory=anyio.Lock)


class CallRates:
    """Of one replica. `per_key` and `per_tenant`: calls in a second, 0 for any number."""

    def __init__(
        self, buckets: Buckets, *, per_key: int, per_tenant: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._buckets = buckets
        self._key, self._tenant = Rate("key.calls", per_key), Rate("tenant.calls", per_tenant)
        self._now = now
        self._purses: OrderedDict[KeyId, _Purse] = OrderedDict()

    async def take(self, caller: Caller) -> None:
        """One call of this caller. The operator may call as often as it likes. Raises `LimitReached`. While the state
        server is away, half as many calls pass on each replica."""
        if caller.tenant is None or caller.kind is KeyKind.OPERATOR:
            return
        if not (self._key.per_second or self._tenant.per_second):
            return
        purse = self._purse(caller.key)
        if not self._spent(purse):
            async with purse.asking:
                if not self._spent(purse):  # somebody asked meanwhile
                    await self._fill(purse, caller.tenant, caller.key)
                    purse.left -= 1

    def charge(self, caller: Caller, calls: int) -> None:
        """What a call that has passed turned out to cost beyond one: it is paid before this key's next one, by the
        key's and the tenant's bucket. Never more than is owed at most: a full bucket."""
        rates = [rate.per_second for rate in (self._key, self._tenant) if rate.per_second]
        if calls > 0 and caller.kind is not KeyKind.OPERATOR and rates:
            purse = self._purse(caller.key)
            purse.owed = min(purse.owed + calls, min(rates) * BURST_SECONDS)

    def _spent(self, purse: _Purse) -> bool:
        """Whether a token was there. Raises `LimitReached`."""
        now = self._now()
        if now >= purse.until:
            purse.left, purse.refused = 0, None
            return False
        if purse.refused is not None:
            raise self._refusal(purse.refused, purse.until - now)
        paid = min(purse.left, purse.owed)
        purse.left, purse.owed = purse.left - paid, purse.owed - paid
        if purse.left <= 0:
            return False
        purse.left -= 1
        return True

    async def _fill(self, purse: _Purse, tenant: TenantId, key: KeyId) -> None:
        """At least one token. Raises `LimitReached`."""
        rates: list[tuple[KeyId | None, Rate]] = [(key, self._key), (None, self._tenant)]
        limited = [(owner, rate) for owner, rate in rates if rate.per_second]
        slowest = min(rate.per_second for _, rate in limited)
        try:
            taken = await self._buckets.take(tenant, limited, wanted=max(1, slowest // _SHARE_AHEAD) + purse.owed)
            purse.alone = False
        except StoreUnavailable:
            spent = purse.alone and self._now() < purse.until
            taken = Taken(0, limited[0][1].rule, 1000) if spent else Taken(max(1, slowest // _SHARE_ALONE))
            purse.alone = True
        if taken.granted:
            paid = min(taken.granted, purse.owed)
            purse.owed, taken = purse.owed - paid, replace(taken, granted=taken.granted - paid)
            if not taken.granted:  # all of it went into what was owed
                rule = next(rate.rule for _, rate in limited if rate.per_second == slowest)
                taken = Taken(0, rule, (purse.owed + 1) * 1000 // slowest + 1)
        if taken.granted:
            purse.left, purse.until = taken.granted, self._now() + KEPT_SECONDS
            return
        purse.refused, purse.until = taken, self._now() + taken.wait_ms / 1000
        raise self._refusal(taken, taken.wait_ms / 1000)

    def _refusal(self, taken: Taken, seconds: float) -> LimitReached:
        rate = self._tenant if taken.rule == self._tenant.rule else self._key
        metrics.CALLS_REFUSED.labels(rate.rule).inc()
        who = "this tenant sends" if rate is self._tenant else "this key sends"
        return LimitReached(
            f"{who} more calls than it may",
            hint=f"{rate.per_second} in a second, and {rate.burst} at once after a rest; wait, and send it again",
            rule=rate.rule,
            limit=rate.per_second,
            retry_after=seconds,
        )

    def _purse(self, key: KeyId) -> _Purse:
        purse = self._purses.get(key)
        if purse is None:
            purse = self._purses[key] = _Purse()
            if len(self._purses) > MOST_PURSES:
                self._purses.popitem(last=False)
        self._purses.move_to_end(key)
        return purse
