"""What one start request brings beside the stored layers: settings, secrets and variables of its own, and the agent
server's own body from a client that speaks to it; sealed with its record."""

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
    environment: Mapping[str, SecretText] = field(default_factory=dict)  #: of the agent's and callers' shell
    start_body: SecretText | None = None  #: JSON text, as the client sent it
    session_key: bool = False  #: callers' commands find the runtime's session key in their environment

    @property
    def is_empty(self) -> bool:
        return not (self.settings or self.secrets or self.environment or self.start_body or self.session_key)


class OverrideSeal:
    """Seals and opens overrides under the conversation's id."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    async def seal(self, tenant: TenantId, conversation: ConversationId, overrides: Overrides) -> str:
        """The text for the record; empty when there is nothing to seal."""
        if overrides.is_empty:
            return ""
        return await self._sealer.seal(tenant, None, "overrides", conversation, 1, _text(overrides))

    async def are(self, conversation: Conversation, overrides: Overrides) -> bool:
        """Whether it was asked for with these. Raises `Undecryptable`."""
        return _text(await self.open(conversation)).matches(_text(overrides).open())

    async def open(self, conversation: Conversation) -> Overrides:
        """The inverse of `seal`; raises `Undecryptable`."""
        sealed = conversation.request.sealed_overrides
        if not sealed:
            return Overrides()
        opened = await self._sealer.open(conversation.tenant, None, "overrides", conversation.id, 1, sealed)
        document = json.loads(opened.open())
        body = document.get("start_body")
        return Overrides(
            settings=wrap_secrets(document.get("settings", {})),
            secrets={name: SecretText(value) for name, value in document.get("secrets", {}).items()},
            environment={name: SecretText(value) for name, value in document.get("environment", {}).items()},
            start_body=SecretText(body) if body else None,
            session_key=bool(document.get("session_key", False)),
        )


def _text(overrides: Overrides) -> SecretText:
    fields = {
        "settings": reveal(overrides.settings),
        "secrets": reveal(overrides.secrets),
        "environment": reveal(overrides.environment),
        "start_body": reveal(overrides.start_body),
        "session_key": overrides.session_key,
    }
    return SecretText(json.dumps({name: value for name, value in fields.items() if value}, sort_keys=True))
