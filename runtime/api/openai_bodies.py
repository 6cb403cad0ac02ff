"""What OpenAI-compatible clients send and get: the parts of their chats and responses that mean something here.

Sampling parameters and tools of the caller are ignored: the agent has its own. Pure.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict

from runtime.agent.stats import TokenUsage
from runtime.api.bodies import Body
from runtime.conversations.questions import Answer, Question
from runtime.events.content import Content, ImageContent, TextContent, text_of

_TEXTS = frozenset({"text", "input_text", "output_text"})
_IMAGES = frozenset({"image_url", "input_image"})
_INSTRUCTIONS = frozenset({"system", "developer"})
NO_QUESTION = "a user message with some content is required"


class Unanswerable(Exception):
    """The request is well formed and asks for nothing that can be answered; the text says why."""


class _Open(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class ImageUrl(_Open):
    url: str


class Part(_Open):
    type: str
    text: str | None = None
    image_url: ImageUrl | str | None = None

    def content(self) -> Content:
        """Raises Unanswerable."""
        if self.type in _TEXTS:
            return TextContent(text=self.text or "")
        if self.type not in _IMAGES:
            raise Unanswerable(f"content of type {self.type!r} is not supported")
        url = self.image_url.url if isinstance(self.image_url, ImageUrl) else self.image_url
        if not url:
            raise Unanswerable("a content part with an image needs its url")
        return ImageContent(image_urls=[url])


class ChatMessage(_Open):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None

    def parts(self) -> list[Content]:
        """Raises Unanswerable."""
        if isinstance(self.content, str):
            return [TextContent(text=self.content)]
        return [part.content() for part in self.content or []]


class StreamOptions(_Open):
    include_usage: bool = False


class ChatBody(Body):
    model: str
    messages: list[ChatMessage]
    stream: bool = False
    stream_options: StreamOptions | None = None

    def question(self, conversation_id: UUID | None) -> Question:
        """The last user message: what came before it, the conversation has. Raises Unanswerable."""
        asked = next((message for message in reversed(self.messages) if message.role == "user"), None)
        content = _said(asked.parts() if asked is not None else [])
        return Question(self.model, content, _instructions(self.messages), conversation_id)


class ResponseBody(Body):
    model: str
    input: str | list[ChatMessage]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool = False
    stream: bool = False
    metadata: dict[str, str] | None = None

    def question(self) -> Question:
        """All that was said, since no conversation has it. Raises Unanswerable."""
        for name in ("stream", "store", "previous_response_id"):
            if getattr(self, name):
                raise Unanswerable(f"{name} is not supported: leave it out")
        own = self.instructions.strip() if self.instructions else ""
        if isinstance(self.input, str):
            return Question(self.model, _said([TextContent(text=self.input)]), own)
        spoken = [message for message in self.input if message.role not in _INSTRUCTIONS]
        if not any(_has_content(message.parts()) for message in spoken if message.role == "user"):
            raise Unanswerable(NO_QUESTION)
        content = spoken[0].parts() if len(spoken) == 1 else [part for one in spoken for part in _labelled(one)]
        system = "\n\n".join(text for text in (own, _instructions(self.input)) if text)
        return Question(self.model, content, system)


def _has_content(parts: Sequence[Content]) -> bool:
    return any(not isinstance(part, TextContent) or part.text for part in parts)


def _said(parts: list[Content]) -> list[Content]:
    if not _has_content(parts):
        raise Unanswerable(NO_QUESTION)
    return parts


def _labelled(message: ChatMessage) -> list[Content]:
    """So that the agent can tell who said what."""
    return [TextContent(text=f"[{message.role}]"), *message.parts()]


def _instructions(messages: Sequence[ChatMessage]) -> str:
    texts = (text_of(message.parts()) for message in messages if message.role in _INSTRUCTIONS)
    return "\n\n".join(text for text in texts if text)


class Completion:
    """One answer to a chat, whole or in pieces: all of them have the same id."""

    def __init__(self, model: str) -> None:
        self._id, self._created, self._model = f"chatcmpl-{uuid4().hex}", int(time.time()), model

    def whole(self, answer: Answer) -> dict[str, Any]:
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return {**self._head("chat.completion"), "choices": [choice], "usage": _chat_usage(answer.usage)}

    def begun(self) -> dict[str, Any]:
        return self._piece({"role": "assistant"})

    def pieces(self, answer: Answer, *, include_usage: bool) -> list[dict[str, Any]]:
        last = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
        found = [self._piece({"content": answer.text}), {**self._head("chat.completion.chunk"), "choices": last}]
        if include_usage:
            usage = {"choices": [], "usage": _chat_usage(answer.usage)}
            found.append({**self._head("chat.completion.chunk"), **usage})
        return found

    def _piece(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}


def response(body: ResponseBody, answer: Answer, *, created_at: float) -> dict[str, Any]:
    """The answer as a response that is complete and stored nowhere."""
    text = {"type": "output_text", "text": answer.text, "annotations": []}
    message = {"id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "status": "completed"}
    told = {name: value for name in ("instructions", "metadata") if (value := getattr(body, name)) is not None}
    return {
        "id": f"resp_{uuid4().hex}",
        "object": "response",
        "created_at": created_at,
        "completed_at": time.time(),
        "status": "completed",
        "model": body.model,
        **told,
        "output": [{**message, "content": [text]}],
        "parallel_tool_calls": False,
        "tool_choice": "none",
        "tools": [],
        "usage": {
            "input_tokens": answer.usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": answer.usage.cache_read_tokens},
            "output_tokens": answer.usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": answer.usage.reasoning_tokens},
            "total_tokens": answer.usage.prompt_tokens + answer.usage.completion_tokens,
        },
    }


def _chat_usage(usage: TokenUsage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
