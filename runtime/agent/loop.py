"""One run of the agent: ask the model, do what it says, until it has nothing more to do.

A conversation starts a run and gives it a `Journal`, the only way in which a run changes the conversation, and a
`Gate`, which may hold acts back. The loop decides how a run ends; what that means for the conversation's status is the
conversation's affair. A run that is broken off (cancelled) leaves its log as it is.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from runtime.agent.around import Gate, Journal, Memory
from runtime.agent.history import History
from runtime.agent.llm import Model
from runtime.agent.reply import CONTEXT_EXCEEDED, AskingAbandoned, ModelError, Reply
from runtime.agent.size import tokens_of
from runtime.agent.stuck import Repetition, acted, refused
from runtime.agent.tools.base import Call, InvalidCall, Toolbox
from runtime.events.actions import FinishAction, Observation, ThinkAction
from runtime.events.content import AnyThinkingBlock, Message, TextContent, ToolCall
from runtime.events.models import (
    ActionEvent,
    AgentErrorEvent,
    ErrorClassification,
    MessageEvent,
    ObservationEvent,
    StreamingDeltaEvent,
    UserRejectObservation,
)
from runtime.secrets.masking import MaskedStream

_OBJECTION = "The turn is not over. A stop hook says:"
_AGENT_FAULT = ErrorClassification(kind="agent_action", retryable=True, user_action="retry")


class Ending(enum.StrEnum):
    """How a run ended."""

    FINISHED = "finished"  #: the agent gave the turn back
    PAUSED = "paused"  #: it was asked to stop after its step
    ASKING = "asking"  #: what it wants to do next waits for somebody's leave
    ITERATIONS = "iterations"  #: it used up the limit
    BUDGET = "budget"  #: it used up the money
    STUCK = "stuck"  #: it repeats itself


@dataclass(frozen=True)
class Step:
    """A tool call that is in the log."""

    event: ActionEvent
    call: Call | None
    refusal: str


class Run:
    """One run; used once. `pending` are acts that waited for leave and have it now."""

    def __init__(
        self,
        *,
        journal: Journal,
        history: History,
        model: Model,
        toolbox: Toolbox,
        gate: Gate,
        memory: Memory,
        repetition: Repetition | None,
        max_iterations: int,
        concurrency: int = 1,
        pending: Sequence[Step] = (),
    ) -> None:
        self._journal = journal
        self.history = history
        self._model = model
        self._toolbox = toolbox
        self._gate = gate
        self._memory = memory
        self._repetition = repetition
        self._iterations_left = max_iterations
        self._concurrency = max(1, concurrency)
        self._content, self._reasoning = MaskedStream(journal.mask), MaskedStream(journal.mask)
        #: what the run ended with before it could be done: Ending.ASKING
        self.pending = list(pending)

    async def to_end(self) -> Ending:
        """Run until the turn ends, leave is needed, a pause is asked for, or a limit is reached. Raises ModelError.

        May be called again, for a message that came after the turn had ended; the limit counts for all calls.
        """
        while self._iterations_left > 0 or self.pending:
            if self._journal.pause_requested.is_set():
                return Ending.PAUSED
            if self.pending:
                ending = await self._do(self.pending)
            elif self._gate.over_budget():
                return Ending.BUDGET
            else:
                self._iterations_left -= 1
                ending = await self._ask()
            if ending is not None:
                return ending
        return Ending.ITERATIONS

    async def _ask(self) -> Ending | None:
        if self._repetition is not None and self.history.unanswered:
            self._repetition.began_anew()
        if (self._memory.too_long or self._is_heavy()) and await self._memory.condense():
            await self._reread()
        self.history.asking()
        try:
            reply = await self._reply()
        except AskingAbandoned:
            self.history.answered()
            return Ending.PAUSED
        await self._journal.on_reply(reply)
        if not reply.tool_calls:
            self._say(reply)
            self.history.answered()
            return await self._given_back()
        steps = self._record(reply)
        self.history.answered()
        await self._journal.settle()  # what is about to be done is on disk before it has effects
        return await self._weigh(steps)

    def _is_heavy(self) -> bool:
        most = self._memory.most_tokens
        return most is not None and tokens_of(self.history.messages(), self._toolbox.schemas()) > most

    async def _reply(self) -> Reply:
        """The model's answer. When it can take no more, the history is condensed and it is asked once again."""
        try:
            return await self._call()
        except ModelError as error:
            if error.code != CONTEXT_EXCEEDED or not self._memory.can_condense:
                raise
            self.history.answered()
            if not await self._memory.condense(hard=True):
                raise
        await self._reread()
        self.history.asking()
        return await self._call()

    async def _call(self) -> Reply:
        self._content, self._reasoning = MaskedStream(self._journal.mask), MaskedStream(self._journal.mask)
        reply = await self._model.ask(
            self.history.messages(),
            self._toolbox.schemas(),
            on_delta=self._on_delta,
            abandon=self._journal.pause_requested,
        )
        content, reasoning = self._content.rest(), self._reasoning.rest()
        if content or reasoning:
            self._stream(content or None, reasoning or None)
        return reply

    async def _reread(self) -> None:
        unanswered = self.history.unanswered
        self.history = await self._memory.read()
        self.history.abandon_calls()
        self.history.unanswered = max(unanswered, 0)
        self._journal.join(self.history)

    async def _given_back(self) -> Ending | None:
        """The turn is over, unless a message came meanwhile: that is answered in this run, not left for the next. Or
        unless somebody has an objection, which the agent is told."""
        if self.history.unanswered:
            return None
        if self._journal.pause_requested.is_set():
            return Ending.PAUSED
        objection = await self._gate.stopping()
        if objection is None:
            return Ending.FINISHED
        told = Message(role="user", content=[TextContent(text=self._journal.mask.text(f"{_OBJECTION} {objection}"))])
        self.history.add(self._journal.emit(MessageEvent, source="environment", llm_message=told))
        return None

    def _on_delta(self, content: str | None, reasoning: str | None) -> None:
        shown = None if content is None else self._content.feed(content)
        thought = None if reasoning is None else self._reasoning.feed(reasoning)
        # An empty piece is passed on; one that only waits is not.
        if shown or thought or not (content or reasoning):
            self._stream(shown, thought)

    def _stream(self, content: str | None, reasoning: str | None) -> None:
        event = self._journal.live(StreamingDeltaEvent, content=content, reasoning_content=reasoning)
        self._journal.send_live(event)

    def _say(self, reply: Reply) -> None:
        message = Message(
            role="assistant",
            content=[TextContent(text=self._journal.mask.text(reply.text))] if reply.text else [],
            reasoning_content=self._hidden(reply.reasoning),
            thinking_blocks=self._shown_thinking(reply),
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
                reasoning_content=self._hidden(reply.reasoning) if first else None,
                thinking_blocks=self._shown_thinking(reply) if first else [],
                action=mask.model(call.action) if call is not None else None,
                tool_name=tool_call.name,
                tool_call_id=tool_call.id,
                tool_call=mask.model(tool_call),
                llm_response_id=reply.response_id,
                security_risk=self._gate.judged(call.risk) if call is not None else "UNKNOWN",
                summary=mask.text(_summary(tool_call, call)) if call is not None else None,
            )
            self.history.add(event)
            steps.append(Step(event=event, call=call, refusal=refusal))
        return steps

    def _hidden(self, text: str | None) -> str | None:
        return None if text is None else self._journal.mask.text(text)

    def _shown_thinking(self, reply: Reply) -> list[AnyThinkingBlock]:
        """Without those that name a value: a provider takes a block back as it made it, or not at all."""
        return [block for block in reply.thinking_blocks if self._journal.mask.model(block) == block]

    def _check(self, tool_call: ToolCall) -> tuple[Call | None, str]:
        try:
            return self._toolbox.check(tool_call.name, tool_call.arguments), ""
        except InvalidCall as invalid:
            return None, str(invalid)

    async def _weigh(self, steps: Sequence[Step]) -> Ending | None:
        """Do the steps, or end the run to ask for leave; what cannot be done in any case is answered before."""
        calls = [step.call for step in steps if step.call is not None]
        harmless = len(calls) == 1 and isinstance(calls[0].action, FinishAction | ThinkAction)
        if not calls or harmless or not self._gate.must_ask([call.risk for call in calls]):
            return await self._do(steps)
        for step in steps:
            if step.call is None:
                self._refuse(step)
        self.pending = [step for step in steps if step.call is not None]
        return Ending.ASKING

    async def _do(self, steps: Sequence[Step]) -> Ending | None:
        """Every step in order; those that may overlap, next to one another, at once. Their results keep the order."""
        finished = False
        for overlap, group in groupby(steps, key=lambda step: self._toolbox.may_overlap(step.event.tool_name)):
            several = list(group)
            async for step, result in self._results(several, self._concurrency if overlap else 1):
                finished = self._conclude(step, result) or finished
                if step.call is not None:
                    self._gate.concluded(step.call)
        self.pending = []
        if finished:
            return await self._given_back()
        stuck = self._repetition is not None and self._repetition.is_stuck and not self.history.unanswered
        return Ending.STUCK if stuck else None

    async def _results(
        self, steps: Sequence[Step], at_once: int
    ) -> AsyncIterator[tuple[Step, Observation | str | None]]:
        """Each step with what came of it: an observation, the words of who refused it, None for no valid call."""
        if at_once == 1 or len(steps) == 1:
            for step in steps:
                yield step, await self._take(step)
            return
        slots = asyncio.Semaphore(at_once)

        async def one(step: Step) -> Observation | str | None:
            async with slots:
                return await self._take(step)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(step)) for step in steps]
        for step, task in zip(steps, tasks, strict=True):
            yield step, task.result()

    async def _take(self, step: Step) -> Observation | str | None:
        if step.call is None:
            return None
        refusal = await self._gate.before(step.event, step.call)
        if refusal is not None:
            return refusal
        observation = await self._toolbox.run(step.event.tool_name, step.call.action)
        await self._gate.after(step.event, step.call, observation)
        return observation

    def _conclude(self, step: Step, result: Observation | str | None) -> bool:
        """Put into the log what came of a step; True when it gives the turn back."""
        if step.call is None or result is None:
            self._refuse(step)
            return False
        event, mask = step.event, self._journal.mask
        if isinstance(result, str):
            rejected = self._journal.emit(
                UserRejectObservation,
                tool_name=event.tool_name,
                tool_call_id=event.tool_call_id,
                rejection_reason=mask.text(result),
                rejection_source="hook",
                action_id=event.id,
            )
            self.history.add(rejected)
            self._note(step, refused(event.tool_name, event.tool_call.arguments, result))
            return False
        observed = self._journal.emit(
            ObservationEvent,
            tool_name=event.tool_name,
            tool_call_id=event.tool_call_id,
            observation=mask.model(result),
            action_id=event.id,
        )
        self.history.add(observed)
        self._note(step, acted(event.tool_name, step.call, result))
        return isinstance(step.call.action, FinishAction)

    def _refuse(self, step: Step) -> None:
        event = step.event
        error = self._journal.emit(
            AgentErrorEvent,
            tool_name=event.tool_name,
            tool_call_id=event.tool_call_id,
            error=self._journal.mask.text(step.refusal),
            classification=_AGENT_FAULT,
        )
        self.history.add(error)
        self._note(step, refused(event.tool_name, event.tool_call.arguments, step.refusal))

    def _note(self, step: Step, act: Any) -> None:
        if self._repetition is not None:
            self._repetition.note(act)


def _summary(tool_call: ToolCall, call: Call) -> str:
    """The model's own, or the call itself."""
    return call.summary or f"{tool_call.name}: {tool_call.arguments}"
