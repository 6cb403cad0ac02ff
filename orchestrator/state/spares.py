"""The warm pool in Redis. See `spares_base.Spares`; what may happen to a spare is in `scripts/spare_*.lua`."""

from collections.abc import Sequence

from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state import keys
from orchestrator.state.funnel import Call, Funnel, command, run
from orchestrator.state.lease import Lease
from orchestrator.state.spares_base import Claimed, PoolCounts, Spare, SpareState

_FIELDS = ("kind", "state", "reference", "address", "tenant", "conversation", "generation")


def rebound(name: str, tenant: TenantId, conversation: ConversationId, generation: int) -> Call:
    """Note whose a spare is, as its record says; for `journal/restoring.py`."""
    known = (keys.SPARE_PREFIX + name, keys.SPARES_UNBOUND, keys.SPARES_LEAVING, keys.SPARES_BOUND)
    return run(
        "spare_bind", (*known, keys.SPARES_MAKING, keys.SPARES_READY), name, tenant, conversation, str(generation)
    )


class RedisSpares:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def reserve(
        self, name: str, kind: str, *, minimum: int, maximum: int, at_once: int, hold_ms: int, pace_ms: int
    ) -> bool:
        own = (*_of(kind), keys.SPARES_UNBOUND, keys.SPARE_KINDS, keys.SPARE_COUNTS, keys.SPARE_PREFIX + name)
        call = run(
            "spare_reserve",
            (*own, keys.SPARES_LEAVING, keys.SPARE_PREFIX),
            name,
            kind,
            minimum,
            maximum,
            at_once,
            hold_ms,
            pace_ms,
        )
        return bool(await self._funnel.one(call) == "made")

    async def ready(self, name: str, kind: str, *, reference: str, address: str, sealed: str) -> bool:
        own = (*_of(kind), keys.SPARE_PREFIX + name)
        return bool(await self._funnel.one(run("spare_ready", own, name, reference, address, sealed)))

    async def claim(self, lease: Lease, kind: str) -> Claimed | str | None:
        own = (_of(kind)[1], keys.SPARES_UNBOUND, keys.SPARES_BOUND, keys.SPARE_COUNTS, keys.SPARE_PREFIX)
        member = _member(lease.tenant, lease.conversation)
        call = run("spare_claim", own, member, lease.tenant, lease.conversation, lease.fence)
        outcome, *rest = await self._funnel.one(call)
        if outcome == "none":
            return None
        return str(rest[0]) if outcome == "held" else Claimed(*(part or "" for part in rest))

    async def get(self, name: str) -> Spare | None:
        found = await self._funnel.one(command("HMGET", keys.SPARE_PREFIX + name, *_FIELDS))
        kind, state, reference, address, tenant, conversation, generation = (part or "" for part in found)
        if not state:
            return None
        whose = (TenantId(tenant), ConversationId(conversation), int(generation or 0))
        return Spare(name, kind, SpareState(state), reference, address, *whose)

    async def bound_to(self, tenant: TenantId, conversation: ConversationId) -> Spare | None:
        name = await self._funnel.one(command("HGET", keys.SPARES_BOUND, _member(tenant, conversation)))
        return None if name is None else await self.get(str(name))

    async def kinds(self) -> Sequence[str]:
        return sorted(await self._funnel.one(command("SMEMBERS", keys.SPARE_KINDS)))

    async def waiting(self, kind: str) -> Sequence[str]:
        return list(await self._funnel.one(command("ZRANGE", _of(kind)[1], 0, -1)))

    async def retire(self, kind: str, *, keep: int, made_too: bool = False) -> int:
        own = (*_of(kind), keys.SPARES_LEAVING, keys.SPARE_PREFIX)
        return int(await self._funnel.one(run("spare_retire", own, "all" if made_too else keep, "")))

    async def drop(self, name: str, kind: str) -> bool:
        own = (*_of(kind), keys.SPARES_LEAVING, keys.SPARE_PREFIX)
        return bool(await self._funnel.one(run("spare_retire", own, 0, name)))

    async def leaving(self) -> Sequence[str]:
        return sorted(await self._funnel.one(command("SMEMBERS", keys.SPARES_LEAVING)))

    async def forget(self, name: str) -> None:
        await self._funnel.one(_forgetting(name))

    async def set_aside(self, name: str) -> None:
        strange = command("HSET", keys.SPARE_PREFIX + name, "state", SpareState.STRANGE.value)
        await self._funnel.batch(_forgetting(name), strange)

    async def counts(self) -> PoolCounts:
        unbound, leaving, bound, numbers, kinds = await self._funnel.batch(
            command("SCARD", keys.SPARES_UNBOUND),
            command("SCARD", keys.SPARES_LEAVING),
            command("HLEN", keys.SPARES_BOUND),
            command("HMGET", keys.SPARE_COUNTS, "hits", "misses"),
            command("SMEMBERS", keys.SPARE_KINDS),
        )
        standing = await self._funnel.batch(*(command("ZCARD", _of(kind)[1]) for kind in kinds)) if kinds else []
        ready = sum(standing)
        hits, misses = (int(number or 0) for number in numbers)
        return PoolCounts(max(0, unbound - leaving - ready), ready, leaving, bound, hits, misses)


def _forgetting(name: str) -> Call:
    known = (keys.SPARE_PREFIX + name, keys.SPARES_UNBOUND, keys.SPARES_LEAVING, keys.SPARES_BOUND)
    return run("spare_forget", (*known, keys.SPARE_KINDS, keys.SPARES_MAKING, keys.SPARES_READY), name)


def _of(kind: str) -> tuple[str, str]:
    return keys.SPARES_MAKING + kind, keys.SPARES_READY + kind


def _member(tenant: TenantId, conversation: ConversationId) -> str:
    return f"{tenant}/{conversation}"
