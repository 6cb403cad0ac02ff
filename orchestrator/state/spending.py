"""What conversations used, and what their tenants and users spent, in Redis. See `base.Spending`; how it is counted is
in `scripts/spending.lua`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from orchestrator.domain.clock import rfc3339
from orchestrator.domain.hooks import threshold_frame
from orchestrator.domain.ids import ConversationId, TenantId, UserId
from orchestrator.domain.spending import LEDGER_TTL_MS, MONTHS_KEPT, NOTHING, Month, Spent, month_of
from orchestrator.state.funnel import Call, Funnel, command, run
from orchestrator.state.hooks import outbox_due
from orchestrator.state.keys import TenantKeys
from orchestrator.state.refusals import no_conversation
from orchestrator.state.values import StoredEvent

_USED = ("used_micros", "used_prompt", "used_completion")
_LEDGER = ("micros", "prompt", "completion")


def at_text(tenant: TenantId, at: datetime) -> str:
    """`at` of `scripts/spending.lua`."""
    month, (head, neck, tail) = month_of(at), threshold_frame(tenant, at)
    frame = {"head": head, "neck": neck, "tail": tail, "resets_at": rfc3339(month.ends)}
    kept = {"month": month.name, "oldest": month.later(-MONTHS_KEPT).name, "ttl_ms": LEDGER_TTL_MS}
    return json.dumps({"tenant": tenant, **kept, **frame}, separators=(",", ":"))


def used_text(spent: Spent | None) -> str:
    """As `scripts/events_append.lua` has it."""
    return "" if spent is None else f"{spent.micros},{spent.prompt_tokens},{spent.completion_tokens}"


def growing(events: Sequence[StoredEvent]) -> Iterator[StoredEvent]:
    """The same, each with the highest that was said up to there: the last that is kept has it all."""
    highest = NOTHING
    for event in events:
        if event.spent is not None:
            highest = highest.up_to(event.spent)
            event = replace(event, spent=highest)
        yield event


def months_kept() -> list[str]:
    """The names of those whose ledgers there may be, and of the next."""
    now = month_of(datetime.now(UTC))
    return [now.later(months).name for months in range(-MONTHS_KEPT, 2)]


def ledgers_of(t: TenantKeys, user: UserId | None) -> list[str]:
    """The keys of all that there may be."""
    return [t.ledger(month, user) for month in months_kept()]


def ledger_body(ledger: Mapping[str, str]) -> str:
    """The entry of the journal of a ledger."""
    return json.dumps([part for pair in ledger.items() for part in pair], separators=(",", ":"))


def ledger_calls(t: TenantKeys, month: str, user: UserId | None, body: str) -> Sequence[Call]:
    """A ledger written anew from its entry of the journal."""
    key = t.ledger(month, user)
    return command("HSET", key, *json.loads(body)), command("PEXPIRE", key, LEDGER_TTL_MS)


def used_nothing() -> list[str]:
    """The fields of a conversation that is counted from now on. One without them was made by a version that counted
    nothing: what it tells first is of the past."""
    return [part for name in _USED for part in (name, "0")]


def used_call(t: TenantKeys, id: ConversationId, body: str) -> Call:
    """What a conversation used, from its entry of the journal."""
    pairs = [part for pair in zip(_USED, json.loads(body), strict=True) for part in pair]
    return command("HSET", t.conversation(id), *pairs)


def used_fields(t: TenantKeys, id: ConversationId) -> Call:
    return command("HMGET", t.conversation(id), *_USED)


def used_body(found: Sequence[str | None]) -> str | None:
    """The entry of the journal of what `used_fields` answered; None where nothing was used."""
    parts = [part or "0" for part in found]
    return f"[{','.join(parts)}]" if any(part != "0" for part in parts) else None


class RedisSpending:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def report(self, tenant: TenantId, id: ConversationId, spent: Spent, *, at: datetime) -> None:
        t = TenantKeys(tenant)
        call = run(
            "spending_report",
            (t.conversation(id), t.tenant, t.ledgers, t.hooks_wanted, t.hook_prefix),
            id,
            at_text(tenant, at),
            spent.micros,
            spent.prompt_tokens,
            spent.completion_tokens,
            journal=t.journal,
        )
        if (await self._funnel.batch(call, outbox_due(tenant), durable=True))[0] < 0:
            raise no_conversation()

    async def of_conversation(self, tenant: TenantId, id: ConversationId) -> Spent:
        return _spent(await self._funnel.one(used_fields(TenantKeys(tenant), id)))

    async def of(self, tenant: TenantId, user: UserId | None, month: Month) -> Spent:
        return _spent(await self._funnel.one(command("HMGET", TenantKeys(tenant).ledger(month.name, user), *_LEDGER)))


def _spent(found: Sequence[str | None]) -> Spent:
    micros, prompt, completion = (int(part or 0) for part in found)
    return Spent(micros, prompt, completion)
