"""How a start is told while it runs: each step of the saga becomes a named stage of the operation.

What is told goes out with the saga's own log, in the same call: a start waits for the state server's disk once a step.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import Conversation, Why
from orchestrator.domain.errors import NotFound
from orchestrator.domain.operation import OperationState, Stage, StageState
from orchestrator.services.failures import explain
from orchestrator.services.saga import Progress
from orchestrator.state.base import Operations, Told
from orchestrator.telemetry import metrics


class OperationProgress(Progress):
    """Writes the stages of one operation. A conversation without one is told nothing."""

    def __init__(
        self,
        operations: Operations,
        conversation: Conversation,
        clock: Clock,
        hide: Callable[[Why], Awaitable[Why]],
    ) -> None:
        """`hide` takes out of a failure's words what the runtime was told (`discretion.py`)."""
        self._hide = hide
        self._operations = operations
        self._conversation = conversation
        self._clock = clock
        self._began: dict[str, tuple[Stage, float]] = {}
        self._heard: dict[str, Stage] = {}  #: not handed out yet
        self._handed: dict[str, Stage] = {}  #: the last ones that were; the call that they went with may have failed
        self.current = ""  #: the step that runs, or the last one that ran

    def started(self, step: str) -> None:
        self.current = step
        self._heard[step] = Stage(step, StageState.RUNNING, started_at=self._clock.now())
        self._began[step] = (self._heard[step], self._clock.monotonic())

    def succeeded(self, step: str, message: str | None = None) -> None:
        self._end(step, StageState.SUCCEEDED, message)

    def told(self) -> Told | None:
        self._handed, self._heard = self._heard, {}
        operation = self._conversation.operation
        return None if operation is None else Told(operation, tuple(self._handed.values()))

    async def failed(self, step: str, failure: BaseException) -> None:
        message = "interrupted"
        if isinstance(failure, Exception):
            message = (await self._hide(explain(step, failure))).message
        self._end(step, StageState.FAILED, message)
        for stage in {**self._handed, **self._heard}.values():
            await self._write(stage)

    def _end(self, step: str, state: StageState, message: str | None) -> None:
        stage, began = self._began.get(step, (Stage(step), self._clock.monotonic()))
        seconds = round(self._clock.monotonic() - began, 3)
        metrics.STEP_SECONDS.labels(step, state).observe(seconds)
        self._heard[step] = replace(stage, state=state, seconds=seconds, message=message)

    async def _write(self, stage: Stage) -> None:
        if self._conversation.operation is not None:
            with suppress(NotFound):  # forgotten a day after it ended; the start itself goes on
                await self._operations.stage(self._conversation.tenant, self._conversation.operation, stage)


async def finish(
    operations: Operations, conversation: Conversation, state: OperationState, why: Why | None = None
) -> None:
    """End the operation that the record of this conversation names, if it names one. Raises `StoreUnavailable`."""
    if conversation.operation is not None:
        with suppress(NotFound):  # it ended more than a day ago
            await operations.finish(conversation.tenant, conversation.operation, state, failure=why)
