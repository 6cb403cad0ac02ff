"""Slots in Redis. See `slots_base.Slots`; how a slot is given is in `scripts/admission.lua`."""

import json
from collections.abc import Sequence
from typing import Any

from orchestrator.domain.admission import Ask, Meter, Rule, Standing, Verdict
from orchestrator.domain.errors import LimitReached
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state import due, keys
from orchestrator.state.funnel import Call, Funnel, command, run
from orchestrator.state.keys import TenantKeys
from orchestrator.state.lease import Lease
from orchestrator.state.refusals import lease_lost, limit_reached
from orchestrator.state.slots_base import NOBODY, Next, Place

_LOOKED_AT = 200  # of a queue in one step, beside those that a budget keeps; those behind wait until one is gone


def ask_text(ask: Ask) -> str:
    """As the scripts read it."""
    rules = [_rule(rule) for rule in ask.rules]
    asked = {"user": ask.user or "", "key": ask.key or "", "rules": rules, "queue": ask.queue, "wait_ms": ask.wait_ms}
    more = {"behind": ask.behind, "budgets": [_rule(rule) for rule in ask.budgets]}
    return json.dumps({**asked, **more}, separators=(",", ":"))


def _rule(rule: Rule) -> dict[str, Any]:
    found = {"name": rule.name, "scope": rule.scope, "limit": rule.limit, "window_ms": rule.window_ms}
    month = {"unit": rule.unit, "month": rule.month, "ends_ms": rule.ends_ms}
    return found if rule.unit is None else found | month


def standing_from(answer: Sequence[Any]) -> Standing:
    """What a script answered."""
    verdict, *rest = answer
    if verdict == Verdict.QUEUED:
        return Standing(Verdict.QUEUED, place=int(rest[0]), until_ms=int(rest[1]), left_ms=int(rest[2]))
    if verdict == Verdict.REFUSED:
        return Standing(
            Verdict.REFUSED,
            rule=rest[0],
            limit=int(rest[1]),
            current=int(rest[2]),
            retry_after_ms=int(rest[3]),
            ends_ms=int(rest[5]) if len(rest) > 5 else 0,
        )
    return Standing(Verdict(verdict))


def refused(answer: Sequence[Any]) -> LimitReached:
    return limit_reached(standing_from(answer))


def joining(tenant: TenantId, ask: Ask | None) -> tuple[Call, ...]:
    """To be sent before and after a script that may put somebody into the tenant's queue (as `due.waking`)."""
    return (run("queue_join", (keys.QUEUED_TENANTS,), tenant),) if ask is not None and ask.queue else ()


class RedisSlots:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def standing(self, tenant: TenantId, id: ConversationId) -> Standing:
        t = TenantKeys(tenant)
        return standing_from(await self._funnel.one(run("slot_standing", (t.conversation(id), t.slots, t.queue), id)))

    async def meters(self, tenant: TenantId, ask: Ask) -> tuple[Sequence[Meter], int]:
        t = TenantKeys(tenant)
        call = run("slot_meters", (t.slots, t.starts, t.queue, t.conversation_prefix), ask_text(ask))
        waiting, *rest = await self._funnel.one(call)
        pairs = zip(ask.rules, rest[::2], rest[1::2], strict=True)
        return [Meter(rule, int(current), int(reset)) for rule, current, reset in pairs], int(waiting)

    async def take(self, lease: Lease, ask: Ask) -> Standing:
        t, id = TenantKeys(lease.tenant), lease.conversation
        call = run(
            "slot_take",
            (t.conversation(id), t.slots, t.starts, t.queue, t.evictions),
            id,
            lease.owner,
            lease.fence,
            ask_text(ask),
        )
        join = joining(lease.tenant, ask)
        replies = await self._funnel.batch(*join, call, *join)
        answer = replies[len(join)]
        if answer[0] == "lost":
            raise lease_lost(lease)
        return standing_from(answer)

    async def release(self, lease: Lease, *, asked: bool = False) -> bool:
        t, id = TenantKeys(lease.tenant), lease.conversation
        given_up = await self._funnel.one(
            run(
                "slot_release",
                (t.conversation(id), t.slots, t.queue, t.evictions),
                id,
                lease.owner,
                lease.fence,
                int(asked),
            )
        )
        if given_up < 0:
            raise lease_lost(lease)
        return bool(given_up)

    async def queues(self, *, limit: int) -> Sequence[TenantId]:
        found = await self._funnel.one(command("ZRANGE", keys.QUEUED_TENANTS, 0, limit - 1))
        return [TenantId(tenant) for tenant in found]

    async def served(self, tenant: TenantId) -> None:
        await self._funnel.one(run("queue_visit", (keys.QUEUED_TENANTS,), tenant))

    async def leave(self, tenant: TenantId) -> None:
        # Looked at again after it left: whoever came in the queue meanwhile may have found the tenant in line still.
        _, waiting = await self._funnel.batch(
            command("ZREM", keys.QUEUED_TENANTS, tenant), command("ZCARD", TenantKeys(tenant).queue)
        )
        if waiting:
            await self._funnel.one(run("queue_join", (keys.QUEUED_TENANTS,), tenant))

    async def next_waiting(self, tenant: TenantId, ask: Ask) -> Next:
        t = TenantKeys(tenant)
        call = run("slot_next", (t.slots, t.starts, t.queue, t.conversation_prefix), ask_text(ask), _LOOKED_AT)
        waiting, id, *refusal = await self._funnel.one(call)
        stands = standing_from(refusal) if refusal else NOBODY
        return Next(int(waiting), ConversationId(id) if id else None, stands)

    async def admit(self, tenant: TenantId, id: ConversationId, ask: Ask) -> Standing:
        t = TenantKeys(tenant)
        call = run("slot_admit", (t.conversation(id), t.slots, t.starts, t.queue, t.due), id, ask_text(ask))
        return standing_from(await due.waking(self._funnel, tenant, call))

    async def oldest(self, tenant: TenantId, *, limit: int) -> Sequence[ConversationId]:
        found = await self._funnel.one(command("ZRANGE", TenantKeys(tenant).slots, 0, limit - 1))
        return [ConversationId(id) for id in found]

    async def evict(self, tenant: TenantId, id: ConversationId, *, hold_ms: int) -> bool:
        t = TenantKeys(tenant)
        call = run("slot_evict", (t.conversation(id), t.slots, t.evictions, t.due), id, hold_ms)
        return bool(await due.waking(self._funnel, tenant, call))

    async def spare(self, tenant: TenantId, id: ConversationId) -> None:
        await self._funnel.one(command("ZREM", TenantKeys(tenant).evictions, id))

    async def evictions(self, tenant: TenantId) -> Sequence[ConversationId]:
        found = await self._funnel.one(run("slot_evictions", (TenantKeys(tenant).evictions,)))
        return [ConversationId(id) for id in found]

    async def hold_host(self, place: Place, *, limit: int, rate: int, window_ms: int, hold_ms: int) -> Standing:
        call = run("host_hold", (keys.HOST_SLOTS, keys.HOST_STARTS), _member(place), limit, rate, window_ms, hold_ms)
        return standing_from(await self._funnel.one(call))

    async def confirm_host(self, place: Place, *, ms: int) -> None:
        await self._funnel.one(run("host_confirm", (keys.HOST_SLOTS,), _member(place), ms))

    async def free_host(self, place: Place, *, uncount: bool = False) -> None:
        await self._funnel.one(run("host_free", (keys.HOST_SLOTS, keys.HOST_STARTS), _member(place), int(uncount)))


def _member(place: Place) -> str:
    return "/".join(place)
