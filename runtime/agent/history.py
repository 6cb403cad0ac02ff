"""The conversation as the model sees it: chat messages built from events, in an order that model APIs accept.

The loop feeds it every event of the log and then every new one. Each tool call is answered before anything else
follows, so a user's message that came while tools ran stands behind their answers. Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from typing import Any, TypeAlias

from runtime.events.actions import Observation, TerminalObservation
from runtime.events.content import Content, ImageContent, TextContent, text_of
from runtime.events.models import (
    ActionEvent,
    AgentErrorEvent,
    Event,
    MessageEvent,
    ObservationEvent,
    SystemPromptEvent,
    UserRejectObservation,
)

ChatMessage: TypeAlias = dict[str, Any]

_ABANDONED = "There is no result: the conversation was taken back to before this ended."


class History:
    """Grows by events. `unanswered` is the number of user messages that the model has not answered yet."""

    def __init__(self, events: Iterable[Event], *, most_characters: int, blocked: Container[str] = ()) -> None:
        self._blocked = blocked
        self._messages: list[ChatMessage] = []
        self._late: list[ChatMessage] = []
        self._open_calls: set[str] = set()
        self._collecting = False
        self._asking = False
        self._most_characters = most_characters
        self.unanswered = 0
        for event in events:
            self.add(event)

    def messages(self) -> list[ChatMessage]:
        """For the next call of the model."""
        return list(self._messages)

    def asking(self) -> None:
        """The model is being asked: what users say from now on, it has not seen, so it goes behind the answer."""
        self._asking = True
        self.unanswered = 0

    def answered(self) -> None:
        """The events of the answer are added."""
        self._asking = False
        self._release_late()

    def abandon_calls(self) -> None:
        """Answer every call that nothing will answer any more: model APIs take no history with open calls."""
        for call_id in list(self._open_calls):
            self._add_answer(call_id, _ABANDONED)

    def add(self, event: Event) -> None:
        match event:
            case SystemPromptEvent():
                self._messages.append({"role": "system", "content": _system_text(event)})
            case MessageEvent() if event.id in self._blocked:
                return  # a hook keeps it from the model
            case MessageEvent(source="user" | "environment" | "hook"):
                self.unanswered += 1
                self._late.append(self._user_message(event))
                self._release_late()
            case MessageEvent():
                self._messages.append({"role": "assistant", "content": text_of(event.llm_message.content)})
                self._collecting = False
            case ActionEvent():
                self._add_call(event)
            case ObservationEvent():
                self._add_answer(event.tool_call_id, self._cut(_observation_text(event.observation)))
            case AgentErrorEvent():
                self._add_answer(event.tool_call_id, self._cut(event.error))
            case UserRejectObservation():
                self._add_answer(event.tool_call_id, self._cut(f"Not done, it was rejected: {event.rejection_reason}"))
            case _:
                return  # states, pauses and errors of the conversation are not for the model

    def _release_late(self) -> None:
        if self._open_calls or self._asking:
            return
        self._messages += self._late
        self._late = []

    def _add_call(self, event: ActionEvent) -> None:
        if not self._collecting:
            self._messages.append(_assistant_message(event))
            self._collecting = True
        self._messages[-1].setdefault("tool_calls", []).append(_tool_call(event))
        self._open_calls.add(event.tool_call_id)

    def _add_answer(self, call_id: str, text: str) -> None:
        self._collecting = False
        if call_id in self._open_calls:
            self._open_calls.discard(call_id)
            self._messages.append({"role": "tool", "tool_call_id": call_id, "content": text})
        self._release_late()

    def _user_message(self, event: MessageEvent) -> ChatMessage:
        content: list[Content] = [*event.llm_message.content, *event.extended_content]
        if not any(isinstance(part, ImageContent) for part in content):
            return {"role": "user", "content": self._cut(text_of(content))}
        return {"role": "user", "content": [shown for part in content for shown in self._parts(part)]}

    def _parts(self, part: TextContent | ImageContent) -> list[dict[str, Any]]:
        if isinstance(part, TextContent):
            return [{"type": "text", "text": self._cut(part.text)}]
        return [{"type": "image_url", "image_url": {"url": url}} for url in part.image_urls]

    def _cut(self, text: str) -> str:
        if len(text) <= self._most_characters:
            return text
        half = self._most_characters // 2
        return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def _system_text(event: SystemPromptEvent) -> str:
    context = event.dynamic_context
    return event.system_prompt.text if context is None else f"{event.system_prompt.text}\n\n{context.text}"


def _assistant_message(event: ActionEvent) -> ChatMessage:
    message: ChatMessage = {"role": "assistant", "content": "\n".join(part.text for part in event.thought) or None}
    if event.reasoning_content:
        message["reasoning_content"] = event.reasoning_content
    if event.thinking_blocks:
        message["thinking_blocks"] = [block.model_dump(exclude_none=True) for block in event.thinking_blocks]
    return message


def _tool_call(event: ActionEvent) -> dict[str, Any]:
    function = {"name": event.tool_call.name, "arguments": _valid_json(event.tool_call.arguments)}
    return {"id": event.tool_call_id, "type": "function", "function": function}


def _valid_json(arguments: str) -> str:
    """Some model APIs refuse a history whose arguments cannot be parsed; the error that followed tells the rest."""
    try:
        json.loads(arguments)
    except ValueError:
        return "{}"
    return arguments


def _observation_text(observation: Observation) -> str:
    text = text_of(observation.content)
    if isinstance(observation, TerminalObservation):
        metadata = observation.metadata
        return f"{metadata.prefix}{text}{metadata.suffix}\n[Working directory: {metadata.working_dir}]"
    return f"[Error] {text}" if observation.is_error else text
