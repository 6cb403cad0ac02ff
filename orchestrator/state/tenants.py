"""Tenants, users and API keys in Redis. See `base.Tenants` for what callers may rely on."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from orchestrator.domain.ids import KeyId, TenantId, UserId
from orchestrator.domain.tenancy import ApiKey, Tenant, User
from orchestrator.state import cursor as cursors
from orchestrator.state import keys, records
from orchestrator.state.base import EVER, Page, Span
from orchestrator.state.funnel import Funnel, command, run
from orchestrator.state.hooks import outbox_due
from orchestrator.state.journal.stream import house_note
from orchestrator.state.keys import TenantKeys
from orchestrator.state.spending import at_text


class RedisTenants:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def add_tenant(self, tenant: Tenant) -> Tenant:
        t, entry = TenantKeys(tenant.id), cursors.member(tenant.created_at, tenant.id)
        # The list entry first: an entry without a tenant is skipped, a tenant without an entry would be lost.
        _, text = await self._funnel.batch(
            command("ZADD", keys.TENANTS, 0, entry),
            run("tenant_add", (t.tenant,), tenant.id, records.tenant_text(tenant), journal=t.journal),
            durable=True,
        )
        stored = records.tenant_from(text)
        if cursors.member(stored.created_at, stored.id) != entry:  # it was there, and is listed already
            await self._funnel.one(command("ZREM", keys.TENANTS, entry))
        return stored

    async def change_tenant(self, tenant: Tenant, *, expected_version: int, at: datetime | None = None) -> bool:
        t, text = TenantKeys(tenant.id), records.tenant_text(tenant)
        keys = (t.tenant, t.ledgers, t.hooks_wanted, t.hook_prefix)
        now = at_text(tenant.id, at or datetime.now(UTC))
        call = run("tenant_change", keys, tenant.id, text, expected_version, now, journal=t.journal)
        return bool((await self._funnel.batch(call, outbox_due(tenant.id), durable=True))[0])

    async def tenant(self, id: TenantId) -> Tenant | None:
        text = await self._funnel.one(command("GET", TenantKeys(id).tenant))
        return None if text is None else records.tenant_from(text)

    async def list_tenants(
        self, *, cursor: str | None, limit: int, span: Span = EVER, oldest_first: bool = True
    ) -> Page[Tenant]:
        entries, following = await self._entries(keys.TENANTS, cursor, limit, span, oldest_first=oldest_first)
        ids = [TenantId(cursors.member_id(entry)) for entry in entries]
        texts = await self._funnel.batch(*(command("GET", TenantKeys(id).tenant) for id in ids)) if ids else []
        return Page(records.readable(records.tenant_from, (text for text in texts if text is not None)), following)

    async def count_tenants(self, span: Span = EVER) -> int:
        return await self._count(keys.TENANTS, span)

    async def add_user(self, user: User) -> User:
        t = TenantKeys(user.tenant)
        text = await self._funnel.one(
            run(
                "user_add",
                (t.users, t.user_index, t.external_ids),
                user.id,
                user.external_id or "",
                cursors.member(user.created_at, user.id),
                records.user_text(user),
                journal=t.journal,
            ),
            durable=True,
        )
        return records.user_from(text)

    async def user(self, tenant: TenantId, id: UserId) -> User | None:
        text = await self._funnel.one(command("HGET", TenantKeys(tenant).users, id))
        return None if text is None else records.user_from(text)

    async def external_user(self, tenant: TenantId, external_id: str) -> User | None:
        id = await self._funnel.one(command("HGET", TenantKeys(tenant).external_ids, external_id))
        return None if id is None else await self.user(tenant, UserId(id))

    async def list_users(
        self, tenant: TenantId, *, cursor: str | None, limit: int, span: Span = EVER, oldest_first: bool = True
    ) -> Page[User]:
        t = TenantKeys(tenant)
        entries, following = await self._entries(t.user_index, cursor, limit, span, oldest_first=oldest_first)
        ids = [cursors.member_id(entry) for entry in entries]
        texts = await self._funnel.one(command("HMGET", t.users, *ids)) if ids else []
        return Page(records.readable(records.user_from, (text for text in texts if text is not None)), following)

    async def count_users(self, tenant: TenantId, span: Span = EVER) -> int:
        return await self._count(TenantKeys(tenant).user_index, span)

    async def add_key(self, key: ApiKey) -> None:
        # The pointer first: one that leads nowhere is harmless, a key without one could not be found.
        text = records.api_key_text(key)
        if key.tenant is None:
            stored = [house_note("key", key.id, text), command("HSET", keys.OPERATOR_KEYS, key.id, text)]
        else:
            t = TenantKeys(key.tenant)
            stored = [run("key_add", (t.api_keys,), key.id, text, journal=t.journal)]
        await self._funnel.batch(command("SET", keys.key_owner(key.id), key.tenant or ""), *stored, durable=True)

    async def key(self, id: KeyId) -> ApiKey | None:
        owner = await self._funnel.one(command("GET", keys.key_owner(id)))
        if owner is None:
            return None
        text = await self._funnel.one(command("HGET", _home(TenantId(owner) if owner else None), id))
        return None if text is None else records.api_key_from(text)

    async def list_keys(self, tenant: TenantId) -> Sequence[ApiKey]:
        texts = await self._funnel.one(command("HVALS", TenantKeys(tenant).api_keys))
        return sorted(records.readable(records.api_key_from, texts), key=lambda key: (key.created_at, key.id))

    async def replace_key(self, present: ApiKey, key: ApiKey) -> bool:
        if key.tenant is None:
            raise ValueError("only a tenant's key is replaced")
        t = TenantKeys(key.tenant)
        text = await self._funnel.one(command("HGET", t.api_keys, key.id))
        if text is None or records.api_key_from(text) != present:
            return False
        return await self._replace_key(t, key.id, text, key)

    async def revoke_key(self, tenant: TenantId, id: KeyId) -> bool:
        t = TenantKeys(tenant)
        while True:
            text = await self._funnel.one(command("HGET", t.api_keys, id))
            if text is None:
                return False
            revoked = replace(records.api_key_from(text), revoked=True)
            if await self._replace_key(t, id, text, revoked):
                return True

    async def _replace_key(self, t: TenantKeys, id: KeyId, text: str, key: ApiKey) -> bool:
        call = run("key_replace", (t.api_keys,), id, text, records.api_key_text(key), journal=t.journal)
        return bool(await self._funnel.one(call, durable=True))

    async def _count(self, index: str, span: Span) -> int:
        return int(await self._funnel.one(command("ZLEXCOUNT", index, *cursors.bounds(None, span.since, span.until))))

    async def _entries(
        self, index: str, cursor: str | None, limit: int, span: Span, *, oldest_first: bool
    ) -> tuple[list[str], str | None]:
        low, high = cursors.bounds(cursor, span.since, span.until, oldest_first=oldest_first)
        ordered = ("ZRANGEBYLEX", index, low, high) if oldest_first else ("ZREVRANGEBYLEX", index, high, low)
        entries = await self._funnel.one(command(*ordered, "LIMIT", 0, limit + 1))
        return entries[:limit], cursors.encode(entries[limit - 1]) if len(entries) > limit else None


def _home(tenant: TenantId | None) -> str:
    return keys.OPERATOR_KEYS if tenant is None else TenantKeys(tenant).api_keys
