"""What one conversation runs with: the layers of settings, secrets and git providers, merged and opened.

The opened values live for the length of the caller's work and are kept by nobody.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.git import GitProvider
from orchestrator.domain.ids import TenantId, UserId
from orchestrator.domain.secrets import SecretText
from orchestrator.domain.settings import merge
from orchestrator.nested.wire import Bundle
from orchestrator.services.layers import Layers
from orchestrator.services.overrides import Overrides, OverrideSeal


class Effective:
    """Reads tenant and user layers; the stronger one wins by name."""

    def __init__(self, layers: Layers, overrides: OverrideSeal, *, operator: Mapping[str, Any] | None = None) -> None:
        self._layers = layers
        self._overrides = overrides
        self._operator = dict(operator or {})

    async def bundle(
        self,
        tenant: TenantId,
        user: UserId | None,
        *,
        own: Conversation | None = None,
    ) -> Bundle:
        """Everything that a runtime of this user is told, `own` adding what its request brought. Raises
        `Undecryptable` and `StoreUnavailable`."""
        documents: list[tuple[str, Mapping[str, Any]]] = [("operator", self._operator)]
        providers: dict[str, GitProvider] = {}
        secrets: dict[str, SecretText] = {}
        for name, owner in _layers_of(user):
            (document, _), git, named = await asyncio.gather(  # at once: each of them is a question to the state server
                self._layers.settings.read(tenant, owner),
                self._layers.providers.open_all(tenant, owner),
                self._layers.secrets.open_all(tenant, owner),
            )
            documents.append((name, document))
            providers.update({item.name: item for item in git})
            secrets.update(named)
        overrides = await self._overrides.open(own) if own else Overrides()
        documents.append(("request", overrides.settings))
        secrets.update(overrides.secrets)
        settings, _origin = merge(documents)
        return Bundle(settings=settings, providers=list(providers.values()), secrets=secrets)

    async def brought(self, own: Conversation) -> Overrides:
        """What its own request brought. Raises `Undecryptable`."""
        return await self._overrides.open(own)

    async def settings(self, own: Conversation) -> dict[str, Any]:
        """The merged settings of one conversation alone. Raises as `bundle`."""
        documents: list[tuple[str, Mapping[str, Any]]] = [("operator", self._operator)]
        for name, owner in _layers_of(own.user):
            documents.append((name, (await self._layers.settings.read(own.tenant, owner))[0]))
        documents.append(("request", (await self._overrides.open(own)).settings))
        return merge(documents)[0]

    async def explain(self, tenant: TenantId, user: UserId | None) -> tuple[dict[str, Any], dict[str, str]]:
        """The effective settings and, for each leaf, the layer it came from."""
        documents: list[tuple[str, Mapping[str, Any]]] = [("operator", self._operator)]
        for name, owner in _layers_of(user):
            documents.append((name, (await self._layers.settings.read(tenant, owner))[0]))
        return merge(documents)


def _layers_of(user: UserId | None) -> list[tuple[str, UserId | None]]:
    return [("tenant", None)] + ([("user", user)] if user else [])
