"""The run of a conversation: started, watched to its end, and told to everybody when it is over.

`Runner` owns the task of one conversation's run, and the acts that wait for somebody's leave after it. Whatever way a
run ends, the conversation leaves the status `running`, its sockets get one whole state after the last event, and the
reason of a failure is an event.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import structlog

from runtime.agent.history import History
from runtime.agent.llm import Model
from runtime.agent.loop import Run, Step
from runtime.agent.reply import ModelError
from runtime.agent.stuck import Repetition
from runtime.agent.tools.base import InvalidCall
from runtime.configuration.record import LlmSettings
from runtime.conversations.conversation import Conversation
from runtime.conversations.gate import ConversationGate
from runtime.conversations.goal import Goal
from runtime.conversations.memory import ConversationMemory
from runtime.conversations.recovery import unanswered
from runtime.conversations.status import Status
from runtime.conversations.titles import Profiles, Titles
from runtime.conversations.tools import unknown_tools
from runtime.conversations.turns import Turns, Verdict
from runtime.events.content import Message, text_of
from runtime.events.models import (
    ActionEvent,
    AgentErrorEvent,
    ConversationErrorEvent,
    ErrorClassification,
    InterruptEvent,
    UserRejectObservation,
)
from runtime.secrets.masking import HIDDEN

if TYPE_CHECKING:
    from runtime.conversations.versions import Versions

log = structlog.get_logger()

_CONFIG = ErrorClassification(kind="config", retryable=False, user_action="settings")
_BLOCKED = ErrorClassification(kind="agent_action", retryable=True, user_action="retry")
_BROKEN_OFF = ErrorClassification(kind="agent_action", retryable=True, user_action="retry")
_TIDY_SECONDS = 0.3
_INTERRUPTED = "Interrupted by the user while this tool ran. What it did until then is unknown: check before repeating."
_NOT_KEPT = (
    "This act waited for leave over a restart, and it holds a hidden value that is not kept in the log: call it again."
)
MESSAGE_INSTEAD = "The user sent a message instead of an answer."


class AlreadyRunning(Exception):
    """The conversation's agent is at work; wait for its end, or pause it."""


@dataclass(frozen=True)
class Task:
    """What a run begins with: acts that have leave now, or a message that it gives the agent itself."""

    pending: Sequence[Step] = ()
    message: Message | None = None


