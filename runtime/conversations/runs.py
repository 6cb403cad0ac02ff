"""The run of a conversation: started, watched to its end, and told to everybody when it is over.

`Runner` owns the task of one conversation's run. Whatever way a run ends, the conversation leaves the status `running`,
its sockets get one whole state after the last event, and the reason of a failure is an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import structlog

from runtime.agent.history import History
from runtime.agent.llm import Model
from runtime.agent.loop import Ending, Run
from runtime.agent.reply import ModelError
from runtime.configuration.record import LlmSettings
from runtime.conversations.conversation import Conversation
from runtime.conversations.status import Status
from runtime.conversations.tools import unknown_tools
from runtime.events.models import ConversationErrorEvent, ErrorClassification, parse

log = structlog.get_logger()

_CONFIG = ErrorClassification(kind="config", retryable=False, user_action="settings")
_LIMIT = ErrorClassification(kind="agent_action", retryable=True, user_action="retry")


class AlreadyRunning(Exception):
    """The conversation's agent is at work; wait for its end, or pause it."""


@dataclass(frozen=True)
class Verdict:
    """The status that a run ends in, and the error that goes with it."""

    status: Status
    code: str | None = None
    detail: str = ""
    classification: ErrorClassification | None = None


class Runner:
    """Starts and ends the runs of one conversation, one at a time."""

    def __init__(self, conversation: Conversation, *, llm: Callable[[], LlmSettings]) -> None:
        self._conversation = conversation
        self._llm = llm
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin a run; its status is `running` when this returns. Raises AlreadyRunning, OSError."""
        conversation = self._conversation
        if conversation.status is Status.RUNNING:
            raise AlreadyRunning
        conversation.ensure_system_prompt()
        conversation.pause_requested.clear()
        conversation.move(Status.RUNNING)
        self._task = asyncio.create_task(self._run(), name=f"run {conversation.id}")

    async def cancel(self) -> None:
        """Break off a run that goes on. What it had stored stays; a later load tells that it was broken off."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def _run(self) -> None:
        conversation = self._conversation
        try:
            await conversation.save()
            verdict = await self._work()
            conversation.join(None)
            self._tell(verdict)
            await conversation.settle()
            await conversation.save()
        except Exception:  # the edge of a task that nobody awaits: a full disk must not leave it running for ever
            log.error("run.end_not_stored", conversation=str(conversation.id), exc_info=True)
            conversation.record.execution_status = Status.ERROR
            conversation.publish_full_state()
        finally:
            conversation.join(None)

    def _tell(self, verdict: Verdict) -> None:
        """In one step: the error, the status, and the whole state as the last frame of the run."""
        conversation = self._conversation
        if verdict.code is not None:
            conversation.emit(
                ConversationErrorEvent,
                code=verdict.code,
                detail=conversation.mask.text(verdict.detail),
                classification=verdict.classification,
            )
        conversation.move(verdict.status)
        conversation.publish_full_state()

    async def _work(self) -> Verdict:
        conversation = self._conversation
        try:
            return await self._to_verdict()
        except ModelError as error:
            conversation.secrets.refresh_mask()
            return Verdict(Status.ERROR, error.code, error.detail, error.classification)
        except Exception:  # the loop's edge: whatever failed, the conversation must say so and stay usable
            error_id = str(uuid4())
            log.error("run.failed", conversation=str(conversation.id), error_id=error_id, exc_info=True)
            internal = ErrorClassification(kind="internal", retryable=True, user_action="retry", error_id=error_id)
            return Verdict(Status.ERROR, "InternalError", f"The run failed inside the runtime ({error_id}).", internal)

    async def _to_verdict(self) -> Verdict:
        conversation = self._conversation
        unknown = unknown_tools(conversation.record.agent)
        if unknown:
            return Verdict(Status.ERROR, "ToolNotFound", f"This runtime has no tool named {unknown[0]!r}.", _CONFIG)
        llm = self._llm()
        conversation.secrets.refresh_mask()
        history = await self._read_history(llm.max_message_chars)
        conversation.join(history)
        run = Run(
            journal=conversation,
            history=history,
            model=Model(llm),
            toolbox=conversation.toolbox,
            max_iterations=conversation.record.max_iterations,
        )
        return await self._ended(run)

    async def _read_history(self, most_characters: int) -> History:
        """The whole log, read in a thread; what came meanwhile is added in the same step in which this returns."""
        events = self._conversation.events
        count = len(events)
        history = await asyncio.to_thread(
            lambda: History(map(parse, events.lines(0, count)), most_characters=most_characters)
        )
        for line in events.lines(count, len(events)):
            history.add(parse(line))
        return history

    async def _ended(self, run: Run) -> Verdict:
        conversation = self._conversation
        while True:
            ending = await run.to_end()
            await conversation.settle()
            # From here to the new status nothing waits, so neither message nor pause falls between run and end.
            if ending is Ending.ITERATIONS:
                limit = conversation.record.max_iterations
                detail = f"The agent used up its {limit} iterations without ending the turn."
                return Verdict(Status.ERROR, "MaxIterationsReached", detail, _LIMIT)
            if ending is Ending.PAUSED or conversation.pause_requested.is_set():
                return Verdict(Status.PAUSED)
            if not run.history.unanswered:
                return Verdict(Status.FINISHED)
