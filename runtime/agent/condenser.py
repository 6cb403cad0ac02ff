"""Keeps what the model is shown within bounds: the middle of a long conversation becomes a summary (contract 4.5, 5.2).

A `Condensation` in the log names the events that are forgotten and what stands for them, so that a reader of the log
sees the same history as the model did. Acts and their results are never torn apart. Knows no conversation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.agent.history import History
from runtime.configuration.record import LlmSettings
from runtime.events.content import Message, TextContent
from runtime.events.models import (
    ActionEvent,
    AgentErrorEvent,
    Condensation,
    MessageEvent,
    ObservationEvent,
    StoredEvent,
    SystemPromptEvent,
    UserRejectObservation,
)

_SHOWN = (SystemPromptEvent, MessageEvent, ActionEvent, ObservationEvent, AgentErrorEvent, UserRejectObservation)
_ANSWERS = (ObservationEvent, AgentErrorEvent, UserRejectObservation)
_MOST_CHARACTERS = 4_000
_INSTRUCTION = """\
You keep the memory of a software engineer who works for a user. Below is a part of their work that will be forgotten.
Write what has to be remembered: what the user wants and has decided, what was done and found out, which files and
commands matter, what is still open, and which errors must not be repeated. Keep names, paths and numbers as they are.
Write notes, not prose, and nothing that is not below.
"""
_PREFACE = "Earlier parts of this conversation were put together into these notes:\n\n"


class CondenserSpec(BaseModel):
    """`LLMSummarizingCondenser` of the wire. `llm` None: the agent's own model."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    llm: LlmSettings | None = None
    max_size: int = Field(default=240, ge=4)  #: events that the model is shown
    max_tokens: int | None = Field(default=None, gt=0)  #: of a call, by an estimate; None: no bound
    keep_first: int = Field(default=2, ge=0)


def spec_of(condenser: Mapping[str, Any] | None) -> CondenserSpec | None:
    """What the agent's definition asks for; None for none. Raises ValidationError."""
    if condenser is None:
        return None
    match condenser.get("kind"):
        case "LLMSummarizingCondenser":
            return CondenserSpec.model_validate(condenser)
        case "PipelineCondenser":
            return next((spec for one in condenser.get("condensers", []) if (spec := spec_of(one)) is not None), None)
    return None


def check_condenser(condenser: Mapping[str, Any]) -> None:
    """Raises ValueError saying what of it this runtime cannot take."""
    match condenser.get("kind"):
        case "NoOpCondenser":
            return
        case "LLMSummarizingCondenser":
            try:
                spec_of(condenser)
            except ValidationError as error:
                wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
                raise ValueError("; ".join(wrong)) from None
        case "PipelineCondenser":
            parts = condenser.get("condensers", [])
            if not isinstance(parts, list) or not all(isinstance(one, Mapping) for one in parts):
                raise ValueError("condensers must be a list of condensers")
            for one in parts:
                check_condenser(one)
        case _:
            raise ValueError("kind must be LLMSummarizingCondenser, NoOpCondenser or PipelineCondenser")


@dataclass(frozen=True)
class Cut:
    """The events that are to be forgotten, and where their summary goes."""

    forgotten: Sequence[StoredEvent]
    offset: int


def view(events: Iterable[StoredEvent]) -> list[StoredEvent]:
    """What the model is shown of these events: those of its conversation, with summaries for what is forgotten."""
    shown: list[StoredEvent] = []
    for event in events:
        if isinstance(event, Condensation):
            forgotten = set(event.forgotten_event_ids)
            shown = [one for one in shown if one.id not in forgotten]
            if event.summary is not None:
                shown.insert(min(event.summary_offset or 0, len(shown)), _summary(event))
        elif isinstance(event, _SHOWN):
            shown.append(event)
    return shown


def cut(shown: Sequence[StoredEvent], spec: CondenserSpec, *, down_to: int) -> Cut | None:
    """What to forget so that about `down_to` events are left; None when nothing can be."""
    first = min(spec.keep_first, len(shown))
    while first < len(shown) and not _whole(shown, first):
        first += 1
    last = max(first, len(shown) - max(1, down_to - first - 1))
    while last > first and not _whole(shown, last):
        last -= 1
    forgotten = shown[first:last]
    return Cut(forgotten, first) if len(forgotten) > 1 else None


def request_for(forgotten: Sequence[StoredEvent]) -> list[dict[str, Any]]:
    """The chat that asks for a summary."""
    chat = as_text(History(forgotten, most_characters=_MOST_CHARACTERS).messages())
    return [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": chat}]


def as_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """A chat in words, tool calls included: for a model that is asked about it and not to go on with it."""
    lines: list[str] = []
    for message in messages:
        content = message.get("content")
        text = content if isinstance(content, str) else "\n".join(_part(part) for part in content or [])
        if text:
            lines.append(f"[{message['role']}] {text}")
        for call in message.get("tool_calls") or []:
            lines.append(f"[{message['role']} calls {call['function']['name']}] {call['function']['arguments']}")
    return "\n\n".join(lines)


def _part(part: Mapping[str, Any]) -> str:
    return str(part.get("text", "")) if part.get("type") == "text" else "(an image)"


def _whole(shown: Sequence[StoredEvent], place: int) -> bool:
    """Whether a cut before this place leaves no act without its result, nor a result without its act."""
    open_calls: set[str] = set()
    for event in shown[:place]:
        if isinstance(event, ActionEvent):
            open_calls.add(event.tool_call_id)
        elif isinstance(event, _ANSWERS):
            open_calls.discard(event.tool_call_id)
    if open_calls:
        return False
    # Calls of one answer belong together, also when each has its result.
    before, after = (shown[place - 1] if place else None), (shown[place] if place < len(shown) else None)
    return not (isinstance(before, ActionEvent) and isinstance(after, ActionEvent))


def _summary(event: Condensation) -> MessageEvent:
    return MessageEvent(
        id=f"{event.id}-summary",
        timestamp=event.timestamp,
        source="environment",
        llm_message=Message(role="user", content=[TextContent(text=_PREFACE + (event.summary or ""))]),
    )
