"""How a slot is given, in memory: what `scripts/admission.lua` does, function by function."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.domain.admission import QUEUE_LENGTH, Ask, Meter, Rule, Scope, Standing, Verdict
from orchestrator.domain.ids import ConversationId, KeyId, TenantId, UserId
from orchestrator.domain.spending import used

if TYPE_CHECKING:
    from orchestrator.state.memory.shelf import Place, Shelf


@dataclass
class Slot:
    """What one conversation has, or waits for."""

    used_ms: int | None = None  #: last use of one that has a slot
    user: UserId | None = None
    key: KeyId | None = None
    asked: bool = False  #: a caller's start that no worker has taken up
    queued_at: int | None = None
    queue_until: int = 0
    evict_until: int = 0

    def count_in(self, user: UserId | None, key: KeyId | None, now: int) -> None:
        self.used_ms, self.user, self.key, self.queued_at = now, user, key, None

    def drop(self) -> bool:
        """True when there was something to give up."""
        had = self.used_ms is not None or self.queued_at is not None
        self.used_ms = self.queued_at = None
        self.asked, self.evict_until = False, 0
        return had


@dataclass(frozen=True)
class Start:
    at_ms: int
    user: UserId | None
    key: KeyId | None


def queue(shelf: "Shelf", tenant: TenantId) -> list[ConversationId]:
    """In order."""
    waiting = {id: p.slot.queued_at for (owner, id), p in shelf.places.items() if owner == tenant}
    return sorted((id for id, at in waiting.items() if at is not None), key=lambda id: waiting[id] or 0)


def waiting(shelf: "Shelf", tenant: TenantId, budgets: Sequence[Rule]) -> int:
    """How many wait for a place, of those in the queue: one that a budget keeps takes nobody's."""

    def may_spend(user: UserId | None) -> bool:
        own = [rule for rule in budgets if rule.scope is Scope.TENANT or user is not None]
        return not any(_measure(shelf, tenant, rule, Ask(user)).full for rule in own)

    return sum(may_spend(shelf.places[tenant, id].slot.user) for id in queue(shelf, tenant))


def meters(shelf: "Shelf", tenant: TenantId, ask: Ask) -> Sequence[Meter]:
    return [_measure(shelf, tenant, rule, ask) for rule in ask.rules]


def refusal(shelf: "Shelf", tenant: TenantId, ask: Ask, waiting: int = 0) -> Standing | None:
    """The first rule that says no. `waiting` others come first."""
    for rule in ask.rules:
        meter = _measure(shelf, tenant, rule, ask)
        current = meter.current + (waiting if rule.scope is Scope.TENANT and rule.of_runtimes else 0)
        if current >= rule.limit:
            return Standing(
                Verdict.REFUSED,
                rule=rule.name,
                limit=rule.limit,
                current=current,
                retry_after_ms=meter.reset_ms,
                ends_ms=rule.ends_ms,
            )
    return None


def standing(shelf: "Shelf", tenant: TenantId, id: ConversationId) -> Standing:
    place = shelf.places.get((tenant, id))
    if place is not None and place.slot.used_ms is not None:
        return Standing(Verdict.HELD)
    if place is None or place.slot.queued_at is None:
        return Standing(Verdict.NONE)
    ends = place.slot.queue_until
    rank = queue(shelf, tenant).index(id) + 1
    return Standing(Verdict.QUEUED, place=rank, until_ms=ends, left_ms=max(0, ends - shelf.now_ms()))


def take(shelf: "Shelf", tenant: TenantId, id: ConversationId, place: "Place", ask: Ask) -> None:
    now = shelf.now_ms()
    place.slot.count_in(ask.user, ask.key, now)
    if any(rule.window_ms for rule in ask.rules):
        shelf.starts.setdefault(tenant, []).append(Start(now, ask.user, ask.key))


def ask_for(shelf: "Shelf", tenant: TenantId, id: ConversationId, place: "Place", ask: Ask) -> Standing:
    """A slot, or a place in the queue, or neither. `place` may not be on the shelf yet."""
    now = shelf.now_ms()
    if place.slot.used_ms is not None or place.slot.queued_at is not None:
        return standing(shelf, tenant, id)
    others, ahead = queue(shelf, tenant), waiting(shelf, tenant, ask.budgets)
    no = refusal(shelf, tenant, ask, 0 if ask.queue else ahead)
    if no is None and not ask.behind and not (ahead and ask.queue):
        take(shelf, tenant, id, place, ask)
        return Standing(Verdict.ADMITTED)
    if not ask.queue:
        return no or Standing(Verdict.NONE)
    if ahead >= ask.queue:
        return Standing(Verdict.REFUSED, rule=QUEUE_LENGTH, limit=ask.queue, current=ahead)
    last = shelf.places[tenant, others[-1]].slot.queued_at if others else None
    place.slot.user, place.slot.key = ask.user, ask.key
    place.slot.queued_at, place.slot.queue_until = max(now, (last or 0) + 1), now + ask.wait_ms
    return Standing(Verdict.QUEUED, place=len(others) + 1, until_ms=place.slot.queue_until, left_ms=max(0, ask.wait_ms))


def _measure(shelf: "Shelf", tenant: TenantId, rule: Rule, ask: Ask) -> Meter:
    def same(user: UserId | None, key: KeyId | None) -> bool:
        return {Scope.TENANT: True, Scope.USER: user == ask.user, Scope.KEY: key == ask.key}[rule.scope]

    if rule.unit is not None:
        ledger = shelf.ledgers.get((tenant, ask.user if rule.scope is Scope.USER else None, rule.month))
        spent = 0 if ledger is None else used(ledger.spent, rule.unit)
        return Meter(rule, spent, 0 if spent < rule.limit else max(0, rule.ends_ms - shelf.now_ms()))
    if not rule.window_ms:
        held = [p.slot for (owner, _), p in shelf.places.items() if owner == tenant and p.slot.used_ms is not None]
        return Meter(rule, sum(same(slot.user, slot.key) for slot in held))
    now = shelf.now_ms()
    starts = [s.at_ms for s in shelf.starts.get(tenant, ()) if s.at_ms > now - rule.window_ms and same(s.user, s.key)]
    room = starts[-rule.limit] + rule.window_ms - now if len(starts) >= rule.limit else 0
    return Meter(rule, len(starts), room)
