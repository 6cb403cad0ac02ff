"""What is stored: records that cannot be read, undos that are stuck, configuration that a runtime does not take, and
webhooks that nobody hears."""

import asyncio
from collections.abc import AsyncIterator

from orchestrator.app.doctor.finding import Finding, Level, from_error
from orchestrator.domain.errors import NestorError
from orchestrator.domain.ids import TenantId
from orchestrator.state.redis_store import RedisStore
from orchestrator.state.survey import Ailing

_SHOWN = 20  #: of each kind
_LATE_SECONDS = 60.0
_SETTLE_SECONDS = 3.0


async def look(store: RedisStore | None) -> list[Finding]:
    """Every conversation and every webhook of every tenant."""
    if store is None:
        return []
    findings: list[Finding] = []
    try:
        late = (await store.figures()).overdue_seconds
        slots: set[tuple[TenantId, str]] = set()
        async for tenant in _tenants(store):
            async for ailing in store.ailing(tenant):
                findings += _told(tenant, ailing)
                slots |= {(tenant, ailing.id)} if ailing.holds_slot else set()
            findings += await _webhooks(store, tenant)
        findings += await _slots(store, slots)
    except NestorError as exc:
        return [*_shown(findings), from_error("records", exc)]
    if late > _LATE_SECONDS:
        words = f"work is {late:.0f} s late"
        hint = "is an orchestrator running? If so it has more to do than it can: add replicas"
        findings.append(Finding("due", Level.WARNING, words, hint))
    return _shown(findings) or [Finding("records", Level.OK, "all can be read, and nothing of them is stuck")]


async def _slots(store: RedisStore, seen: set[tuple[TenantId, str]]) -> list[Finding]:
    """Places of conversations of which nothing runs, looked at twice: between two writes that is usual."""
    if not seen:
        return []
    await asyncio.sleep(_SETTLE_SECONDS)
    still: set[tuple[TenantId, str]] = set()
    for tenant in {tenant for tenant, _ in seen}:
        still |= {(tenant, ailing.id) async for ailing in store.ailing(tenant) if ailing.holds_slot}
    hint = "it counts against limits for nothing: start the conversation and stop it, or delete it"
    return [
        Finding("slot", Level.WARNING, f"{id} of tenant {tenant} holds a place, and nothing of it runs", hint)
        for tenant, id in sorted(seen & still)
    ]


async def _tenants(store: RedisStore) -> AsyncIterator[TenantId]:
    cursor: str | None = None
    while True:
        page = await store.tenants.list_tenants(cursor=cursor, limit=100)
        for tenant in page.items:
            yield tenant.id
        if (cursor := page.next_cursor) is None:
            return


def _told(tenant: TenantId, ailing: Ailing) -> list[Finding]:
    name, found = f"{ailing.id} of tenant {tenant}", []
    if (unreadable := ailing.unreadable) is not None:
        found.append(Finding("record", Level.FAILURE, f"{name}: {unreadable.message}", unreadable.hint or ""))
    for problem in ailing.stuck:
        hint = "it is tried again every few seconds: mend what it says"
        found.append(Finding("stuck undo", Level.WARNING, f"{name}: {problem}", hint))
    if ailing.not_pushed is not None:
        hint = "it is tried again, later each time; the next start of the conversation brings it in any case"
        found.append(Finding("configuration", Level.WARNING, f"{name}: {ailing.not_pushed}", hint))
    return found


async def _webhooks(store: RedisStore, tenant: TenantId) -> list[Finding]:
    """Those that were disabled because nobody took what they told."""
    return [
        Finding(
            "webhook",
            Level.WARNING,
            f"{one.id} of tenant {tenant} is disabled ({one.disabled_reason})",
            'the tenant mends its receiver, then PATCH /api/v2/webhooks/{id} {"enabled": true}',
        )
        for one in await store.hooks.all(tenant)
        if not one.enabled and one.disabled_reason != "requested"
    ]


def _shown(findings: list[Finding]) -> list[Finding]:
    """The first of each kind."""
    shown: list[Finding] = []
    for about in dict.fromkeys(one.about for one in findings):
        of_kind = [one for one in findings if one.about == about]
        shown += of_kind[:_SHOWN]
        if len(of_kind) > _SHOWN:
            shown.append(Finding(about, of_kind[0].level, f"and {len(of_kind) - _SHOWN} more"))
    return shown
