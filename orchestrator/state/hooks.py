"""Webhooks in Redis. See `hooks_base.Hooks`; the outbox itself is in `scripts/outbox.lua`."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from orchestrator.domain.hooks import (
    ATTEMPTS_KEPT,
    Attempt,
    Delivery,
    Draft,
    HookEndpoint,
    HookStanding,
    Outcome,
    drafts_text,
)
from orchestrator.domain.ids import HookId, TenantId
from orchestrator.state import keys, records
from orchestrator.state.due import VISIT_MS
from orchestrator.state.funnel import Call, Funnel, command, run
from orchestrator.state.keys import TenantKeys
from orchestrator.state.refusals import hook_queue_full, too_many_hooks

_LOOK_AGAIN_MS = 60_000  # a tenant whose due time was lost with a process is looked at after this
_BUSY_MS = 500
QUEUE_BYTES = 8 * 1024 * 1024  #: of one endpoint, some 15,000 events
_ID = re.compile(r"\d{1,15}-\d{1,10}")


def outbox_due(tenant: TenantId) -> Call:
    """Goes with whatever may have put something into the tenant's outbox, in one batch behind it. Of a tenant without
    endpoints nothing is written. A process that ends before it costs a minute."""
    return command("ZADD", keys.HOOK_TENANTS, "XX", "LT", 0, tenant)


class RedisHooks:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def put(
        self,
        endpoint: HookEndpoint,
        *,
        expected_version: int,
        queue_bytes: int,
        limit: int,
        told: Sequence[Draft] = (),
    ) -> bool:
        t = TenantKeys(endpoint.tenant)
        call = run(
            "hook_put",
            (t.hooks, t.hooks_wanted, t.hook_prefix),
            endpoint.id,
            expected_version,
            records.hook_text(endpoint),
            wanted_text(endpoint, queue_bytes),
            limit,
            drafts_text(told) if told else "",
            journal=t.journal,
        )
        # The index before and after: what finds no endpoint takes the tenant out of it.
        here = command("ZADD", keys.HOOK_TENANTS, 0, endpoint.tenant)
        _, answer, _ = await self._funnel.batch(here, call, here, durable=True)
        if answer[0] == "limit":
            raise too_many_hooks(int(answer[1]), limit)
        return bool(answer[0] == "stored")

    async def get(self, tenant: TenantId, id: HookId) -> HookEndpoint | None:
        text = await self._funnel.one(command("HGET", TenantKeys(tenant).hooks, id))
        return None if text is None else records.hook_from(text)

    async def all(self, tenant: TenantId) -> Sequence[HookEndpoint]:
        texts = await self._funnel.one(command("HVALS", TenantKeys(tenant).hooks))
        return sorted(records.readable(records.hook_from, texts), key=lambda hook: (hook.created_at, hook.id))

    async def delete(self, tenant: TenantId, id: HookId, *, expected_version: int | None = None) -> bool:
        t, wanted = TenantKeys(tenant), "" if expected_version is None else expected_version
        call = run("hook_delete", (t.hooks, t.hooks_wanted, t.hook_prefix), id, wanted, journal=t.journal)
        return bool(await self._funnel.one(call, durable=True))

    async def publish(
        self, tenant: TenantId, lane: str, drafts: Sequence[Draft], *, once: str = "", once_ms: int = 0
    ) -> None:
        t = TenantKeys(tenant)
        call = run("hook_publish", (t.hooks_wanted, t.hook_prefix), lane, drafts_text(drafts), once, once_ms)
        await self._funnel.batch(call, outbox_due(tenant))

    async def claim_due(self, *, limit: int, each: Callable[[TenantId], int], claim_ms: int) -> Sequence[Delivery]:
        mark, *tenants = await self._funnel.one(run("tenants_visit", (keys.HOOK_TENANTS,), limit, VISIT_MS))
        claimed: list[Delivery] = []
        for tenant in map(TenantId, tenants):
            claimed += await self._claim(tenant, mark, min(limit - len(claimed), each(tenant)), claim_ms)
        return claimed

    async def _claim(self, tenant: TenantId, mark: str, limit: int, claim_ms: int) -> Sequence[Delivery]:
        t = TenantKeys(tenant)
        (due, *found), left, (seconds, microseconds) = await self._funnel.batch(
            run("hook_claim", (t.hooks_wanted, t.hook_prefix), max(0, limit), claim_ms),
            command("EXISTS", t.hooks),
            command("TIME"),
        )
        now = int(seconds) * 1000 + int(microseconds) // 1000
        soonest = min(int(due or now + _LOOK_AGAIN_MS), now + _LOOK_AGAIN_MS)
        if limit <= 0:
            soonest = now + _BUSY_MS
        following = str(soonest) if left else ""
        await self._funnel.one(run("tenant_refile", (keys.HOOK_TENANTS,), tenant, mark, following))
        return [
            Delivery(tenant, HookId(found[at]), found[at + 1], found[at + 2], int(found[at + 3]), found[at + 4])
            for at in range(0, len(found), 5)
        ]

    async def next_due_ms(self) -> int | None:
        first, (seconds, microseconds) = await self._funnel.batch(
            command("ZRANGE", keys.HOOK_TENANTS, 0, 0, "WITHSCORES"), command("TIME")
        )
        if not first:
            return None
        return max(0, int(float(first[1])) - (int(seconds) * 1000 + int(microseconds) // 1000))

    async def delivered(self, delivery: Delivery, attempt: Attempt, *, claim_ms: int) -> Delivery | None:
        answer = await self._settle(delivery, attempt, claim_ms=claim_ms)
        if answer[0] != "next":
            return None
        return replace(delivery, mark=answer[1], entry=answer[2], tries=0)

    async def failed(
        self, delivery: Delivery, attempt: Attempt, *, lane_rests_ms: int, endpoint_rests_ms: int
    ) -> tuple[int, int]:
        answer = await self._settle(delivery, attempt, lane_ms=lane_rests_ms, endpoint_ms=endpoint_rests_ms)
        return (int(answer[1]), int(answer[2])) if answer[0] == "rests" else (0, 0)

    async def hand_back(self, delivery: Delivery) -> None:
        await self._settle(delivery, None)

    async def _settle(
        self,
        delivery: Delivery,
        attempt: Attempt | None,
        *,
        claim_ms: int = 0,
        lane_ms: int = 0,
        endpoint_ms: int = 0,
    ) -> list[str]:
        t = TenantKeys(delivery.tenant)
        call = run(
            "hook_settle",
            (t.hooks, t.hook_prefix),
            delivery.endpoint,
            delivery.lane,
            delivery.mark,
            delivery.entry,
            "back" if attempt is None else attempt.outcome,
            claim_ms,
            lane_ms,
            endpoint_ms,
            ATTEMPTS_KEPT,
            *(() if attempt is None else _fields(attempt)),
        )
        answer: list[str] = (await self._funnel.batch(call, outbox_due(delivery.tenant)))[0]
        return answer

    async def standing(self, tenant: TenantId, id: HookId) -> HookStanding:
        names = ("entries", "bytes", "failures", "failing_since", "rests_until")
        entries, size, failures, since, until = await self._funnel.one(
            command("HMGET", TenantKeys(tenant).hook(id), *names)
        )
        return HookStanding(
            int(entries or 0),
            int(size or 0),
            int(failures or 0),
            int(since) if since else None,
            int(until) if until else None,
        )

    async def attempts(self, tenant: TenantId, id: HookId, *, before: str | None, limit: int) -> Sequence[Attempt]:
        newest = "+" if before is None else f"({before}"
        if before is not None and not _ID.fullmatch(before):
            return []
        found = await self._funnel.one(
            command("XREVRANGE", TenantKeys(tenant).hook_log(id), newest, "-", "COUNT", limit)
        )
        return [_attempt(*line) for line in found]

    async def attempt(self, tenant: TenantId, id: HookId, attempt: str) -> Attempt | None:
        if not _ID.fullmatch(attempt):
            return None
        found = await self._funnel.one(command("XRANGE", TenantKeys(tenant).hook_log(id), attempt, attempt))
        return _attempt(*found[0]) if found else None

    async def again(self, tenant: TenantId, id: HookId, *attempts: Attempt) -> bool:
        t = TenantKeys(tenant)
        told = [part for one in attempts for part in (one.lane, one.entry)]
        call = run("hook_again", (t.hooks, t.hooks_wanted, t.hook_prefix), id, *told)
        answer = (await self._funnel.batch(call, outbox_due(tenant)))[0]
        if answer == "full":
            raise hook_queue_full()
        return bool(answer == "queued")

    async def note(self, tenant: TenantId, id: HookId, attempt: Attempt) -> str:
        t = TenantKeys(tenant)
        call = run("hook_log", (t.hooks, t.hook_prefix), id, ATTEMPTS_KEPT, *_fields(attempt))
        return str(await self._funnel.one(call))


def wanted_text(endpoint: HookEndpoint, queue_bytes: int) -> str:
    """What `outbox.lua` knows of an endpoint; empty for one that is disabled."""
    if not endpoint.enabled:
        return ""
    return f"{queue_bytes}|,{','.join(endpoint.events) or '*'},"


def _fields(attempt: Attempt) -> list[str | int]:
    fields: dict[str, str | int] = {
        "event": attempt.event,
        "type": attempt.type,
        "sequence": "" if attempt.sequence is None else attempt.sequence,
        "lane": attempt.lane,
        "attempt": attempt.attempt,
        "outcome": attempt.outcome,
        "status": "" if attempt.status is None else attempt.status,
        "problem": attempt.problem,
        "ms": attempt.milliseconds,
        "entry": attempt.entry,
    }
    return [part for pair in fields.items() for part in pair]


def _attempt(id: str, fields: dict[str, str]) -> Attempt:
    return Attempt(
        event=fields["event"],
        type=fields["type"],
        sequence=int(fields["sequence"]) if fields["sequence"] else None,
        lane=fields["lane"],
        attempt=int(fields["attempt"]),
        outcome=Outcome(fields["outcome"]),
        status=int(fields["status"]) if fields["status"] else None,
        problem=fields["problem"],
        milliseconds=int(fields["ms"]),
        entry=fields["entry"],
        id=id,
        at=datetime.fromtimestamp(int(id.partition("-")[0]) / 1000, UTC),
    )
