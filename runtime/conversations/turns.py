"""From the beginning of a run to its verdict: one turn of the agent, or one after the other until a goal is reached.

The runner gives it the first turn; what a verdict means for the conversation is the runner's affair. Between the end of
the last turn and the verdict nothing waits, so neither a message nor a pause is lost there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from runtime.agent.history import History
from runtime.agent.loop import Ending, Run, Step
from runtime.conversations.conversation import Conversation
from runtime.conversations.goal import Goal, following
from runtime.conversations.memory import ConversationMemory
from runtime.conversations.status import Status
from runtime.events.models import ErrorClassification, MessageEvent

_LIMIT = ErrorClassification(kind="agent_action", retryable=True, user_action="retry")
_BUDGET = ErrorClassification(kind="quota", retryable=True, user_action="settings")


@dataclass(frozen=True)
class Verdict:
    """The status that a run ends in, and the error that goes with it."""

    status: Status
    code: str | None = None
    detail: str = ""
    classification: ErrorClassification | None = None
    interrupted: bool = False
    pending: Sequence[Step] = ()  #: acts that wait for leave


class Turns:
    """`another` makes the next turn over a history; `goal_stopped` ends the wait for the judge; `resting` is called
    when a turn acts no more."""

    def __init__(
        self,
        conversation: Conversation,
        memory: ConversationMemory,
        *,
        goal_stopped: asyncio.Event,
        another: Callable[[History], Run],
        resting: Callable[[], Awaitable[None]],
    ) -> None:
        self._conversation = conversation
        self._memory = memory
        self._goal_stopped = goal_stopped
        self._another = another
        self._resting = resting

    async def to_end(self, run: Run) -> Verdict:
        """Turn after turn: one, or as many as the goal takes. Raises ModelError."""
        conversation, record = self._conversation, self._conversation.record
        while True:
            ending = await run.to_end()
            await conversation.settle()
            await self._resting()
            # From here to the new status nothing waits, so neither message nor pause falls between run and end.
            match ending:
                case Ending.ITERATIONS:
                    detail = f"The agent used up its {record.max_iterations} iterations without ending the turn."
                    return Verdict(Status.ERROR, "MaxIterationsReached", detail, _LIMIT)
                case Ending.BUDGET:
                    detail = f"The run has cost the ${record.max_budget_per_run:.4f} that it may cost."
                    return Verdict(Status.ERROR, "MaxBudgetReached", detail, _BUDGET)
                case Ending.STUCK if self._goal is None:
                    return Verdict(Status.STUCK)
                case Ending.ASKING:
                    return Verdict(Status.WAITING_FOR_CONFIRMATION, pending=run.pending)
            if ending is Ending.PAUSED or conversation.pause_requested.is_set():
                return Verdict(Status.PAUSED)
            if run.history.unanswered > 0:
                continue
            goal = self._goal
            if goal is None:
                return Verdict(Status.FINISHED)
            goal = await self._judged(goal, run.history)
            if conversation.pause_requested.is_set():
                return Verdict(Status.PAUSED)
            if run.history.unanswered > 0:  # somebody spoke meanwhile, which ended the goal
                continue
            if goal is None:
                return Verdict(Status.FINISHED)
            told = conversation.emit(MessageEvent, source="environment", llm_message=following(goal))
            run.history.add(told)
            run = self._another(run.history)

    @property
    def _goal(self) -> Goal | None:
        """The one that is under way."""
        goal = self._conversation.record.goal
        return goal if goal is not None and goal.active else None

    async def _judged(self, goal: Goal, history: History) -> Goal | None:
        """The goal after one more round, None when it is over. Being stopped, or a pause, ends the wait for the judge.

        Raises ModelError.
        """
        conversation = self._conversation
        asked = asyncio.ensure_future(self._memory.judge(goal, history))
        ends = [asyncio.ensure_future(end.wait()) for end in (self._goal_stopped, conversation.pause_requested)]
        try:
            await asyncio.wait([asked, *ends], return_when=asyncio.FIRST_COMPLETED)
            if asked.done() and goal is self._goal:
                judgement = asked.result()
                missing = conversation.mask.text(judgement.missing)
                conversation.tell_goal(goal.judged(judgement.model_copy(update={"missing": missing})))
        finally:
            for one in (asked, *ends):
                one.cancel()
            await asyncio.gather(asked, *ends, return_exceptions=True)
        return self._goal
