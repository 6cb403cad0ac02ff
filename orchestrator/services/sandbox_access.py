"""What the holder of a runtime's session key may know beyond the runtime: the secrets of those it runs for.

A session key names its runtime (`security/session_keys.py`), and is good while that runtime is ready. Older clients'
programs inside of a sandbox come with it alone (contract outer-api.md 2.1), at each use of a secret: one look-up of the
record, one value opened, nothing kept.
"""

import hmac
from collections.abc import Mapping
from contextlib import suppress

import structlog

from orchestrator.domain.conversation import Conversation, Desired, Phase
from orchestrator.domain.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from orchestrator.domain.git import PROVIDERS
from orchestrator.domain.ids import RuntimeId, UserId
from orchestrator.domain.secrets import SecretText, check_secret_name
from orchestrator.security.session_keys import hash_key, runtime_of
from orchestrator.services.layers import Layers
from orchestrator.services.overrides import OverrideSeal
from orchestrator.state.base import Conversations

log = structlog.get_logger(__name__)
_NO_HASH = "0" * 64
#: Under these names clients ask for the token of a git provider.
TOKENS: Mapping[str, str] = {f"{provider}_token": provider for provider in PROVIDERS}


class SandboxAccess:
    """Reads alone. Every read of a value is in the log: whose, from which runtime, which name, with what outcome."""

    def __init__(self, conversations: Conversations, layers: Layers, overrides: OverrideSeal) -> None:
        self._conversations = conversations
        self._layers = layers
        self._overrides = overrides

    async def of_key(self, session_key: str) -> Conversation:
        """The record whose runtime this key opens. Raises `Unauthenticated`, in the same words for an unknown key and
        for one that sleeps because its runtime is not ready."""
        runtime = runtime_of(session_key)
        place = await self._conversations.route(runtime) if runtime is not None else None
        found = await self._conversations.get(*place) if place is not None else None
        known = found is not None and found.runtime is not None and found.runtime.id == runtime
        expected = found.runtime.session_key_hash if found is not None and found.runtime is not None and known else ""
        right = hmac.compare_digest(hash_key(session_key), expected or _NO_HASH)
        if found is None or not right or found.phase is not Phase.READY or found.desired is Desired.DELETED:
            raise Unauthenticated(
                "this is not the session key of a running sandbox", hint="send it as X-Session-API-Key, while it runs"
            )
        return found

    async def of_runtime(self, session_key: str, runtime: str) -> Conversation:
        """The same, where a request names the runtime as well. Raises `Forbidden` for the key of another one."""
        found = await self.of_key(session_key)
        if found.runtime is None or RuntimeId(runtime) != found.runtime.id:
            raise Forbidden("this is the session key of another sandbox")
        return found

    async def secrets(self, record: Conversation) -> Mapping[str, str | None]:
        """Names with their descriptions; those of the git providers' tokens too. No value is opened but those that its
        own request brought. Raises `Undecryptable`."""
        told: dict[str, str | None] = {}
        for owner in _owners(record):
            for provider in await self._layers.providers.entries(record.tenant, owner):
                told[f"{provider.name}_token"] = f"the token for {provider.name}"
        for owner in _owners(record):
            for entry in await self._layers.secrets.entries(record.tenant, owner):
                told[entry.name] = entry.description
        for name in (await self._overrides.open(record)).secrets:
            told[name] = told.get(name)
        return told

    async def secret(self, record: Conversation, name: str) -> SecretText:
        """The value that a command of this runtime would be given: what its request brought, else the user's, else the
        tenant's; else the token of a provider. Raises `NotFound`, also for one that is empty, and `Undecryptable`."""
        value = await self._own(record, name) or await self._token(record, name)
        log.info(
            "secret.read",
            tenant=record.tenant,
            user=record.user,
            runtime=record.runtime.id if record.runtime is not None else None,
            secret=name[:80],
            outcome="given" if value else "unknown",
        )
        if not value:
            raise NotFound("there is no such secret")
        return value

    async def _own(self, record: Conversation, name: str) -> SecretText | None:
        try:
            check_secret_name(name)
        except InvalidRequest:  # as unknown as any other
            return None
        brought = (await self._overrides.open(record)).secrets
        if name in brought:
            return brought[name]
        for owner in reversed(_owners(record)):
            with suppress(NotFound):
                return await self._layers.secrets.open_one(record.tenant, owner, name)
        return None

    async def _token(self, record: Conversation, name: str) -> SecretText | None:
        provider = TOKENS.get(name)
        if provider is None:
            return None
        for owner in reversed(_owners(record)):
            for found in await self._layers.providers.open_all(record.tenant, owner):
                if found.name == provider:
                    return found.token
        return None


def _owners(record: Conversation) -> list[UserId | None]:
    """The layers, weakest first."""
    return [None, record.user] if record.user is not None else [None]
