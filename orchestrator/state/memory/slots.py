"""Slots in memory. See `slots_base.Slots`; the twin of `slots.py` and `scripts/admission.lua`."""

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.domain.admission import HOST_RUNTIMES, HOST_STARTS, Ask, Meter, Scope, Standing, Verdict, is_budget
from orchestrator.domain.conversation import Desired, Phase
from orchestrator.domain.errors import LimitReached
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state.lease import Lease
from orchestrator.state.memory import ledger
from orchestrator.state.memory.shelf import Shelf
from orchestrator.state.refusals import limit_reached
from orchestrator.state.slots_base import NOBODY, Next, Place


class MemorySlots:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._host: dict[Place, int] = {}
        self._host_starts: list[tuple[int, Place]] = []
        self._line: dict[TenantId, int] = {}  #: tenant with a queue -> turn at which it came into line or was served
        self._turn = 0

    async def standing(self, tenant: TenantId, id: ConversationId) -> Standing:
        return ledger.standing(self._shelf, tenant, id)

    async def meters(self, tenant: TenantId, ask: Ask) -> tuple[Sequence[Meter], int]:
        return ledger.meters(self._shelf, tenant, ask), ledger.waiting(self._shelf, tenant, ask.budgets)

    async def take(self, lease: Lease, ask: Ask) -> Standing:
        place = self._shelf.held(lease)
        stands = ledger.ask_for(self._shelf, lease.tenant, lease.conversation, place, ask)
        if stands.verdict in (Verdict.HELD, Verdict.ADMITTED):
            place.slot.asked = False
        return stands

    async def release(self, lease: Lease, *, asked: bool = False) -> bool:
        slot = self._shelf.held(lease).slot
        return slot.drop() if asked or not slot.asked else False

    async def queues(self, *, limit: int) -> Sequence[TenantId]:
        waiting: dict[TenantId, int] = {}
        for (tenant, _), place in self._shelf.places.items():
            if place.slot.queued_at is not None:
                waiting[tenant] = min(place.slot.queued_at, waiting.get(tenant, place.slot.queued_at))
        for tenant in sorted(set(waiting) - set(self._line), key=lambda tenant: waiting[tenant]):
            self._stand_in_line(tenant)
        return sorted(waiting, key=lambda tenant: self._line[tenant])[:limit]

    async def served(self, tenant: TenantId) -> None:
        self._stand_in_line(tenant)

    async def leave(self, tenant: TenantId) -> None:
        if not ledger.queue(self._shelf, tenant):
            self._line.pop(tenant, None)

    async def next_waiting(self, tenant: TenantId, ask: Ask) -> Next:
        queue, first = ledger.queue(self._shelf, tenant), Next(0)
        for id in queue:
            no = ledger.refusal(self._shelf, tenant, self._own(tenant, id, ask))
            if no is None:
                return Next(len(queue), id)
            if first.first is None or (is_budget(first.standing.rule) and not is_budget(no.rule)):
                first = Next(len(queue), id, no)
            if no.rule.startswith(f"{Scope.TENANT}."):
                break
        return first

    async def admit(self, tenant: TenantId, id: ConversationId, ask: Ask) -> Standing:
        place = self._shelf.places.get((tenant, id))
        if place is None or place.slot.queued_at is None:
            return NOBODY
        own = self._own(tenant, id, ask)
        no = ledger.refusal(self._shelf, tenant, own)
        if no is not None:
            return no
        ledger.take(self._shelf, tenant, id, place, own)
        place.poke(self._shelf.now_ms())
        return Standing(Verdict.ADMITTED)

    async def oldest(self, tenant: TenantId, *, limit: int) -> Sequence[ConversationId]:
        held = {id: p.slot.used_ms for (owner, id), p in self._shelf.places.items() if owner == tenant}
        return sorted((id for id, used in held.items() if used is not None), key=lambda id: (held[id], id))[:limit]

    async def evict(self, tenant: TenantId, id: ConversationId, *, hold_ms: int) -> bool:
        place, now = self._shelf.places.get((tenant, id)), self._shelf.now_ms()
        if place is None or place.slot.used_ms is None or place.slot.evict_until > now:
            return False
        if place.conversation.phase is not Phase.READY or place.conversation.desired is not Desired.RUNNING:
            return False
        place.slot.evict_until = now + hold_ms
        place.poke(now)
        return True

    async def spare(self, tenant: TenantId, id: ConversationId) -> None:
        place = self._shelf.places.get((tenant, id))
        if place is not None:
            place.slot.evict_until = 0

    async def evictions(self, tenant: TenantId) -> Sequence[ConversationId]:
        now = self._shelf.now_ms()
        return [id for (owner, id), p in self._shelf.places.items() if owner == tenant and p.slot.evict_until > now]

    async def hold_host(self, place: Place, *, limit: int, rate: int, window_ms: int, hold_ms: int) -> Standing:
        now = self._shelf.now_ms()
        self._host = {held: ends for held, ends in self._host.items() if ends > now}
        if place in self._host:
            return Standing(Verdict.HELD)
        if limit and len(self._host) >= limit:
            return Standing(Verdict.REFUSED, rule=HOST_RUNTIMES, limit=limit, current=len(self._host))
        if rate:
            self._host_starts = [start for start in self._host_starts if start[0] > now - window_ms]
            if len(self._host_starts) >= rate:
                room = self._host_starts[-rate][0] + window_ms - now
                return Standing(
                    Verdict.REFUSED, rule=HOST_STARTS, limit=rate, current=len(self._host_starts), retry_after_ms=room
                )
            self._host_starts.append((now, place))
        self._host[place] = now + hold_ms
        return Standing(Verdict.ADMITTED)

    async def confirm_host(self, place: Place, *, ms: int) -> None:
        self._host[place] = self._shelf.now_ms() + ms

    async def free_host(self, place: Place, *, uncount: bool = False) -> None:
        self._host.pop(place, None)
        latest = [start for start in self._host_starts if start[1] == place][-1:]
        if uncount and latest:
            self._host_starts.remove(latest[0])

    def _own(self, tenant: TenantId, id: ConversationId, ask: Ask) -> Ask:
        """`ask` for one that waits: under its own user and key, with the rules that concern it."""
        slot = self._shelf.places[tenant, id].slot
        concerned = {Scope.TENANT: True, Scope.USER: slot.user is not None, Scope.KEY: slot.key is not None}
        rules = tuple(rule for rule in ask.rules if concerned[rule.scope])
        return replace(ask, user=slot.user, key=slot.key, rules=rules)

    def _stand_in_line(self, tenant: TenantId) -> None:
        self._turn += 1
        self._line[tenant] = self._turn


def raise_refused(standing: Standing) -> None:
    """Raises `LimitReached` when it is one."""
    if standing.verdict is Verdict.REFUSED:
        failure: LimitReached = limit_reached(standing)
        raise failure
