"""Marks in a chat which part of it a provider may keep for the next call, for those that keep nothing unasked.

The part up to the system prompt is the same in every call; the part up to the last message is where the next begins.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: others than these may refuse a field that they do not know
_PROVIDERS = frozenset({"anthropic", "bedrock", "vertex_ai", "openrouter", "litellm_proxy"})
_MARK = {"cache_control": {"type": "ephemeral"}}


def wants_marks(model: str) -> bool:
    """Whether the model's provider keeps only what is marked, and takes marks."""
    provider, _, rest = model.lower().partition("/")
    return "claude" in model.lower() and (not rest or provider in _PROVIDERS)


def marked(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same chat with its marks. At most two, of the four that a call may have."""
    chat = [dict(message) for message in messages]
    system = [at for at, message in enumerate(chat) if message["role"] == "system"][-1:]
    for at in {*system, len(chat) - 1} if chat else ():
        chat[at] = _marked(chat[at])
    return chat


def _marked(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        return {**message, **_MARK}
    content = message.get("content")
    if isinstance(content, str) and content:
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content:
        return message  # there is nothing that could bear one
    return {**message, "content": [*content[:-1], {**content[-1], **_MARK}]}
