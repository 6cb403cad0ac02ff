"""What the stores promise of tenants, users and API keys, and of what each layer is configured with."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from orchestrator.domain.ids import KeyId, TenantId, UserId
from orchestrator.domain.tenancy import ApiKey, Tenant, User
from orchestrator.state.values import EVER, Page, Sealed, Span, StoredProvider, StoredSecret


class Tenants(Protocol):
    """Tenants, users, and API keys. A key is found by its id on every replica at once."""

    async def add_tenant(self, tenant: Tenant) -> Tenant:
        """Idempotent by id: a tenant that is there is answered instead."""
        ...

    async def change_tenant(self, tenant: Tenant, *, expected_version: int, at: datetime | None = None) -> bool:
        """Replace the stored one, if it has that version; False when it has another, or there is none of this id.
        Thresholds of its budget that what it spent in the month of `at` (None: now) has reached are told in the same
        step."""
        ...

    async def tenant(self, id: TenantId) -> Tenant | None: ...
    async def list_tenants(
        self, *, cursor: str | None, limit: int, span: Span = EVER, oldest_first: bool = True
    ) -> Page[Tenant]:
        """In the order of creation."""
        ...

    async def count_tenants(self, span: Span = EVER) -> int:
        """How many `list_tenants` has in all, at the same cost however many they are."""
        ...

    async def add_user(self, user: User) -> User:
        """Idempotent by id and by `external_id`: an existing user with the same one is answered instead."""
        ...

    async def user(self, tenant: TenantId, id: UserId) -> User | None: ...
    async def external_user(self, tenant: TenantId, external_id: str) -> User | None: ...
    async def list_users(
        self, tenant: TenantId, *, cursor: str | None, limit: int, span: Span = EVER, oldest_first: bool = True
    ) -> Page[User]:
        """In the order of creation."""
        ...

    async def count_users(self, tenant: TenantId, span: Span = EVER) -> int:
        """As `count_tenants`."""
        ...

    async def add_key(self, key: ApiKey) -> None: ...
    async def key(self, id: KeyId) -> ApiKey | None: ...
    async def list_keys(self, tenant: TenantId) -> Sequence[ApiKey]: ...
    async def replace_key(self, present: ApiKey, key: ApiKey) -> bool:
        """Write `key` over `present`, which has its id and tenant; False when that is not what is stored any more."""
        ...

    async def revoke_key(self, tenant: TenantId, id: KeyId) -> bool:
        """Idempotent; False when the tenant has no such key."""
        ...


class Configuration(Protocol):
    """Settings, secrets and git providers by layer. `user` None is the tenant's own layer."""

    async def settings(self, tenant: TenantId, user: UserId | None) -> tuple[Sealed | None, int]:
        """The sealed settings document of the layer and its version (0 when none)."""
        ...

    async def put_settings(
        self, tenant: TenantId, user: UserId | None, sealed: Sealed, *, expected_version: int, review: bool = False
    ) -> bool:
        """Compare-and-set; False when the version differs. `review`: whoever rests and is of this layer is looked at
        again (`Reviews`)."""
        ...

    async def generation(self, tenant: TenantId, user: UserId | None) -> str:
        """Of what a runtime of this user is configured with: another text after every change of the tenant's or the
        user's layer. To be compared, and for nothing else."""
        ...

    async def secret(self, tenant: TenantId, user: UserId | None, name: str) -> StoredSecret | None: ...
    async def secrets(self, tenant: TenantId, user: UserId | None) -> Sequence[StoredSecret]:
        """In the order in which the names first came."""
        ...

    async def put_secret(
        self, tenant: TenantId, user: UserId | None, secret: StoredSecret, *, expected_version: int
    ) -> bool:
        """Compare-and-set on the version of this name (0: must not exist). `secret.version` is the new one."""
        ...

    async def delete_secret(
        self, tenant: TenantId, user: UserId | None, name: str, *, expected_version: int | None = None
    ) -> bool:
        """False when there is none, or (unless None) it has another version."""
        ...

    async def providers(self, tenant: TenantId, user: UserId | None) -> Sequence[StoredProvider]: ...
    async def put_provider(
        self, tenant: TenantId, user: UserId | None, provider: StoredProvider, *, expected_version: int
    ) -> bool: ...
    async def delete_provider(
        self, tenant: TenantId, user: UserId | None, name: str, *, expected_version: int | None = None
    ) -> bool:
        """As `delete_secret`."""
        ...

    async def data_key(self, tenant: TenantId, version: int) -> str | None:
        """The tenant's wrapped data key of that version (`security/envelope.py`)."""
        ...

    async def add_data_key(self, tenant: TenantId, version: int, wrapped: str) -> str:
        """Store it unless one is there; answers the one that is stored."""
        ...
