"""Admission: whether a start may have a slot now, has to wait, makes room for itself, or is refused, and why.

Called by the use cases for what a caller asks, and by workers before they let a runtime run. The rules are in
`domain/admission.py`, the counting in `state/slots_base.py`; the queue is served by `queueing.py`. Order of a start: a
place on the host is held for a while, then the record and the tenant's slot are written in one step, then the place is
confirmed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import anyio

from orchestrator.domain.admission import (
    HOST_RUNTIMES,
    MINUTE_MS,
    QUEUE_LENGTH,
    Allowance,
    Ask,
    Decision,
    OperatorLimits,
    Policy,
    Report,
    Rule,
    Scope,
    Standing,
    Use,
    Verdict,
    budget_rules,
    first_full,
    is_budget,
    policy_of,
)
from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import Conversation, Desired, Phase
from orchestrator.domain.errors import CapacityReached, LimitReached, StoreUnavailable, Unreadable
from orchestrator.domain.hooks import TENANT_LANE, HookEvent, draft
from orchestrator.domain.ids import ConversationId, KeyId, TenantId, UserId
from orchestrator.domain.spending import Budget, WhenReached
from orchestrator.services.idleness import Idleness
from orchestrator.services.layers import SettingsLayer
from orchestrator.state.base import Lease, Store
from orchestrator.state.refusals import host_full, limit_reached
from orchestrator.telemetry import metrics

T = TypeVar("T")
_HOLD_MS = 30_000  # of a place on the host, until the tenant's script has run
_CONFIRM_MS = 600_000  # a round confirms again; longer than a start, so that only a leak ends by itself
_EVICT_MS = 60_000  # a mark that no worker acts on ends by itself
WAKE_MS = 7 * 24 * 3600 * 1000  # one that sleeps waits as long as its messages do
_ASK_SECONDS = 2.0
_EACH = UserId("each")  # rules that are meant for every user
_LOOKED_AT = 20  # candidates to make room, the longest unused first


@dataclass(frozen=True)
class Starter:
    """Who wants which conversation's runtime to run. `id` None: one that does not exist yet (a dry run)."""

    tenant: TenantId
    id: ConversationId | None
    user: UserId | None
    key: KeyId | None


