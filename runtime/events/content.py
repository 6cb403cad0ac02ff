"""Text and image content, and the message that carries it; used by events, messages and observations.

Closed records of the wire contract (section 5): a field more would fail the client's parser. Knows nothing of logs,
sockets or models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Closed(BaseModel):
    """A record whose fields are exactly those of the contract. Built with its first use: a runtime in which nothing is
    said yet has use for few of them."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, defer_build=True)


class TextContent(Closed):
    cache_prompt: bool = False
    type: Literal["text"] = "text"
    text: str


class ImageContent(Closed):
    cache_prompt: bool = False
    type: Literal["image"] = "image"
    image_urls: list[str]


Content = Annotated[TextContent | ImageContent, Field(discriminator="type")]


class ThinkingBlock(Closed):
    """Reasoning of a provider that wants it sent back unchanged with the next call."""

    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Closed):
    type: Literal["redacted_thinking"] = "redacted_thinking"
    data: str


AnyThinkingBlock = Annotated[ThinkingBlock | RedactedThinkingBlock, Field(discriminator="type")]


class ToolCall(Closed):
    """A tool call as the model wrote it; `arguments` is its JSON text, valid or not."""

    id: str
    responses_item_id: str | None = None
    name: str
    arguments: str
    origin: Literal["completion", "responses"] = "completion"


class Message(Closed):
    role: Literal["user", "system", "assistant", "tool"]
    content: list[Content] = Field(default_factory=list)
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[AnyThinkingBlock] = Field(default_factory=list)
    responses_reasoning_item: dict[str, Any] | None = None


def text_of(content: list[TextContent | ImageContent]) -> str:
    """The text parts, one below the other."""
    return "\n".join(part.text for part in content if isinstance(part, TextContent))
