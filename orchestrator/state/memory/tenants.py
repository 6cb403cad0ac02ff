"""Tenants, users and API keys in memory. See `base.Tenants`."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from orchestrator.domain.ids import KeyId, TenantId, UserId
from orchestrator.domain.spending import month_of
from orchestrator.domain.tenancy import ApiKey, Tenant, User
from orchestrator.state import cursor as cursors
from orchestrator.state import records
from orchestrator.state.base import EVER, Page, Span
from orchestrator.state.memory import spending
from orchestrator.state.memory.shelf import Shelf

T = TypeVar("T", Tenant, User)


class MemoryTenants:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._tenants = shelf.tenants
        self._users: dict[TenantId, dict[UserId, User]] = {}
        self._keys: dict[KeyId, ApiKey] = {}

    async def add_tenant(self, tenant: Tenant) -> Tenant:
        if (present := self._tenants.get(tenant.id)) is not None:
            return present
        self._tenants[tenant.id] = tenant
        self._shelf.note(tenant.id, "tenant", tenant.id, records.tenant_text(tenant))
        return tenant

    async def change_tenant(self, tenant: Tenant, *, expected_version: int, at: datetime | None = None) -> bool:
        if tenant.id not in self._tenants or self._tenants[tenant.id].version != expected_version:
            return False
        self._tenants[tenant.id] = tenant
        self._shelf.note(tenant.id, "tenant", tenant.id, records.tenant_text(tenant))
        at = at or self._shelf.now()
        if spending.tell_reached(self._shelf, tenant.id, None, at):
            spending.note(self._shelf, tenant.id, None, month_of(at))
        return True

    async def tenant(self, id: TenantId) -> Tenant | None:
        return self._tenants.get(id)

    async def list_tenants(
        self, *, cursor: str | None, limit: int, span: Span = EVER, oldest_first: bool = True
    ) -> Page[Tenant]:
        return _page(self._tenants.values(), cursor, limit, span, oldest_first=oldest_first)

    async def count_tenants(self, span: Span = EVER) -> int:
        return len(_page(self._tenants.values(), None, len(self._tenants), span).items)

    async def add_user(self, user: User) -> User:
        users = self._users.setdefault(user.tenant, {})
        for stored in users.values():
            if stored.id == user.id or (user.external_id and stored.external_id == user.external_id):
                return stored
        users[user.id] = user
        self._shelf.note(user.tenant, "user", user.id, records.user_text(user))
        return user

    async def user(self, tenant: TenantId, id: UserId) -> User | None:
        return self._users.get(tenant, {}).get(id)

    async def external_user(self, tenant: TenantId, external_id: str) -> User | None:
        users = self._users.get(tenant, {}).values()
        return next((one for one in users if one.external_id == external_id), None)

    async def list_users(
        self, tenant: TenantId, *, cursor: str | None, limit: int, span: Span = EVER, oldest_first: bool = True
    ) -> Page[User]:
        return _page(self._users.get(tenant, {}).values(), cursor, limit, span, oldest_first=oldest_first)

    async def count_users(self, tenant: TenantId, span: Span = EVER) -> int:
        users = self._users.get(tenant, {}).values()
        return len(_page(users, None, len(users), span).items)

    async def add_key(self, key: ApiKey) -> None:
        self._note(key)

    async def key(self, id: KeyId) -> ApiKey | None:
        return self._keys.get(id)

    async def list_keys(self, tenant: TenantId) -> Sequence[ApiKey]:
        own = [key for key in self._keys.values() if key.tenant == tenant]
        return sorted(own, key=lambda key: (key.created_at, key.id))

    async def replace_key(self, present: ApiKey, key: ApiKey) -> bool:
        if self._keys.get(key.id) != present:
            return False
        self._note(key)
        return True

    async def revoke_key(self, tenant: TenantId, id: KeyId) -> bool:
        key = self._keys.get(id)
        if key is None or key.tenant != tenant:
            return False
        self._note(replace(key, revoked=True))
        return True

    def _note(self, key: ApiKey) -> None:
        self._keys[key.id] = key
        if key.tenant is not None:
            self._shelf.note(key.tenant, "key", key.id, records.api_key_text(key))


def _page(found: Collection[T], cursor: str | None, limit: int, span: Span, *, oldest_first: bool = True) -> Page[T]:
    entries = {cursors.member(one.created_at, one.id): one for one in found}
    bounds = cursors.bounds(cursor, span.since, span.until, oldest_first=oldest_first)
    names, following = cursors.page(entries, bounds, limit, oldest_first=oldest_first)
    return Page([entries[name] for name in names], following)
