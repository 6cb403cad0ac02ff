"""One layer's settings, secrets and git providers: read, changed, sealed. `user` None is the tenant's own layer.

Values are sealed before they reach the store and opened only by the methods that say so. Every change is a
compare-and-set, repeated a few times when somebody else was faster.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.domain.conditions import ALWAYS, Condition
from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.git import GitProvider
from orchestrator.domain.ids import TenantId, UserId
from orchestrator.domain.retention import times_at_rest
from orchestrator.domain.secrets import SecretText
from orchestrator.domain.settings import Document, apply_change, wrap_secrets
from orchestrator.nested.wire import reveal
from orchestrator.state.base import Configuration, StoredProvider, StoredSecret

_TRIES = 8


class Sealer(Protocol):
    """`security/envelope.py`, as far as layers need it."""

    async def seal(
        self, tenant: TenantId, user: UserId | None, kind: str, name: str, version: int, value: SecretText
    ) -> str: ...

    async def open(
        self, tenant: TenantId, user: UserId | None, kind: str, name: str, version: int, sealed: str
    ) -> SecretText: ...


async def _settled(attempt: Callable[[], Awaitable[bool]], what: str) -> None:
    for _ in range(_TRIES):
        if await attempt():
            return
    raise Conflict(f"{what} is being changed by somebody else", hint="try again")


class SettingsLayer:
    """The settings document of a layer, sealed as a whole: an API key in it is never in the clear at rest."""

    def __init__(self, store: Configuration, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    async def read(self, tenant: TenantId, user: UserId | None) -> tuple[Document, int]:
        """The document with its secrets as `SecretText`, and its version; `{}` and 0 when nothing is stored."""
        sealed, version = await self._store.settings(tenant, user)
        if sealed is None:
            return {}, 0
        opened = await self._sealer.open(tenant, user, "settings", "document", version, sealed)
        document: Document = wrap_secrets(json.loads(opened.open()))
        return document, version

    async def change(
        self, tenant: TenantId, user: UserId | None, change: Mapping[str, Any], *, condition: Condition = ALWAYS
    ) -> tuple[Document, int]:
        """Apply a merge patch; answers the new document and version. Raises `Conflict`, `PreconditionFailed`."""
        result: list[tuple[Document, int]] = []

        async def attempt() -> bool:
            document, version = await self.read(tenant, user)
            if condition.exists is not True:  # there is always a document, if an empty one
                condition.check(version, "the settings document")
            changed = apply_change(document, change)
            result[:] = [(changed, version + 1)]
            review = times_at_rest(document.get("limits")) != times_at_rest(changed.get("limits"))
            return await self._put(tenant, user, changed, version, review=review)

        await _settled(attempt, "the settings document")
        return result[0]

    async def _put(
        self, tenant: TenantId, user: UserId | None, document: Document, version: int, *, review: bool
    ) -> bool:
        text = SecretText(json.dumps(reveal(document), separators=(",", ":")))
        sealed = await self._sealer.seal(tenant, user, "settings", "document", version + 1, text)
        return await self._store.put_settings(tenant, user, sealed, expected_version=version, review=review)


@dataclass(frozen=True)
class SecretEntry:
    """A secret without its value."""

    name: str
    description: str | None
    version: int


class SecretsLayer:
    """Named secrets of a layer."""

    def __init__(self, store: Configuration, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    async def entries(self, tenant: TenantId, user: UserId | None) -> list[SecretEntry]:
        stored = await self._store.secrets(tenant, user)
        return [SecretEntry(item.name, item.description, item.version) for item in stored]

    async def open_all(self, tenant: TenantId, user: UserId | None) -> dict[str, SecretText]:
        """Every value of the layer, opened."""
        return {
            item.name: await self._sealer.open(tenant, user, "secret", item.name, item.version, item.sealed)
            for item in await self._store.secrets(tenant, user)
        }

    async def put(
        self,
        tenant: TenantId,
        user: UserId | None,
        name: str,
        value: SecretText,
        description: str | None,
        *,
        condition: Condition = ALWAYS,
    ) -> SecretEntry:
        """Make or replace. A description that is not given stays. Raises `Conflict`, `PreconditionFailed`."""
        result: list[SecretEntry] = []

        async def attempt() -> bool:
            present = await self._store.secret(tenant, user, name)
            version = present.version if present else 0
            condition.check(version, "the secret")
            kept = description if description is not None else (present.description if present else None)
            sealed = await self._sealer.seal(tenant, user, "secret", name, version + 1, value)
            result[:] = [SecretEntry(name, kept, version + 1)]
            return await self._store.put_secret(
                tenant, user, StoredSecret(name, kept, sealed, version + 1), expected_version=version
            )

        await _settled(attempt, f"the secret {name}")
        return result[0]

    async def create(
        self, tenant: TenantId, user: UserId | None, name: str, value: SecretText, description: str | None
    ) -> bool:
        """Make it unless the name is taken; False when it is."""
        sealed = await self._sealer.seal(tenant, user, "secret", name, 1, value)
        return await self._store.put_secret(
            tenant, user, StoredSecret(name, description, sealed, 1), expected_version=0
        )

    async def open_one(self, tenant: TenantId, user: UserId | None, name: str) -> SecretText:
        """One value, opened; raises `NotFound`."""
        stored = await self._store.secret(tenant, user, name)
        if stored is None:
            raise NotFound("there is no such secret")
        return await self._sealer.open(tenant, user, "secret", name, stored.version, stored.sealed)

    async def entry(self, tenant: TenantId, user: UserId | None, name: str) -> SecretEntry:
        """One without its value. Raises `NotFound`."""
        stored = await self._store.secret(tenant, user, name)
        if stored is None:
            raise NotFound("there is no such secret")
        return SecretEntry(stored.name, stored.description, stored.version)

    async def delete(self, tenant: TenantId, user: UserId | None, name: str, *, condition: Condition = ALWAYS) -> None:
        """Raises `NotFound` when there was none, `Conflict`, `PreconditionFailed`."""

        async def attempt() -> bool:
            if not condition.is_some:  # also one that cannot be read
                if await self._store.delete_secret(tenant, user, name):
                    return True
                raise NotFound("there is no such secret")
            version = (await self.entry(tenant, user, name)).version
            condition.check(version, "the secret")
            return await self._store.delete_secret(tenant, user, name, expected_version=version)

        await _settled(attempt, f"the secret {name}")


class ProvidersLayer:
    """Git providers of a layer."""

    def __init__(self, store: Configuration, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    async def entries(self, tenant: TenantId, user: UserId | None) -> list[StoredProvider]:
        return list(await self._store.providers(tenant, user))

    async def open_all(self, tenant: TenantId, user: UserId | None) -> list[GitProvider]:
        """Every provider of the layer with its token opened."""
        return [
            GitProvider(
                item.name,
                await self._sealer.open(tenant, user, "provider", item.name, item.version, item.sealed),
                item.host,
                item.user_id,
            )
            for item in await self._store.providers(tenant, user)
        ]

    async def put(
        self,
        tenant: TenantId,
        user: UserId | None,
        name: str,
        *,
        token: SecretText | None,
        host: str | None,
        user_id: str | None,
        condition: Condition = ALWAYS,
    ) -> StoredProvider:
        """Make or replace. Without a token the stored one stays; raises `NotFound` when there is none, `Conflict`,
        `PreconditionFailed`."""
        result: list[StoredProvider] = []

        async def attempt() -> bool:
            present = await self._find(tenant, user, name)
            version = present.version if present else 0
            condition.check(version, "the git provider")
            value = token
            if value is None:
                if present is None:
                    raise NotFound(f"no token is stored for {name}", hint="send one")
                value = await self._sealer.open(tenant, user, "provider", name, version, present.sealed)
            sealed = await self._sealer.seal(tenant, user, "provider", name, version + 1, value)
            stored = StoredProvider(name, host, user_id, sealed, version + 1)
            result[:] = [stored]
            return await self._store.put_provider(tenant, user, stored, expected_version=version)

        await _settled(attempt, f"the git provider {name}")
        return result[0]

    async def entry(self, tenant: TenantId, user: UserId | None, name: str) -> StoredProvider:
        """One, its token sealed. Raises `NotFound`."""
        found = await self._find(tenant, user, name)
        if found is None:
            raise NotFound("there is no such git provider")
        return found

    async def delete(self, tenant: TenantId, user: UserId | None, name: str, *, condition: Condition = ALWAYS) -> None:
        """Raises `NotFound` when there was none, `Conflict`, `PreconditionFailed`."""

        async def attempt() -> bool:
            if not condition.is_some:  # also one that cannot be read
                if await self._store.delete_provider(tenant, user, name):
                    return True
                raise NotFound("there is no such git provider")
            version = (await self.entry(tenant, user, name)).version
            condition.check(version, "the git provider")
            return await self._store.delete_provider(tenant, user, name, expected_version=version)

        await _settled(attempt, f"the git provider {name}")

    async def _find(self, tenant: TenantId, user: UserId | None, name: str) -> StoredProvider | None:
        return next((item for item in await self._store.providers(tenant, user) if item.name == name), None)


class Layers:
    """The three of them over one store."""

    def __init__(self, store: Configuration, sealer: Sealer) -> None:
        self.settings = SettingsLayer(store, sealer)
        self.secrets = SecretsLayer(store, sealer)
        self.providers = ProvidersLayer(store, sealer)