class Runner:
    """Starts and ends the runs of one conversation, one at a time."""

    def __init__(
        self,
        conversation: Conversation,
        *,
        llm: Callable[[], LlmSettings],
        profiles: Profiles,
        environment: Callable[[], Mapping[str, str]],
        versions: Callable[[], Versions | None] = lambda: None,
    ) -> None:
        """`versions` is called when the first run begins; None: none are taken of its workspace."""
        self._conversation = conversation
        self._find_versions = versions
        self._versions: Versions | None = None
        self._rested = len(conversation.events)  #: the last event of the run before, or of all that were there
        self.memory = ConversationMemory(conversation, llm=llm)
        self.titles = Titles(conversation, profiles=profiles)
        self._llm = llm
        self._environment = environment
        self._task: asyncio.Task[None] | None = None
        self._interrupted = False
        self._pending: list[Step] = []
        self._goal_stopped = asyncio.Event()

    # -- what may be asked for

    async def submit(self, message: Message, *, event_id: UUID | None = None) -> bool:
        """Add a user's message, on disk when this returns; False when it is not to be answered: its `event_id` is known
        already, or a hook keeps it from the model."""
        untitled = self.titles.wanted
        to_answer = await self._add(message, event_id)
        if untitled and to_answer:
            self.titles.begin(text_of(message.content))
        return to_answer

    async def _add(self, message: Message, event_id: UUID | None) -> bool:
        conversation = self._conversation
        if event_id is not None and conversation.events.contains(event_id):
            return False
        hooks = conversation.record.hook_config
        if hooks is None or not hooks.user_prompt_submit:
            return await conversation.receive(message, event_id=event_id)
        conversation.ensure_system_prompt()
        event_id = event_id or uuid4()
        blocked, contexts = await self._gate().submitted(text_of(message.content), str(event_id))
        if blocked is not None:
            kept = {**conversation.record.blocked_messages, str(event_id): conversation.mask.text(blocked)}
            conversation.record.blocked_messages = kept
        new = await conversation.receive(message, event_id=event_id, extended=contexts)
        return new and blocked is None

    def start(self) -> None:
        """Begin a run; its status is `running` when this returns. Acts that waited for leave are done first.

        Raises AlreadyRunning, OSError.
        """
        conversation = self._conversation
        if conversation.status is Status.RUNNING:
            raise AlreadyRunning
        pending = self._waiting() if conversation.status is Status.WAITING_FOR_CONFIRMATION else []
        self._begin(Task(pending=pending))

    def pursue(self, goal: Goal, message: Message) -> None:
        """Begin a run that ends when the goal is reached, or given up; `running` when this returns. `message` tells the
        agent. Acts that wait for leave keep waiting: AlreadyRunning. Raises OSError."""
        conversation = self._conversation
        if conversation.status in (Status.RUNNING, Status.WAITING_FOR_CONFIRMATION):
            raise AlreadyRunning
        self._begin(Task(message=message))
        conversation.tell_goal(goal)

    def abandon_goal(self) -> None:
        """Pursue the goal no longer; the turn that goes on is not broken off. None is under way: nothing happens."""
        goal = self._conversation.record.goal
        if goal is not None and goal.active:
            self._conversation.tell_goal(goal.interrupted())
            self._goal_stopped.set()

    def _begin(self, task: Task) -> None:
        conversation = self._conversation
        conversation.ensure_system_prompt()
        conversation.pause_requested.clear()
        self._goal_stopped.clear()
        self._pending, self._interrupted = [], False
        conversation.move(Status.RUNNING)
        self._task = asyncio.create_task(self._run(task), name=f"run {conversation.id}")

    async def reject(self, reason: str) -> None:
        """Refuse the acts that wait for leave, on disk when this returns. None wait: nothing happens."""
        conversation = self._conversation
        if conversation.status is not Status.WAITING_FOR_CONFIRMATION:
            return
        for event in unanswered(conversation.events):
            conversation.emit(
                UserRejectObservation,
                tool_name=event.tool_name,
                tool_call_id=event.tool_call_id,
                rejection_reason=conversation.mask.text(reason),
                action_id=event.id,
            )
        self._pending = []
        self.abandon_goal()
        conversation.move(Status.IDLE)
        conversation.publish_full_state()
        await conversation.settle()
        await conversation.save()
        conversation.announce(flush=True)

    async def interrupt(self) -> None:
        """Break off what the agent does now, also in the middle of an answer or a command; it is paused when this
        returns. Without effect when no run goes on."""
        if self._conversation.status is not Status.RUNNING or self._task is None:
            return
        self._interrupted = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def over(self, *, seconds: float | None) -> bool:
        """Whether no run goes on any more, at the latest after `seconds` (None: however long it takes)."""
        if self._task is None:
            return True
        # `wait` leaves the run alone when the one who waits is cancelled.
        done, _ = await asyncio.wait([self._task], timeout=seconds)
        return bool(done)

    async def cancel(self) -> None:
        """Break off a run that goes on, for good. What it had stored stays; a later load says that it was."""
        self._interrupted = False
        await self.titles.end()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        if self._versions is not None:
            await self._versions.close()

    async def end_session(self) -> None:
        """Tell the hooks that the conversation is over."""
        hooks = self._conversation.record.hook_config
        if hooks is not None and hooks.session_end:
            await self._gate().session("SessionEnd")

    # -- the task

    async def _run(self, task: Task) -> None:
        conversation = self._conversation
        try:
            verdict = await self._verdict(task)
            conversation.join(None)
            self._log_end(verdict)
            self._tell(verdict)
            self._rested = len(conversation.events)
            await conversation.settle()
            await conversation.save()
            conversation.announce(flush=True)
            if self._versions is not None:
                await self._versions.rested(self._rested)
        except Exception:  # the edge of a task that nobody awaits: a full disk must not leave it running for ever
            log.error("run.end_not_stored", conversation=str(conversation.id), exc_info=True)
            conversation.record.execution_status = Status.ERROR
            if (goal := conversation.record.goal) is not None and goal.active:
                conversation.record.goal = goal.interrupted()
            conversation.publish_full_state()
            conversation.announce(flush=True)
        finally:
            conversation.join(None)

    def _log_end(self, verdict: Verdict) -> None:
        conversation = self._conversation
        said = conversation.mask.tree(conversation.record.observability.fields)
        log.info("run.ended", conversation=str(conversation.id), status=verdict.status.value, code=verdict.code, **said)

    async def _verdict(self, task: Task) -> Verdict:
        conversation = self._conversation
        try:
            await conversation.save()
            return await self._work(task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not self._interrupted or current is None:
                raise
            current.uncancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TIDY_SECONDS):
                    await conversation.toolbox.interrupt()
            await self._resting()
            return Verdict(Status.PAUSED, interrupted=True)

    def _tell(self, verdict: Verdict) -> None:
        """In one step: the error, the status, and the whole state as the last frame of the run."""
        conversation = self._conversation
        if verdict.interrupted:
            self._tell_interrupt()
        if verdict.code is not None:
            conversation.emit(
                ConversationErrorEvent,
                code=verdict.code,
                detail=conversation.mask.text(verdict.detail),
                classification=verdict.classification,
            )
        if verdict.status is not Status.WAITING_FOR_CONFIRMATION:
            self.abandon_goal()
        conversation.move(verdict.status)
        conversation.publish_full_state()

    def _tell_interrupt(self) -> None:
        """Every call that was broken off gets an answer: a model needs one, and so does who reads the log."""
        conversation = self._conversation
        for event in unanswered(conversation.events):
            conversation.emit(
                AgentErrorEvent,
                tool_name=event.tool_name,
                tool_call_id=event.tool_call_id,
                error=_INTERRUPTED,
                classification=_BROKEN_OFF,
            )
        conversation.emit(InterruptEvent)

    async def _work(self, task: Task) -> Verdict:
        conversation = self._conversation
        try:
            if task.message is not None and not await self.submit(task.message):
                return Verdict(Status.ERROR, "GoalBlocked", "A hook keeps the objective from the agent.", _BLOCKED)
            return await self._to_verdict(task.pending)
        except ModelError as error:
            conversation.secrets.refresh_mask()
            return Verdict(Status.ERROR, error.code, error.detail, error.classification)
        except Exception:  # the loop's edge: whatever failed, the conversation must say so and stay usable
            error_id = str(uuid4())
            log.error("run.failed", conversation=str(conversation.id), error_id=error_id, exc_info=True)
            internal = ErrorClassification(kind="internal", retryable=True, user_action="retry", error_id=error_id)
            return Verdict(Status.ERROR, "InternalError", f"The run failed inside the runtime ({error_id}).", internal)

    async def _to_verdict(self, pending: Sequence[Step]) -> Verdict:
        conversation, record = self._conversation, self._conversation.record
        unknown = unknown_tools(record.agent)
        if unknown:
            return Verdict(Status.ERROR, "ToolNotFound", f"This runtime has no tool named {unknown[0]!r}.", _CONFIG)
        if self._versions is None:
            self._versions = self._find_versions()
        llm, gate = self._llm(), self._gate()
        conversation.secrets.refresh_mask()
        await self._begin_session(gate)
        await conversation.toolbox.connect()
        history = await self.memory.read()
        if not pending:
            history.abandon_calls()  # of a branch that ends in the middle of an act
        conversation.join(history)
        if self._versions is not None:
            await self._versions.begin_run(self._rested + 1 if self._rested else 0)

        def run(history: History, pending: Sequence[Step] = ()) -> Run:
            return Run(
                journal=conversation,
                history=history,
                model=Model(llm),
                toolbox=conversation.toolbox,
                gate=gate,
                memory=self.memory,
                repetition=Repetition(record.stuck_thresholds) if record.stuck_detection else None,
                max_iterations=record.max_iterations,
                concurrency=record.agent.tool_concurrency_limit or 1,
                pending=pending,
            )

        turns = Turns(conversation, self.memory, goal_stopped=self._goal_stopped, another=run, resting=self._resting)
        verdict = await turns.to_end(run(history, pending))
        self._pending = list(verdict.pending)
        return verdict

    async def _resting(self) -> None:
        if self._versions is not None:
            await self._versions.resting()

    async def _begin_session(self, gate: ConversationGate) -> None:
        record = self._conversation.record
        if record.hook_config is not None and not record.session_begun:
            record.session_begun = True
            await gate.session("SessionStart")

    def _gate(self) -> ConversationGate:
        return ConversationGate(self._conversation, environment=self._environment(), versions=self._versions)

    def _waiting(self) -> list[Step]:
        """The acts that wait for leave; after a restart as the log has them."""
        return self._pending or [self._restored(event) for event in unanswered(self._conversation.events)]

    def _restored(self, event: ActionEvent) -> Step:
        arguments = event.tool_call.arguments
        if HIDDEN in arguments:
            return Step(event=event, call=None, refusal=_NOT_KEPT)
        try:
            return Step(event=event, call=self._conversation.toolbox.check(event.tool_name, arguments), refusal="")
        except InvalidCall as invalid:
            return Step(event=event, call=None, refusal=str(invalid))
