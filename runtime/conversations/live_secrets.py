"""The secrets of one conversation: which a command names, what their values are, what must never be shown.

The terminal asks for the secrets of a command; everything that leaves the conversation goes through `mask`. A
conversation of the older body also has every stored secret and the providers' tokens, as they are at that moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, SecretStr

from runtime.configuration.record import AgentSettings, ContextSecret, LlmSettings, McpServer
from runtime.conversations.definition import AgentDefinition
from runtime.conversations.record import ConversationRecord
from runtime.secrets.masking import Mask
from runtime.secrets.names import credentials, is_clean_text
from runtime.secrets.providers import GitProviderStore
from runtime.secrets.sources import Lookup, LookupSecret, StaticSecret
from runtime.secrets.store import SecretStore

#: characters; no service gives out shorter keys, but "ollama" or "test" stand in for one where none is asked for, and
#: in the environment of a tools' server "true" is no secret
SHORTEST_KEY = 8


@dataclass(frozen=True)
class UserSecrets:
    """What the user of this runtime has stored."""

    store: SecretStore
    providers: GitProviderStore
    lookup: Lookup
    configured: Sequence[SecretStr] = ()  #: what the server's configuration holds
    seen: set[SecretStr] = field(default_factory=set)  #: what any conversation has had to hide


class LiveSecrets:
    """Implements the terminal's CommandSecrets."""

    def __init__(self, record: Callable[[], ConversationRecord], user: UserSecrets) -> None:
        self._record = record
        self._user = user
        self.mask = Mask()

    def sources(self) -> Mapping[str, StaticSecret | LookupSecret]:
        """Every secret that a command of this conversation can name; the conversation's own come first."""
        record = self._record()
        own = {**_of_context(record), **record.secrets}
        if record.origin is None:
            return own
        stored: dict[str, StaticSecret | LookupSecret] = {
            entry.name: StaticSecret(value=self._user.store.get(entry.name), description=entry.description)
            for entry in self._user.store.entries()
        }
        tokens: dict[str, StaticSecret | LookupSecret] = {
            f"{provider.name.upper()}_TOKEN": StaticSecret(
                value=provider.token, description=f"Token of {provider.name}"
            )
            for provider in self._user.providers.all().values()
            if provider.token is not None
        }
        return {**tokens, **stored, **own}

    def descriptions(self) -> dict[str, str | None]:
        return {name: source.description for name, source in self.sources().items()}

    async def named_in(self, command: str) -> Mapping[str, str]:
        """Values of the secrets whose names stand in the command as whole words; masked from then on.

        A secret that cannot be had is an empty variable.
        """
        named = {name: source for name, source in self.sources().items() if _names(command, name)}
        values = {name: await self._user.lookup.value(name, source) for name, source in named.items()}
        self._hide(values.values())
        return {name: _usable(value) for name, value in values.items()}

    def refresh_mask(self) -> None:
        """Learn what became secret since: call before anything is shown. Cheap when nothing is new."""
        record = self._record()
        self._hide(
            (
                *held(record.agent),
                *held(self.sources()),
                *self._user.configured,
                *(provider.token for provider in self._user.providers.all().values()),
                *(self._user.store.get(entry.name) for entry in self._user.store.entries()),
            )
        )

    def _hide(self, values: Iterable[SecretStr | None]) -> None:
        known = {value for value in values if value is not None}
        self.mask.add(known)
        self._user.seen.update(known)


def _of_context(record: ConversationRecord) -> dict[str, StaticSecret | LookupSecret]:
    """Those that the agent's definition brings along."""
    context = record.agent.agent_context
    found: dict[str, StaticSecret | LookupSecret] = {}
    for name, given in (context.secrets or {}).items() if context is not None else ():
        if isinstance(given, ContextSecret) and given.url is not None:
            found[name] = LookupSecret(url=given.url, headers=given.headers or {}, description=given.description)
        else:
            value = given.value if isinstance(given, ContextSecret) else given
            found[name] = StaticSecret(value=value, description=getattr(given, "description", None))
    return found


def _names(command: str, name: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", command) is not None


def _usable(value: SecretStr | None) -> str:
    """What an environment variable can hold."""
    text = value.get_secret_value() if value is not None else ""
    return text if is_clean_text(text) else ""


def held(value: object) -> Iterator[SecretStr]:
    """Every secret value in a record, however deep: keys of models and of the cloud, of tools' servers, of a condenser,
    from `SHORTEST_KEY` on; and what was declared to be a secret, of any length. Of a model's extra headers those that
    look like credentials: others say who is calling, in everyday words."""
    if isinstance(value, SecretStr):
        yield value
    elif isinstance(value, AgentDefinition | AgentSettings):
        fields = dict(value)
        yield from held(fields.pop("agent_context"))
        yield from _keys(held(fields))
    elif isinstance(value, LlmSettings):
        fields = dict(value)
        yield from _keys(credentials(fields.pop("extra_headers") or {}))
        yield from _keys(held(fields))
    elif isinstance(value, LookupSecret):
        yield from credentials(value.headers)
    elif isinstance(value, McpServer):
        yield from (found for found in secrets_of(value) if found is not None)
    elif isinstance(value, BaseModel):
        yield from held(dict(value))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from held(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from held(one)


def _keys(values: Iterable[SecretStr]) -> Iterator[SecretStr]:
    return (value for value in values if len(value.get_secret_value()) >= SHORTEST_KEY)


def secrets_of(server: McpServer) -> list[SecretStr | None]:
    """What an MCP server is told and nobody else."""
    auth = server.auth
    maps = (server.env, server.headers, auth.headers if auth is not None else None)
    own = [auth.value, auth.password] if auth is not None else []
    return [*own, *(value for one in maps if one is not None for value in one.values())]
