"""Settings, secrets, git providers and data keys in memory. See `base.Configuration`."""

import json
from collections.abc import Sequence
from typing import Protocol, TypeVar

from orchestrator.domain.ids import TenantId, UserId
from orchestrator.state.base import Sealed, StoredProvider, StoredSecret
from orchestrator.state.memory.shelf import Shelf

Layer = tuple[TenantId, UserId | None]


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...


N = TypeVar("N", bound=_Named)


class MemoryConfiguration:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._places: dict[tuple[str, Layer], dict[str, int]] = {}
        self._settings: dict[Layer, tuple[Sealed, int]] = {}
        self._secrets: dict[Layer, dict[str, StoredSecret]] = {}
        self._providers: dict[Layer, dict[str, StoredProvider]] = {}
        self._generations: dict[Layer, int] = {}
        self._data_keys: dict[tuple[TenantId, int], str] = {}

    async def settings(self, tenant: TenantId, user: UserId | None) -> tuple[Sealed | None, int]:
        return self._settings.get((tenant, user), (None, 0))

    async def put_settings(
        self, tenant: TenantId, user: UserId | None, sealed: Sealed, *, expected_version: int, review: bool = False
    ) -> bool:
        if review:
            self._shelf.reviews[tenant, user] = None
        if self._settings.get((tenant, user), ("", 0))[1] != expected_version:
            return False
        self._settings[tenant, user] = (sealed, expected_version + 1)
        self._next((tenant, user))
        self._shelf.note(tenant, "settings", user or "", f"{expected_version + 1}:{sealed}")
        return True

    async def generation(self, tenant: TenantId, user: UserId | None) -> str:
        of_user = 0 if user is None else self._generations.get((tenant, user), 0)
        return f"{self._generations.get((tenant, None), 0)}.{of_user}"

    def _next(self, layer: Layer) -> None:
        self._generations[layer] = max(self._generations.get(layer, 0) + 1, self._shelf.now_ms())

    async def secret(self, tenant: TenantId, user: UserId | None, name: str) -> StoredSecret | None:
        return self._secrets.get((tenant, user), {}).get(name)

    async def secrets(self, tenant: TenantId, user: UserId | None) -> Sequence[StoredSecret]:
        return list(self._secrets.get((tenant, user), {}).values())

    async def put_secret(
        self, tenant: TenantId, user: UserId | None, secret: StoredSecret, *, expected_version: int
    ) -> bool:
        if not _put(self._secrets.setdefault((tenant, user), {}), secret, expected_version):
            return False
        text = json.dumps({"description": secret.description, "sealed": secret.sealed})
        self._note("secret", (tenant, user), secret, text)
        return True

    async def delete_secret(
        self, tenant: TenantId, user: UserId | None, name: str, *, expected_version: int | None = None
    ) -> bool:
        gone = _pop(self._secrets.get((tenant, user), {}), name, expected_version)
        return gone and self._note_gone("secret", (tenant, user), name)

    async def providers(self, tenant: TenantId, user: UserId | None) -> Sequence[StoredProvider]:
        return list(self._providers.get((tenant, user), {}).values())

    async def put_provider(
        self, tenant: TenantId, user: UserId | None, provider: StoredProvider, *, expected_version: int
    ) -> bool:
        if not _put(self._providers.setdefault((tenant, user), {}), provider, expected_version):
            return False
        text = json.dumps({"host": provider.host, "user_id": provider.user_id, "sealed": provider.sealed})
        self._note("provider", (tenant, user), provider, text)
        return True

    async def delete_provider(
        self, tenant: TenantId, user: UserId | None, name: str, *, expected_version: int | None = None
    ) -> bool:
        gone = _pop(self._providers.get((tenant, user), {}), name, expected_version)
        return gone and self._note_gone("provider", (tenant, user), name)

    async def data_key(self, tenant: TenantId, version: int) -> str | None:
        return self._data_keys.get((tenant, version))

    async def add_data_key(self, tenant: TenantId, version: int, wrapped: str) -> str:
        if (tenant, version) not in self._data_keys:
            self._data_keys[tenant, version] = wrapped
            self._shelf.note(tenant, "data_key", str(version), wrapped)
        return self._data_keys[tenant, version]

    def _note(self, kind: str, layer: Layer, value: _Named, text: str) -> None:
        """A name keeps its place for as long as it is there; places are never given again."""
        self._next(layer)
        places = self._places.setdefault((kind, layer), {"#": 0})
        if value.name not in places:
            places["#"] += 1
            places[value.name] = places["#"]
        body = f"{places[value.name]}:{value.version}:{text}"
        self._shelf.note(layer[0], kind, f"{layer[1] or ''}|{value.name}", body)

    def _note_gone(self, kind: str, layer: Layer, name: str) -> bool:
        self._next(layer)
        places = self._places[kind, layer]
        del places[name]
        if len(places) == 1:
            del self._places[kind, layer]  # with the last value the count goes too
        self._shelf.note(layer[0], kind, f"{layer[1] or ''}|{name}", None)
        return True


def _put(layer: dict[str, N], value: N, expected_version: int) -> bool:
    stored = layer.get(value.name)
    if (stored.version if stored is not None else 0) != expected_version:
        return False
    layer[value.name] = value  # an assignment keeps the place that the name has
    return True


def _pop(layer: dict[str, N], name: str, expected_version: int | None) -> bool:
    stored = layer.get(name)
    if stored is None or expected_version not in (None, stored.version):
        return False
    del layer[name]
    return True
