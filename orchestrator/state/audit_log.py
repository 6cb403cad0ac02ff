"""The audit log in Redis. See `base.AuditLog`."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from orchestrator.domain.audit import AuditEntry, tail_of
from orchestrator.domain.ids import TenantId
from orchestrator.state import cursor as cursors
from orchestrator.state.audit import Telling, bounds, places, written_in
from orchestrator.state.base import Page
from orchestrator.state.funnel import Funnel, command, noted, run
from orchestrator.state.keys import TenantKeys


class RedisAuditLog:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def put(self, tenant: TenantId | None, told: Telling, *, again: bool = False, durable: bool = False) -> None:
        entries, index, stream = places(tenant)
        if told.home is not None and not again and await self._funnel.one(command("HEXISTS", entries, told.entry.id)):
            return  # a change has carried it: to ask costs no write to the disk
        arguments = (told.argument(), tail_of(None, None), "again" if again else "")
        call = run("audit_put", (entries, index, *((stream,) if stream else ())), *arguments)
        if tenant is not None:
            call = noted(call, TenantKeys(tenant).journal)
        await self._funnel.one(call, durable=durable)

    async def page(
        self,
        tenant: TenantId | None,
        *,
        cursor: str | None,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Page[AuditEntry]:
        entries, index, _ = places(tenant)
        start, end = bounds(cursor, since, until)
        members = await self._funnel.one(command("ZREVRANGEBYLEX", index, start, end, "LIMIT", 0, limit + 1))
        ids = [cursors.member_id(member) for member in members[:limit]]
        texts = await self._funnel.one(command("HMGET", entries, *ids)) if ids else []
        return Page(written_in(texts), cursors.encode(members[limit - 1]) if len(members) > limit else None)

    async def many(self, tenant: TenantId | None, ids: Sequence[str]) -> Mapping[str, AuditEntry]:
        entries, _, _ = places(tenant)
        texts = await self._funnel.one(command("HMGET", entries, *ids)) if ids else []
        return {entry.id: entry for entry in written_in(texts)}
