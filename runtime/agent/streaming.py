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


def whole_text(text: str) -> str:
    """The text with a mark for each half of a surrogate pair: JSON admits one, but neither logs nor sockets hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


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
            on_delta(_shown(content), _shown(reasoning))
            texts.append(content or "")
            reasonings.append(reasoning or "")
        for piece in getattr(delta, "tool_calls", None) or []:
            _add(calls.setdefault(piece.index, _PartialCall()), piece)
    whole.text, whole.reasoning = whole_text("".join(texts)), whole_text("".join(reasonings))
    whole.tool_calls = [
        called(call.id or new_call_id(), call.name, call.arguments or "{}") for _, call in sorted(calls.items())
    ]
    return whole


def called(id: str, name: str, arguments: str) -> ToolCall:
    return ToolCall(id=whole_text(id), name=whole_text(name), arguments=whole_text(arguments))


def _shown(piece: str | None) -> str | None:
    """A pair that two pieces share is whole in the answer, and two marks here."""
    return None if piece is None else whole_text(piece)


def _add(call: _PartialCall, piece: Any) -> None:
    """Id and name come once, arguments in pieces."""
    call.id = call.id or piece.id or ""
    call.name = call.name or piece.function.name or ""
    call.arguments += piece.function.arguments or ""
