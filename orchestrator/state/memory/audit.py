"""The audit log in memory. See `base.AuditLog`."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from orchestrator.domain.audit import AuditEntry, tail_of
from orchestrator.domain.ids import TenantId
from orchestrator.state import cursor as cursors
from orchestrator.state.audit import Telling, bounds, written_in
from orchestrator.state.base import Page
from orchestrator.state.memory.shelf import Shelf


class MemoryAuditLog:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def put(self, tenant: TenantId | None, told: Telling, *, again: bool = False, durable: bool = False) -> None:
        self._shelf.tell_of(tenant, told, tail_of(None, None), again=again)

    async def page(
        self,
        tenant: TenantId | None,
        *,
        cursor: str | None,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Page[AuditEntry]:
        start, end = bounds(cursor, since, until)
        kept = self._shelf.audits.get(tenant, {})
        found = sorted((one for one in kept if _within(one, start, end)), reverse=True)
        following = cursors.encode(found[limit - 1]) if len(found) > limit else None
        return Page(written_in([kept[one] for one in found[:limit]]), following)

    async def many(self, tenant: TenantId | None, ids: Sequence[str]) -> Mapping[str, AuditEntry]:
        kept = self._shelf.audits.get(tenant, {})
        texts = [kept[one] for one in kept if cursors.member_id(one) in ids]
        return {entry.id: entry for entry in written_in(texts)}


def _within(member: str, start: str, end: str) -> bool:
    return (start == "+" or member < start[1:]) and (end == "-" or member >= end[1:])
