"""The bodies for an agent server that is not ours: it knows the contract, and none of the older configuration calls.

Pure, the sibling of `wire.py`. Such a server has no git providers, so their tokens travel as secrets named after them,
and it clones nothing. Secrets are also part of the conversation's own request, because only those reach its shell.
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.domain.conversation import StartRequest
from orchestrator.domain.secrets import SecretText
from orchestrator.nested.wire import Bundle, reveal


def settings_body(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`PATCH /api/settings`; empty when there is nothing to say."""
    body = {
        f"{part}_diff": reveal(settings[part])
        for part in ("agent_settings", "conversation_settings")
        if settings.get(part)
    }
    return {part: diff for part, diff in body.items() if diff}


def provider_secrets(bundle: Bundle) -> dict[str, SecretText]:
    """The git providers' tokens under the names that they travel by."""
    return {secret_of_provider(provider.name): provider.token for provider in bundle.providers}


def secret_of_provider(name: str) -> str:
    return f"{name}_token"


def conversation_body(conversation_id: str, request: StartRequest, bundle: Bundle, workspace: str) -> dict[str, Any]:
    """The agent-server's own start body, under our id and in the folder `workspace`. The first message starts the
    agent."""
    secrets = {**provider_secrets(bundle), **bundle.secrets}
    body: dict[str, Any] = {
        "conversation_id": conversation_id,
        "agent_settings": {"agent_kind": "openhands", **reveal(bundle.settings.get("agent_settings", {}))},
        "workspace": {"kind": "LocalWorkspace", "working_dir": workspace},
        "secrets": {name: {"kind": "StaticSecret", "value": value.open()} for name, value in secrets.items()},
    }
    if (limit := bundle.settings.get("conversation_settings", {}).get("max_iterations")) is not None:
        body["max_iterations"] = limit
    if request.initial_message:
        body["initial_message"] = {
            "role": "user",
            "content": [{"type": "text", "text": request.initial_message}],
            "run": True,
        }
    return body
