"""One run of the agent: ask the model, do what it says, until it has nothing more to do.

A conversation starts a run and gives it a `Journal`, the only way in which a run changes the conversation. The loop
decides how a run ends; what that means for the conversation's status is the conversation's affair.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from runtime.agent.history import History
from runtime.agent.llm import Model
from runtime.agent.reply import AskingAbandoned, Reply
from runtime.agent.tools.base import Call, InvalidCall, Toolbox
from runtime.events.actions import FinishAction
from runtime.events.content import Message, TextContent, ToolCall
from runtime.events.models import (
    ActionEvent,
    AgentErrorEvent,
    ErrorClassification,
    Event,
    EventBase,
    MessageEvent,
    ObservationEvent,
    StreamingDeltaEvent,
)
from runtime.secrets.masking import Mask

E = TypeVar("E", bound=EventBase)

_AGENT_FAULT = ErrorClassification(kind="agent_action", retryable=True, user_action="retry")


class Ending(enum.StrEnum):
    """How a run ended."""

    FINISHED = "finished"  #: the agent gave the turn back
    PAUSED = "paused"  #: it was asked to stop after its step
    ITERATIONS = "iterations"  #: it used up the limit


class Journal(Protocol):
    """What a run sees of its conversation."""

    mask: Mask
    pause_requested: asyncio.Event

    def emit(self, kind: type[E], **fields: Any) -> E:
        """Store an event and send it."""

    def send_live(self, event: Event) -> None:
        """Send an event that is not stored."""

    def live(self, kind: type[E], **fields: Any) -> E:
        """Make an event that is not stored."""

    async def on_reply(self, reply: Reply) -> None:
        """Count what the answer cost, store it, tell it."""

    async def settle(self) -> None:
        """Wait until what was emitted survives a power cut."""


@dataclass(frozen=True)
class Step:
    """A tool call that is in the log."""

    event: ActionEvent
    call: Call | None
    refusal: str


class Run:
    """One run; used once."""

    def __init__(
        self, *, journal: Journal, history: History, model: Model, toolbox: Toolbox, max_iterations: int
    ) -> None:
        self._journal = journal
        self.history = history
        self._model = model
        self._toolbox = toolbox
        self._iterations_left = max_iterations

    async def to_end(self) -> Ending:
        """Run until the turn ends, a pause is asked for, or the limit is reached. Raises ModelError.

        May be called again, for a message that came after the turn had ended; the limit counts for all calls.
        """
        while self._iterations_left > 0:
            self._iterations_left -= 1
            if self._journal.pause_requested.is_set():
                return Ending.PAUSED
            self.history.asking()
            try:
                reply = await self._model.ask(
                    self.history.messages(),
                    self._toolbox.schemas(),
                    on_delta=self._on_delta,
                    abandon=self._journal.pause_requested,
                )
            except AskingAbandoned:
                self.history.answered()
                return Ending.PAUSED
            await self._journal.on_reply(reply)
            gave_back = await self._act(reply)
            # A message that came meanwhile is answered in this run, not left for the next one.
            if gave_back and not self.history.unanswered:
                return Ending.PAUSED if self._journal.pause_requested.is_set() else Ending.FINISHED
        return Ending.ITERATIONS

    def _on_delta(self, content: str | None, reasoning: str | None) -> None:
        mask = self._journal.mask
        self._journal.send_live(
            self._journal.live(
                StreamingDeltaEvent,
                content=None if content is None else mask.text(content),
                reasoning_content=None if reasoning is None else mask.text(reasoning),
            )
        )

    async def _act(self, reply: Reply) -> bool:
        """Store the answer and run its calls; True when it gives the turn back."""
        if not reply.tool_calls:
            self._say(reply)
            self.history.answered()
            return True
        steps = self._record(reply)
        self.history.answered()
        await self._journal.settle()  # what is about to be done is on disk before it has effects
        for step in steps:
            await self._take(step)
        return any(step.call is not None and isinstance(step.call.action, FinishAction) for step in steps)

    def _say(self, reply: Reply) -> None:
        message = Message(
            role="assistant",
            content=[TextContent(text=self._journal.mask.text(reply.text))] if reply.text else [],
            reasoning_content=reply.reasoning,
            thinking_blocks=reply.thinking_blocks,
        )
        self.history.add(
            self._journal.emit(MessageEvent, source="agent", llm_message=message, llm_response_id=reply.response_id)
        )

    def _record(self, reply: Reply) -> Sequence[Step]:
        """One ActionEvent a call, all before the first is run; text and reasoning go with the first."""
        mask = self._journal.mask
        steps: list[Step] = []
        for position, tool_call in enumerate(reply.tool_calls):
            call, refusal = self._check(tool_call)
            first = position == 0
            event = self._journal.emit(
                ActionEvent,
                thought=[TextContent(text=mask.text(reply.text))] if first and reply.text else [],
                reasoning_content=reply.reasoning if first else None,
                thinking_blocks=reply.thinking_blocks if first else [],
                action=mask.model(call.action) if call is not None else None,
                tool_name=tool_call.name,
                tool_call_id=tool_call.id,
                tool_call=mask.model(tool_call),
                llm_response_id=reply.response_id,
                summary=mask.text(_summary(tool_call, call)) if call is not None else None,
            )
            self.history.add(event)
            steps.append(Step(event=event, call=call, refusal=refusal))
        return steps

    def _check(self, tool_call: ToolCall) -> tuple[Call | None, str]:
        try:
            return self._toolbox.check(tool_call.name, tool_call.arguments), ""
        except InvalidCall as invalid:
            return None, str(invalid)

    async def _take(self, step: Step) -> None:
        event = step.event
        if step.call is None:
            self.history.add(
                self._journal.emit(
                    AgentErrorEvent,
                    tool_name=event.tool_name,
                    tool_call_id=event.tool_call_id,
                    error=self._journal.mask.text(step.refusal),
                    classification=_AGENT_FAULT,
                )
            )
            return
        observation = await self._toolbox.run(event.tool_name, step.call.action)
        self.history.add(
            self._journal.emit(
                ObservationEvent,
                tool_name=event.tool_name,
                tool_call_id=event.tool_call_id,
                observation=self._journal.mask.model(observation),
                action_id=event.id,
            )
        )


def _summary(tool_call: ToolCall, call: Call) -> str:
    """The model's own, or the call itself."""
    return call.summary or f"{tool_call.name}: {tool_call.arguments}"
