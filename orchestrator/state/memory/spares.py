"""The warm pool in memory. See `spares_base.Spares`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state.lease import Lease
from orchestrator.state.memory.shelf import Shelf
from orchestrator.state.spares_base import Claimed, PoolCounts, Spare, SpareState


@dataclass
class Known:
    """One spare with what only the pool needs: by when it has to be ready, or since when it is; its sealed key."""

    spare: Spare
    ms: int
    sealed: str = ""


@dataclass
class Pool:
    known: dict[str, Known] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)
    hits: int = 0
    misses: int = 0

    def named(self, state: SpareState, kind: str | None = None) -> list[str]:
        """The longest there first."""
        found = [one for one in self.known.values() if one.spare.state is state and kind in (None, one.spare.kind)]
        return [one.spare.name for one in sorted(found, key=lambda one: (one.ms, one.spare.name))]

    def to(self, name: str, state: SpareState) -> None:
        known = self.known[name]
        known.spare, known.sealed = replace(known.spare, state=state), ""


class MemorySpares:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._pool = Pool()

    async def reserve(
        self, name: str, kind: str, *, minimum: int, maximum: int, at_once: int, hold_ms: int, pace_ms: int
    ) -> bool:
        pool, now = self._pool, self._shelf.now_ms()
        making, ready = pool.named(SpareState.MAKING, kind), pool.named(SpareState.READY, kind)
        states = (SpareState.MAKING, SpareState.READY, SpareState.LEAVING)
        if len(making) + len(ready) >= minimum or sum(len(pool.named(state, kind)) for state in states) >= maximum:
            return False
        if len(making) >= at_once or now < pool.reserved.get(kind, -pace_ms) + pace_ms:
            return False
        pool.reserved[kind] = now
        pool.known[name] = Known(Spare(name, kind, SpareState.MAKING), now + hold_ms)
        return True

    async def ready(self, name: str, kind: str, *, reference: str, address: str, sealed: str) -> bool:
        known = self._pool.known.get(name)
        if known is None or known.spare.state is not SpareState.MAKING:
            return False
        known.spare = replace(known.spare, state=SpareState.READY, reference=reference, address=address)
        known.ms, known.sealed = self._shelf.now_ms(), sealed
        return True

    async def claim(self, lease: Lease, kind: str) -> Claimed | str | None:
        held = await self.bound_to(lease.tenant, lease.conversation)
        if held is not None:
            return held.name
        waiting = self._pool.named(SpareState.READY, kind)
        if not waiting:
            self._pool.misses += 1
            return None
        known = self._pool.known[waiting[0]]
        claimed = Claimed(known.spare.name, known.spare.reference, known.spare.address, known.sealed)
        bound = replace(known.spare, state=SpareState.BOUND, generation=lease.fence)
        known.spare, known.sealed = replace(bound, tenant=lease.tenant, conversation=lease.conversation), ""
        self._pool.hits += 1
        return claimed

    async def get(self, name: str) -> Spare | None:
        known = self._pool.known.get(name)
        return None if known is None else known.spare

    async def bound_to(self, tenant: TenantId, conversation: ConversationId) -> Spare | None:
        bound = (one.spare for one in self._pool.known.values() if one.spare.tenant)
        return next((one for one in bound if (one.tenant, one.conversation) == (tenant, conversation)), None)

    async def kinds(self) -> Sequence[str]:
        states = (SpareState.MAKING, SpareState.READY)
        return sorted({one.spare.kind for one in self._pool.known.values() if one.spare.state in states})

    async def waiting(self, kind: str) -> Sequence[str]:
        return self._pool.named(SpareState.READY, kind)

    async def retire(self, kind: str, *, keep: int, made_too: bool = False) -> int:
        now, pool = self._shelf.now_ms(), self._pool
        late = [name for name in pool.named(SpareState.MAKING, kind) if made_too or pool.known[name].ms <= now]
        ready = pool.named(SpareState.READY, kind)
        going = [*late, *ready[: max(0, len(ready) - (0 if made_too else keep))]]
        for name in going:
            pool.to(name, SpareState.LEAVING)
        return len(going)

    async def drop(self, name: str, kind: str) -> bool:
        known = self._pool.known.get(name)
        if known is None or known.spare.state not in (SpareState.MAKING, SpareState.READY):
            return False
        self._pool.to(name, SpareState.LEAVING)
        return True

    async def leaving(self) -> Sequence[str]:
        return sorted(self._pool.named(SpareState.LEAVING))

    async def forget(self, name: str) -> None:
        self._pool.known.pop(name, None)

    async def set_aside(self, name: str) -> None:
        self._pool.known[name] = Known(Spare(name, "", SpareState.STRANGE), self._shelf.now_ms())

    async def counts(self) -> PoolCounts:
        pool = self._pool
        bound = sum(bool(one.spare.tenant) for one in pool.known.values())
        making, ready, leaving = (
            len(pool.named(state)) for state in (SpareState.MAKING, SpareState.READY, SpareState.LEAVING)
        )
        return PoolCounts(making, ready, leaving, bound, pool.hits, pool.misses)
