"""Settings, secrets, git providers and data keys in Redis. All values come sealed; see `base.Configuration`."""

import json
from collections.abc import Sequence

from orchestrator.domain.ids import TenantId, UserId
from orchestrator.state.base import Sealed, StoredProvider, StoredSecret
from orchestrator.state.funnel import Funnel, command, run
from orchestrator.state.keys import TenantKeys

_COUNT = "#"  # the field that counts places; no name begins with it


class RedisConfiguration:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def settings(self, tenant: TenantId, user: UserId | None) -> tuple[Sealed | None, int]:
        sealed, version = await self._funnel.one(
            command("HMGET", TenantKeys(tenant).settings(user), "sealed", "version")
        )
        return sealed, int(version or 0)

    async def put_settings(
        self, tenant: TenantId, user: UserId | None, sealed: Sealed, *, expected_version: int
    ) -> bool:
        call = run("settings_put", (TenantKeys(tenant).settings(user),), expected_version, sealed)
        return bool(await self._funnel.one(call, durable=True))

    async def secret(self, tenant: TenantId, user: UserId | None, name: str) -> StoredSecret | None:
        text = await self._funnel.one(command("HGET", TenantKeys(tenant).secrets(user), name))
        return None if text is None else _secret(name, text)

    async def secrets(self, tenant: TenantId, user: UserId | None) -> Sequence[StoredSecret]:
        return [_secret(name, text) for name, text in await self._named(TenantKeys(tenant).secrets(user))]

    async def put_secret(
        self, tenant: TenantId, user: UserId | None, secret: StoredSecret, *, expected_version: int
    ) -> bool:
        text = json.dumps({"description": secret.description, "sealed": secret.sealed})
        home = TenantKeys(tenant).secrets(user)
        return await self._put(home, secret.name, expected_version, secret.version, text)

    async def delete_secret(self, tenant: TenantId, user: UserId | None, name: str) -> bool:
        return await self._delete(TenantKeys(tenant).secrets(user), name)

    async def providers(self, tenant: TenantId, user: UserId | None) -> Sequence[StoredProvider]:
        return [_provider(name, text) for name, text in await self._named(TenantKeys(tenant).providers(user))]

    async def put_provider(
        self, tenant: TenantId, user: UserId | None, provider: StoredProvider, *, expected_version: int
    ) -> bool:
        text = json.dumps({"host": provider.host, "user_id": provider.user_id, "sealed": provider.sealed})
        home = TenantKeys(tenant).providers(user)
        return await self._put(home, provider.name, expected_version, provider.version, text)

    async def delete_provider(self, tenant: TenantId, user: UserId | None, name: str) -> bool:
        return await self._delete(TenantKeys(tenant).providers(user), name)

    async def data_key(self, tenant: TenantId, version: int) -> str | None:
        wrapped: str | None = await self._funnel.one(command("HGET", TenantKeys(tenant).data_keys, version))
        return wrapped

    async def add_data_key(self, tenant: TenantId, version: int, wrapped: str) -> str:
        home = TenantKeys(tenant).data_keys
        _, stored = await self._funnel.batch(
            command("HSETNX", home, version, wrapped), command("HGET", home, version), durable=True
        )
        return str(stored)

    async def _named(self, home: str) -> list[tuple[str, str]]:
        """(name, stored text) in the order in which the names first came."""
        fields: dict[str, str] = await self._funnel.one(command("HGETALL", home))
        named = [(name, text) for name, text in fields.items() if name != _COUNT]
        return sorted(named, key=lambda entry: int(entry[1].partition(":")[0]))

    async def _put(self, home: str, name: str, expected_version: int, version: int, text: str) -> bool:
        call = run("named_put", (home,), name, expected_version, version, text)
        return bool(await self._funnel.one(call, durable=True))

    async def _delete(self, home: str, name: str) -> bool:
        return bool(await self._funnel.one(run("named_delete", (home,), name), durable=True))


def _secret(name: str, text: str) -> StoredSecret:
    _place, version, fields = text.split(":", 2)
    return StoredSecret(name=name, version=int(version), **json.loads(fields))


def _provider(name: str, text: str) -> StoredProvider:
    _place, version, fields = text.split(":", 2)
    return StoredProvider(name=name, version=int(version), **json.loads(fields))
