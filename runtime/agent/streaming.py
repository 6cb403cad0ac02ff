"""Puts the pieces of a streamed answer together, and passes each on as it comes.

Used by `llm`. Works on whatever has the shape of chat completion chunks, so it needs no library; counting tokens is
left to what the provider reports.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from runtime.events.content import AnyThinkingBlock, ToolCall


@dataclass
class Collected:
    """A whole answer, streamed or not. `usage` is the provider's record, if it sent one; cost is None if not told."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    thinking_blocks: list[AnyThinkingBlock] = field(default_factory=list)
    response_id: str = ""
    usage: Any = None
    cost: float | None = None


@dataclass
class _PartialCall:
    id: str = ""
    name: str = ""
    arguments: str = ""


def new_call_id() -> str:
    """For providers that give their calls no id."""
    return f"call_{uuid4().hex}"


async def collect(chunks: AsyncIterator[Any], on_delta: Callable[[str | None, str | None], None]) -> Collected:
    """The answer of all chunks; `on_delta(content, reasoning)` is called for each that has text."""
    whole = Collected()
    texts: list[str] = []
    reasonings: list[str] = []
    calls: dict[int, _PartialCall] = {}
    async for chunk in chunks:
        whole.response_id = whole.response_id or getattr(chunk, "id", None) or ""
        whole.usage = getattr(chunk, "usage", None) or whole.usage
        if not chunk.choices:
            continue
        delta = chunk.choices[0].delta
        content = getattr(delta, "content", None)
        reasoning = getattr(delta, "reasoning_content", None)
        if content is not None or reasoning is not None:
            on_delta(content, reasoning)
            texts.append(content or "")
            reasonings.append(reasoning or "")
        for piece in getattr(delta, "tool_calls", None) or []:
            _add(calls.setdefault(piece.index, _PartialCall()), piece)
    whole.text, whole.reasoning = "".join(texts), "".join(reasonings)
    whole.tool_calls = [
        ToolCall(id=call.id or new_call_id(), name=call.name, arguments=call.arguments or "{}")
        for _, call in sorted(calls.items())
    ]
    return whole


def _add(call: _PartialCall, piece: Any) -> None:
    """Id and name come once, arguments in pieces."""
    call.id = call.id or piece.id or ""
    call.name = call.name or piece.function.name or ""
    call.arguments += piece.function.arguments or ""
