"""What one start request brings beside the stored layers: settings and secrets of its own, sealed with its record."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.domain.secrets import SecretText
from orchestrator.domain.settings import wrap_secrets
from orchestrator.nested.wire import reveal
from orchestrator.services.layers import Sealer


@dataclass(frozen=True)
class Overrides:
    """The strongest layer, for one conversation."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, SecretText] = field(default_factory=dict)


class OverrideSeal:
    """Seals and opens overrides under the conversation's id."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    async def seal(self, tenant: TenantId, conversation: ConversationId, overrides: Overrides) -> str:
        """The text for the record; empty when there is nothing to seal."""
        if not overrides.settings and not overrides.secrets:
            return ""
        text = json.dumps({"settings": reveal(overrides.settings), "secrets": reveal(overrides.secrets)})
        return await self._sealer.seal(tenant, None, "overrides", conversation, 1, SecretText(text))

    async def open(self, conversation: Conversation) -> Overrides:
        """The inverse of `seal`; raises `Undecryptable`."""
        sealed = conversation.request.sealed_overrides
        if not sealed:
            return Overrides()
        opened = await self._sealer.open(conversation.tenant, None, "overrides", conversation.id, 1, sealed)
        document = json.loads(opened.open())
        secrets = {name: SecretText(value) for name, value in document["secrets"].items()}
        return Overrides(settings=wrap_secrets(document["settings"]), secrets=secrets)