class Admission:
    """One for all tenants. `look_again` is called when a slot may have come free or somebody waits."""

    def __init__(
        self, store: Store, settings: SettingsLayer, idleness: Idleness, limits: OperatorLimits, clock: Clock
    ) -> None:
        self._store = store
        self._clock = clock
        self._slots = store.slots
        self._settings = settings
        self._idleness = idleness
        self._limits = limits
        self._look_again: Callable[[], None] = lambda: None

    def subscribe(self, look_again: Callable[[], None]) -> None:
        """Have `look_again` called from now on."""
        self._look_again = look_again

    async def terms(self, tenant: TenantId) -> tuple[Allowance, Policy, Budget | None]:
        """The operator's limits for all or for this tenant, as the tenant lowered them, what the tenant wants when one
        is reached, and its budget."""
        (document, _), record = await asyncio.gather(
            self._settings.read(tenant, None), self._store.tenants.tenant(tenant)
        )
        own = document.get("limits")
        own = own if isinstance(own, dict) else {}
        allowance = self._limits.allowance.granted(record.limits if record is not None else {})
        budget = record.budget if record is not None else None
        return allowance.lowered(own), policy_of(own, self._limits.when_full), budget

    async def ask(self, who: Starter) -> tuple[Ask, Policy]:
        """What a start has to pass, without a place in the queue."""
        allowance, policy, budget = await self.terms(who.tenant)
        now = self._clock.now()
        rules = budget_rules(budget, user=who.user, now=now) + allowance.rules(user=who.user, key=who.key)
        return Ask(who.user, who.key, rules, budgets=budget_rules(budget, user=_EACH, now=now)), policy

    async def queue_terms(self, tenant: TenantId) -> tuple[Ask, Policy]:
        """The rules of all scopes, for the queue: each that waits has its own user and key."""
        allowance, policy, budget = await self.terms(tenant)
        rules = budget_rules(budget, user=_EACH, now=self._clock.now())
        return Ask(rules=rules + allowance.rules(user=_EACH, key=KeyId("each"))), policy

    async def admit(self, who: Starter, reserve: Callable[[Ask], Awaitable[T]], *, wait_ms: int | None = None) -> T:
        """`reserve` writes what is asked for together with its slot or place in the queue, and raises `LimitReached`.
        With `wait_ms` it waits for its turn whatever the tenant's policy; without, a budget that is reached refuses it
        whatever the policy: no runtime that ends would make room. Raises `LimitReached`, `CapacityReached`."""
        ask, policy = await self.ask(who)
        waiting = self._waiting(ask, wait_ms)
        full = await self._hold_host(who)
        try:
            if wait_ms is None:
                budgets = tuple(rule for rule in ask.rules if is_budget(rule.name))
                await self._refuse_early(who.tenant, replace(ask, rules=budgets))
            if policy is Policy.QUEUE or (wait_ms is not None and policy is Policy.REJECT):
                return await reserve(replace(waiting, behind=full is not None))
            if full is None:
                try:
                    await self._refuse_early(who.tenant, ask)
                    return await reserve(ask)
                except LimitReached as refusal:
                    return await self._in_place_of_another(who, policy, refusal, waiting, reserve, wait_ms)
            return await self._in_place_of_another(who, policy, host_full(full), waiting, reserve, wait_ms)
        except (LimitReached, CapacityReached) as refusal:
            await self._tell(who, refusal)
            raise
        finally:
            await self._settle_host(who)
            self._look_again()

    async def _tell(self, who: Starter, refusal: LimitReached | CapacityReached) -> None:
        """The tenant's webhooks, once a minute for each rule: a flood of refusals is told once."""
        rule = str(refusal.details.get("rule", ""))
        metrics.REFUSED.labels(rule).inc()
        of_tenant = {name: refusal.details.get(name) for name in ("limit", "current")}
        data = {"rule": rule, "conversation_id": who.id, "user_id": who.user, **of_tenant}
        told = draft(HookEvent.QUOTA_EXCEEDED, who.tenant, self._clock.now(), data)
        with suppress(StoreUnavailable):  # the refusal itself is what the caller has to hear
            await self._store.hooks.publish(who.tenant, TENANT_LANE, [told], once=f"quota:{rule}", once_ms=MINUTE_MS)

    async def take(self, lease: Lease, conversation: Conversation) -> Standing:
        """For a worker whose conversation's runtime is about to run: it has its slot, or is `QUEUED`. Raises
        `LimitReached` when even the queue is full, `LeaseLost`."""
        who = Starter(lease.tenant, lease.conversation, conversation.user, conversation.key)
        stands = await self._slots.standing(lease.tenant, lease.conversation)
        if stands.verdict is Verdict.QUEUED:
            self._look_again()
            return stands
        if stands.verdict is Verdict.HELD:
            await self.confirm(lease.tenant, lease.conversation)
            return await self._slots.take(lease, Ask())

        async def reserve(ask: Ask) -> Standing:
            taken = await self._slots.take(lease, ask)
            if taken.verdict is Verdict.REFUSED:
                raise limit_reached(taken)
            return taken

        wait_ms = WAKE_MS if conversation.phase is Phase.PAUSED else int(self._limits.queue_seconds * 1000)
        return await self.admit(who, reserve, wait_ms=wait_ms)

    async def confirm(self, tenant: TenantId, id: ConversationId) -> None:
        """Its runtime runs: it counts on the host for some minutes more."""
        if self._limits.of_host:
            await self._slots.confirm_host((tenant, id), ms=_CONFIRM_MS)

    async def count(self, lease: Lease, conversation: Conversation) -> None:
        """Its runtime runs, so it is counted, whatever the limits say: also one whose record was written anew from the
        journal, or by a version that counted nothing."""
        await self._slots.take(lease, Ask(conversation.user, conversation.key))
        await self.confirm(lease.tenant, lease.conversation)

    async def is_over_budget(self, conversation: Conversation) -> bool:
        """Whether a budget is reached that puts to rest what runs."""
        return await self.has_spent(conversation, of=(WhenReached.PAUSE,))

    async def has_spent(self, conversation: Conversation, *, of: Collection[WhenReached] = tuple(WhenReached)) -> bool:
        """Whether a budget of one of these kinds is reached. One that nobody can read keeps nobody from anything."""
        try:
            record = await self._store.tenants.tenant(conversation.tenant)
        except Unreadable:
            return False
        budget = record.budget if record is not None else None
        if budget is None or budget.when_reached not in of:
            return False
        rules = budget_rules(budget, user=conversation.user, now=self._clock.now())
        meters, _ = await self._slots.meters(conversation.tenant, Ask(conversation.user, rules=rules))
        return first_full(meters) is not None

    async def give_back(self, lease: Lease, *, asked: bool = False) -> None:
        """Nothing of it runs any more. A start that a caller asked for meanwhile keeps its slot, unless `asked`."""
        place = (lease.tenant, lease.conversation)
        await self._slots.release(lease, asked=asked)
        if self._limits.of_host and (await self._slots.standing(*place)).verdict is not Verdict.HELD:
            await self._slots.free_host(place)
        self._look_again()

    async def keep(self, conversation: Conversation) -> None:
        """It was to make room and cannot: the queue finds another."""
        await self._slots.spare(conversation.tenant, conversation.id)
        self._look_again()

    async def standing(self, conversation: Conversation) -> Standing:
        """For showing."""
        return await self._slots.standing(conversation.tenant, conversation.id)

    async def waits_for(self, conversation: Conversation) -> Standing | None:
        """Its place in the queue with the rule that is full, for telling whoever waits; None when it does not wait."""
        stands = await self._slots.standing(conversation.tenant, conversation.id)
        if stands.verdict is not Verdict.QUEUED:
            return None
        ask, _ = await self.ask(Starter(conversation.tenant, None, conversation.user, conversation.key))
        full = first_full((await self._slots.meters(conversation.tenant, replace(ask, budgets=())))[0])
        if full is None:  # the others in the queue come first, or the host has no place
            return replace(stands, rule=QUEUE_LENGTH if stands.place > 1 or not self._limits.of_host else HOST_RUNTIMES)
        rule = full.rule
        return replace(stands, rule=rule.name, limit=rule.limit, current=full.current, retry_after_ms=full.reset_ms)

    async def report(self, who: Starter) -> Report:
        """What would become of a start that is asked for now. Changes nothing."""
        ask, policy = await self.ask(who)
        if who.id is not None:
            stands = await self._slots.standing(who.tenant, who.id)
            if stands.verdict in (Verdict.HELD, Verdict.QUEUED):
                return Report(Decision.JOIN, policy, stands)
        meters, waiting = await self._slots.meters(who.tenant, ask)
        queued = waiting if policy is not Policy.QUEUE else 0
        counted = [
            replace(m, current=m.current + queued) if m.rule.scope is Scope.TENANT and m.rule.of_runtimes else m
            for m in meters
        ]
        full = first_full(counted)
        if full is None and not (waiting and policy is Policy.QUEUE):
            return Report(Decision.START, policy, Standing(Verdict.ADMITTED), meters=tuple(meters), waiting=waiting)
        stands = Standing(Verdict.QUEUED, place=waiting + 1)
        if full is not None:
            stands = Standing(
                Verdict.REFUSED,
                rule=full.rule.name,
                limit=full.rule.limit,
                current=full.current,
                retry_after_ms=full.reset_ms,
                ends_ms=full.rule.ends_ms,
                place=waiting + 1 if policy is Policy.QUEUE and not is_budget(full.rule.name) else 0,
            )
        if is_budget(stands.rule):
            return Report(Decision.REJECT, policy, stands, meters=tuple(meters), waiting=waiting)
        if policy is Policy.QUEUE:
            if waiting < self._limits.queue_length:
                return Report(Decision.QUEUE, policy, stands, meters=tuple(meters), waiting=waiting)
            longest = self._limits.queue_length
            stands = Standing(Verdict.REFUSED, rule=QUEUE_LENGTH, limit=longest, current=waiting)
            return Report(Decision.REJECT, policy, stands, meters=tuple(meters), waiting=waiting)
        victim = await self.spareable(who, stands.rule) if policy is Policy.PAUSE_OLDEST_IDLE else None
        decision = Decision.REJECT if victim is None else Decision.PAUSE
        chosen = () if victim is None else (victim.id,)
        return Report(decision, policy, stands, chosen, tuple(meters), waiting)

    async def use(self, who: Starter) -> Use:
        """What the tenant, or its user, has running now, and how each limit stands. Changes nothing."""
        ask, policy = await self.ask(who)
        all_of_them = Rule(Scope.TENANT if who.user is None else Scope.USER, 0)
        asked = replace(ask, rules=(all_of_them, *ask.rules), budgets=())  # all that wait, for whatever
        meters, waiting = await self._slots.meters(who.tenant, asked)
        return Use(meters[0].current, waiting, policy, tuple(meters[1:]))

    async def make_room(self, who: Starter, rule: str) -> Conversation | None:
        """Ask the oldest idle conversation that counts under `rule` to be paused; None when there is none."""
        for _ in range(_LOOKED_AT):
            victim = await self.spareable(who, rule)
            if victim is None:
                return None
            if await self._slots.evict(victim.tenant, victim.id, hold_ms=_EVICT_MS):
                return victim
        return None

    async def spareable(self, who: Starter, rule: str) -> Conversation | None:
        """The conversation that was unused for longest: ready, used by nobody, with nothing to be delivered and an
        agent that rests. A rate is not mended by a pause."""
        if not rule.endswith(".runtimes"):
            return None
        marked = set(await self._slots.evictions(who.tenant))
        for id in await self._slots.oldest(who.tenant, limit=_LOOKED_AT + len(marked)):
            found = await self._store.conversations.get(who.tenant, id) if id not in marked else None
            if found is None or found.phase is not Phase.READY or found.desired is not Desired.RUNNING:
                continue
            if rule == "user.runtimes" and found.user != who.user:
                continue
            if rule == "key.runtimes" and found.key != who.key:
                continue
            if await self.can_be_spared(found):
                return found
        return None

    async def can_be_spared(self, conversation: Conversation) -> bool:
        """Whether nobody would miss it now: never one whose agent runs."""
        if await self._store.inbox.waiting(conversation.tenant, conversation.id, limit=1):
            return False
        with anyio.move_on_after(_ASK_SECONDS):  # one that is slow to say so is not taken to rest
            return await self._idleness.is_idle(conversation)
        return False

    async def _in_place_of_another(
        self,
        who: Starter,
        policy: Policy,
        refusal: Exception,
        waiting: Ask,
        reserve: Callable[[Ask], Awaitable[T]],
        wait_ms: int | None,
    ) -> T:
        """It waits for the place of the one that is paused for it; for none, only what waits in any case."""
        victim = None
        if policy is Policy.PAUSE_OLDEST_IDLE:
            rule = str(refusal.details.get("rule", "")) if isinstance(refusal, LimitReached) else HOST_RUNTIMES
            victim = await self.make_room(who, rule)
        if victim is None and (wait_ms is None or policy is Policy.REJECT):
            raise refusal
        try:
            return await reserve(replace(waiting, behind=True))
        except LimitReached:
            if victim is not None:
                await self._slots.spare(victim.tenant, victim.id)
            raise

    async def _refuse_early(self, tenant: TenantId, ask: Ask) -> None:
        """Before anything is written: a flood of starts that are refused costs reads alone."""
        if not ask.rules:
            return
        meters, _ = await self._slots.meters(tenant, replace(ask, budgets=()))
        full = first_full(meters)
        if full is not None:
            raise limit_reached(
                Standing(
                    Verdict.REFUSED,
                    rule=full.rule.name,
                    limit=full.rule.limit,
                    current=full.current,
                    retry_after_ms=full.reset_ms,
                    ends_ms=full.rule.ends_ms,
                )
            )

    def _waiting(self, ask: Ask, wait_ms: int | None) -> Ask:
        queue_ms = int(self._limits.queue_seconds * 1000)
        return replace(ask, queue=self._limits.queue_length, wait_ms=queue_ms if wait_ms is None else wait_ms)

    async def _hold_host(self, who: Starter) -> Standing | None:
        """What the host refuses it with, or None."""
        if not self._limits.of_host or who.id is None:
            return None
        held = await self._slots.hold_host(
            (who.tenant, who.id),
            limit=self._limits.host_runtimes,
            rate=self._limits.host_starts_per_minute,
            window_ms=MINUTE_MS,
            hold_ms=_HOLD_MS,
        )
        return held if held.verdict is Verdict.REFUSED else None

    async def _settle_host(self, who: Starter) -> None:
        """Confirm the place of one that has its slot; of any other it is given back."""
        if not self._limits.of_host or who.id is None:
            return
        place = (who.tenant, who.id)
        if (await self._slots.standing(*place)).verdict is Verdict.HELD:
            await self._slots.confirm_host(place, ms=_CONFIRM_MS)
        else:
            await self._slots.free_host(place, uncount=True)

    async def admit_waiting(self, tenant: TenantId, id: ConversationId, ask: Ask) -> Standing:
        """For the queue's keeper: a slot for one that waits, with its place on the host."""
        who = Starter(tenant, id, None, None)
        full = await self._hold_host(who)
        if full is not None:
            return full
        try:
            return await self._slots.admit(tenant, id, ask)
        finally:
            await self._settle_host(who)
