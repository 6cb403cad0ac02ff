"""The bytes of the OpenAI chat protocol: whole answers, streamed pieces, errors, usage.

Pure; `model_server.py` sends what this module makes. Usage is counted in characters divided by four, so that a test
can say beforehand what a conversation costs.
"""

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.demo.script import Step, text_of

_ERROR_TYPES = {
    400: ("invalid_request_error", None),
    # Providers say invalid_request_error here; litellm then knows a refused key only by one English sentence.
    401: ("authentication_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def error_body(status: int, message: str) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    kind, code = _ERROR_TYPES.get(status, ("server_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _tokens(characters: int) -> int:
    return max(1, characters // 4)


@dataclass(frozen=True)
class Answer:
    """One answer of the model with its own ids, to be sent whole or in pieces."""

    model: str
    text: str | None
    tool_calls: tuple[Mapping[str, Any], ...]
    prompt_tokens: int
    completion_tokens: int
    id: str
    created: int

    @property
    def finish_reason(self) -> str:
        return "tool_calls" if self.tool_calls else "stop"

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def whole(self) -> dict[str, Any]:
        """The answer as one `chat.completion`."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": None}
        if self.tool_calls:
            message["tool_calls"] = list(self.tool_calls)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self.usage}

    def pieces(self, *, include_usage: bool) -> Iterator[dict[str, Any]]:
        """The answer as `chat.completion.chunk`s; text and arguments each come in two halves."""
        yield self._piece({"role": "assistant", "content": "" if self.text is not None else None})
        for part in _halves(self.text or ""):
            yield self._piece({"content": part})
        for index, call in enumerate(self.tool_calls):
            function = call["function"]
            opening = {"index": index, "id": call["id"], "type": "function"}
            yield self._piece({"tool_calls": [{**opening, "function": {"name": function["name"], "arguments": ""}}]})
            for part in _halves(function["arguments"]):
                yield self._piece({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
        yield self._piece({}, finish_reason=self.finish_reason)
        if include_usage:
            yield {**self._head("chat.completion.chunk"), "choices": [], "usage": self.usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _piece(self, delta: Mapping[str, Any], *, finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}


def _halves(text: str) -> list[str]:
    middle = (len(text) + 1) // 2
    return [part for part in (text[:middle], text[middle:]) if part]


def answer(step: Step, *, model: str, messages: Sequence[Mapping[str, Any]]) -> Answer:
    """The answer that `step` describes; every tool call gets an id that no other has."""
    calls = tuple(
        {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": use.tool, "arguments": json.dumps(use.args)},
        }
        for use in step.uses
    )
    said = len(step.text or "") + sum(len(use.tool) + len(json.dumps(use.args)) for use in step.uses)
    return Answer(
        model=model,
        text=step.text,
        tool_calls=calls,
        prompt_tokens=_tokens(sum(len(text_of(message)) for message in messages)),
        completion_tokens=_tokens(said),
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
    )
