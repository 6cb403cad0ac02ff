"""Settings, secrets, git providers and data keys in memory. See `base.Configuration`."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from orchestrator.domain.ids import TenantId, UserId
from orchestrator.state.base import Sealed, StoredProvider, StoredSecret

Layer = tuple[TenantId, UserId | None]


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...


N = TypeVar("N", bound=_Named)


class MemoryConfiguration:
    def __init__(self) -> None:
        self._settings: dict[Layer, tuple[Sealed, int]] = {}
        self._secrets: dict[Layer, dict[str, StoredSecret]] = {}
        self._providers: dict[Layer, dict[str, StoredProvider]] = {}
        self._data_keys: dict[tuple[TenantId, int], str] = {}

    async def settings(self, tenant: TenantId, user: UserId | None) -> tuple[Sealed | None, int]:
        return self._settings.get((tenant, user), (None, 0))

    async def put_settings(
        self, tenant: TenantId, user: UserId | None, sealed: Sealed, *, expected_version: int
    ) -> bool:
        if self._settings.get((tenant, user), ("", 0))[1] != expected_version:
            return False
        self._settings[tenant, user] = (sealed, expected_version + 1)
        return True

    async def secret(self, tenant: TenantId, user: UserId | None, name: str) -> StoredSecret | None:
        return self._secrets.get((tenant, user), {}).get(name)

    async def secrets(self, tenant: TenantId, user: UserId | None) -> Sequence[StoredSecret]:
        return list(self._secrets.get((tenant, user), {}).values())

    async def put_secret(
        self, tenant: TenantId, user: UserId | None, secret: StoredSecret, *, expected_version: int
    ) -> bool:
        return _put(self._secrets.setdefault((tenant, user), {}), secret, expected_version)

    async def delete_secret(self, tenant: TenantId, user: UserId | None, name: str) -> bool:
        return self._secrets.get((tenant, user), {}).pop(name, None) is not None

    async def providers(self, tenant: TenantId, user: UserId | None) -> Sequence[StoredProvider]:
        return list(self._providers.get((tenant, user), {}).values())

    async def put_provider(
        self, tenant: TenantId, user: UserId | None, provider: StoredProvider, *, expected_version: int
    ) -> bool:
        return _put(self._providers.setdefault((tenant, user), {}), provider, expected_version)

    async def delete_provider(self, tenant: TenantId, user: UserId | None, name: str) -> bool:
        return self._providers.get((tenant, user), {}).pop(name, None) is not None

    async def data_key(self, tenant: TenantId, version: int) -> str | None:
        return self._data_keys.get((tenant, version))

    async def add_data_key(self, tenant: TenantId, version: int, wrapped: str) -> str:
        return self._data_keys.setdefault((tenant, version), wrapped)


def _put(layer: dict[str, N], value: N, expected_version: int) -> bool:
    stored = layer.get(value.name)
    if (stored.version if stored is not None else 0) != expected_version:
        return False
    layer[value.name] = value  # an assignment keeps the place that the name has
    return True
