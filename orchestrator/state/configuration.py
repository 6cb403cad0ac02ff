"""Settings, secrets, git providers and data keys in Redis. All values come sealed; see `base.Configuration`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.domain.ids import TenantId, UserId
from orchestrator.state import reviews
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
        self, tenant: TenantId, user: UserId | None, sealed: Sealed, *, expected_version: int, review: bool = False
    ) -> bool:
        t, note = TenantKeys(tenant), (reviews.asked(tenant, user),) if review else ()
        call = run(
            "settings_put", (t.settings(user), t.generations), expected_version, sealed, user or "", journal=t.journal
        )
        replies = await self._funnel.batch(*note, call, *note, durable=True)
        return bool(replies[len(note)])

    async def generation(self, tenant: TenantId, user: UserId | None) -> str:
        own, of_user = await self._funnel.one(command("HMGET", TenantKeys(tenant).generations, "", user or "-"))
        return f"{own or 0}.{of_user or 0}"

    async def secret(self, tenant: TenantId, user: UserId | None, name: str) -> StoredSecret | None:
        text = await self._funnel.one(command("HGET", TenantKeys(tenant).secrets(user), name))
        return None if text is None else _secret(name, text)

    async def secrets(self, tenant: TenantId, user: UserId | None) -> Sequence[StoredSecret]:
        return [_secret(name, text) for name, text in await self._named(TenantKeys(tenant).secrets(user))]

    async def put_secret(
        self, tenant: TenantId, user: UserId | None, secret: StoredSecret, *, expected_version: int
    ) -> bool:
        text = json.dumps({"description": secret.description, "sealed": secret.sealed})
        place = _Place(TenantKeys(tenant), "secret", user)
        return await self._put(place, secret.name, expected_version, secret.version, text)

    async def delete_secret(
        self, tenant: TenantId, user: UserId | None, name: str, *, expected_version: int | None = None
    ) -> bool:
        return await self._delete(_Place(TenantKeys(tenant), "secret", user), name, expected_version)

    async def providers(self, tenant: TenantId, user: UserId | None) -> Sequence[StoredProvider]:
        return [_provider(name, text) for name, text in await self._named(TenantKeys(tenant).providers(user))]

    async def put_provider(
        self, tenant: TenantId, user: UserId | None, provider: StoredProvider, *, expected_version: int
    ) -> bool:
        text = json.dumps({"host": provider.host, "user_id": provider.user_id, "sealed": provider.sealed})
        place = _Place(TenantKeys(tenant), "provider", user)
        return await self._put(place, provider.name, expected_version, provider.version, text)

    async def delete_provider(
        self, tenant: TenantId, user: UserId | None, name: str, *, expected_version: int | None = None
    ) -> bool:
        return await self._delete(_Place(TenantKeys(tenant), "provider", user), name, expected_version)

    async def data_key(self, tenant: TenantId, version: int) -> str | None:
        wrapped: str | None = await self._funnel.one(command("HGET", TenantKeys(tenant).data_keys, version))
        return wrapped

    async def add_data_key(self, tenant: TenantId, version: int, wrapped: str) -> str:
        t = TenantKeys(tenant)
        call = run("data_key_add", (t.data_keys,), version, wrapped, journal=t.journal)
        return str(await self._funnel.one(call, durable=True))

    async def _named(self, home: str) -> list[tuple[str, str]]:
        """(name, stored text) in the order in which the names first came."""
        fields: dict[str, str] = await self._funnel.one(command("HGETALL", home))
        named = [(name, text) for name, text in fields.items() if name != _COUNT]
        return sorted(named, key=lambda entry: int(entry[1].partition(":")[0]))

    async def _put(self, place: "_Place", name: str, expected_version: int, version: int, text: str) -> bool:
        arguments = (name, expected_version, version, text, place.kind, place.user or "")
        call = run("named_put", (place.key, place.keys.generations), *arguments, journal=place.keys.journal)
        return bool(await self._funnel.one(call, durable=True))

    async def _delete(self, place: "_Place", name: str, expected_version: int | None) -> bool:
        call = run(
            "named_delete",
            (place.key, place.keys.generations),
            name,
            place.kind,
            place.user or "",
            "" if expected_version is None else expected_version,
            journal=place.keys.journal,
        )
        return bool(await self._funnel.one(call, durable=True))


@dataclass(frozen=True)
class _Place:
    """A layer of named values: the tenant's own, or a user's."""

    keys: TenantKeys
    kind: Literal["secret", "provider"]
    user: UserId | None

    @property
    def key(self) -> str:
        return self.keys.secrets(self.user) if self.kind == "secret" else self.keys.providers(self.user)


def _secret(name: str, text: str) -> StoredSecret:
    _place, version, fields = text.split(":", 2)
    return StoredSecret(name=name, version=int(version), **json.loads(fields))


def _provider(name: str, text: str) -> StoredProvider:
    _place, version, fields = text.split(":", 2)
    return StoredProvider(name=name, version=int(version), **json.loads(fields))
