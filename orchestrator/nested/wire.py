"""The bodies that go into a runtime, made from effective settings. Pure; the shapes are nested-config.md 3 to 6.

The older flat settings record carries the common fields; the rest goes beside them as `agent_settings_diff`, or in a
PATCH.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.conversation import StartRequest
from orchestrator.domain.git import GitProvider
from orchestrator.domain.secrets import SecretText

#: nested field -> flat field of the older record
_FLAT_LLM = {"model": "llm_model", "api_key": "llm_api_key", "base_url": "llm_base_url"}
_FLAT_CONVERSATION = {
    "max_iterations": "max_iterations",
    "confirmation_mode": "confirmation_mode",
    "security_analyzer": "security_analyzer",
}


@dataclass(frozen=True)
class Bundle:
    """Everything that one runtime is told, opened for the length of the calls."""

    settings: Mapping[str, Any]  #: the effective document; may hold SecretText
    providers: Sequence[GitProvider]
    secrets: Mapping[str, SecretText]


def reveal(value: Any) -> Any:
    """The plain JSON value of a document that holds `SecretText`. Only for a body that is sent at once."""
    if isinstance(value, SecretText):
        return value.open()
    if isinstance(value, Mapping):
        return {key: reveal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [reveal(item) for item in value]
    return value


def settings_body(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The flat record of `POST /api/settings`."""
    agent = settings.get("agent_settings", {})
    body: dict[str, Any] = {"agent": agent.get("agent") or "CodeActAgent"}
    for name, flat in _FLAT_LLM.items():
        if agent.get("llm", {}).get(name) is not None:
            body[flat] = reveal(agent["llm"][name])
    for name, flat in _FLAT_CONVERSATION.items():
        if settings.get("conversation_settings", {}).get(name) is not None:
            body[flat] = settings["conversation_settings"][name]
    body.update(reveal(settings.get("older", {})))
    return body


def settings_rest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the flat record cannot say, as it goes beside it or as a PATCH body; empty when there is nothing."""
    agent = {name: value for name, value in settings.get("agent_settings", {}).items() if name not in ("agent", "llm")}
    llm = {
        name: value
        for name, value in settings.get("agent_settings", {}).get("llm", {}).items()
        if name not in _FLAT_LLM and value is not None
    }
    conversation = {
        name: value
        for name, value in settings.get("conversation_settings", {}).items()
        if name not in _FLAT_CONVERSATION
    }
    body: dict[str, Any] = {}
    if agent or llm:
        body["agent_settings_diff"] = reveal({**agent, **({"llm": llm} if llm else {})})
    if conversation:
        body["conversation_settings_diff"] = reveal(conversation)
    return body


def pointers(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """JSON pointers into a runtime's own record to each value that `settings` set there, in order."""
    found = [
        _pointer(path)
        for part in ("agent_settings", "conversation_settings")
        for path in _leaves((part,), settings.get(part))
    ]
    return tuple(sorted([*found, *(_pointer(("older", name)) for name in settings.get("older", {}))]))


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[str, ...]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves((*path, str(name)), item)
    elif value is not None:
        yield path


def _pointer(path: Sequence[str]) -> str:
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in path)


def providers_body(providers: Sequence[GitProvider], *, keep_others: bool = False) -> dict[str, Any]:
    """The map form of `POST /api/add-git-providers`. `keep_others`, which our own runtime knows: those that are not
    named stay."""
    return {
        **({"keep_others": True} if keep_others else {}),
        "provider_tokens": {
            provider.name: {"token": provider.token.open(), "host": provider.host, "user_id": provider.user_id}
            for provider in providers
        },
    }


def secrets_body(secrets: Mapping[str, SecretText]) -> dict[str, Any]:
    """The bulk form of `POST /api/secrets`."""
    return {"secrets": {name: value.open() for name, value in secrets.items()}}


def conversation_body(conversation_id: str, request: StartRequest) -> dict[str, Any]:
    """The older start body, which clones the repository and starts the first message under our own id; for a fork with
    what was taken in, in which the repository is."""
    body: dict[str, Any] = {"conversation_id": conversation_id, "initial_user_msg": request.initial_message}
    if request.repository:
        body["repository"] = request.repository
        body["git_provider"] = request.git_provider
        body["selected_branch"] = request.branch
    if request.fork_of is not None:
        body["imported"] = True
    return body


def message_body(content: str | list[dict[str, Any]], event_id: str) -> dict[str, Any]:
    """A user message that starts the agent. The id makes a repeated delivery harmless."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {"role": "user", "content": parts, "run": True, "event_id": event_id}
