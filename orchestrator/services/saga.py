"""A saga: steps with undo, each logged before it runs, or beside it or not at all where nothing would be undone by its
entry.

`provisioning.py` has the steps, this file runs them.

A step that may have run is undone, whether or not it answered. Every do and undo can run twice. An undo that fails is
`stuck`: the log keeps it with a message, and whoever claims the conversation next tries again.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Generic, TypeVar

import anyio
import structlog

from orchestrator.domain.errors import LeaseLost, NestorError, StepOverdue
from orchestrator.domain.step_seconds import STEP_SECONDS, UNDO_SECONDS, UNWIND_SECONDS
from orchestrator.services.beside import beside
from orchestrator.state.base import Lease, SagaLog, Told
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
C = TypeVar("C")
T = TypeVar("T")
STUCK_RETRY_MS = 5_000


async def _nothing(_context: object) -> None:
    """The undo of a step that another step's undo covers."""


def _no_note(_context: object) -> str:
    return ""


def _no_word(_context: object) -> str | None:
    return None


def _never(_context: object) -> bool:
    return False


class Logged(Enum):
    """When the entry of a step is written."""

    BEFORE = "before"
    #: while it runs: nobody undoes by the entry, and who is asked for something looks at the fence as well
    BESIDE = "beside"
    #: never, and so it has no undo of its own: what undoes an earlier step undoes it
    NOT = "not"


@dataclass(frozen=True)
class Step(Generic[C]):
    """One act. `note` is what undo needs after a crash and is known before the act, such as the name it will claim."""

    name: str
    do: Callable[[C], Awaitable[None]]
    undo: Callable[[C, str], Awaitable[None]] | None = None
    note: Callable[[C], str] = _no_note
    tell: Callable[[C], str | None] = _no_word  #: what is told of it when it is done
    #: whether an earlier step has done what it does, and undoes that: it is passed over, and is not logged
    needless: Callable[[C], bool] = _never
    logged: Logged = Logged.BEFORE


class StepFailed(Exception):
    """A step raised; the cause is the failure itself. Carries the step's name for whoever tells the user."""

    def __init__(self, step: str, cause: BaseException) -> None:
        super().__init__(step)
        self.step = step
        self.cause = cause


async def within(step: str, seconds: float, doing: Awaitable[T]) -> T:
    """What `doing` answers. Raises `StepOverdue` when it takes longer than that; then it is cancelled, which leaves a
    call of a driver to its own end (`drivers/calls.py`)."""
    with anyio.move_on_after(seconds):
        return await doing
    metrics.STEPS_OVERDUE.labels(step).inc()
    log.warning("step.overdue", step=step, seconds=seconds)
    raise StepOverdue(step, seconds)


async def run(
    steps: Sequence[Step[C]],
    context: C,
    *,
    lease: Lease,
    saga: SagaLog,
    progress: "Progress",
    seconds: Mapping[str, float] = STEP_SECONDS,
) -> None:
    """Run the steps in order, each for at most its `seconds`. On any failure, cancellation too, undo what may have run
    and raise.

    The last step is the commit point: when it is done nothing is undone any more, and what fails after it is raised as
    it is. Raises `StepFailed` from the failure of a step; cancellation goes through as it is. A lost lease undoes
    nothing: whoever has the higher fence reads the same log and decides.
    """
    current, committed = "", False
    try:
        for step in steps:
            current = step.name
            progress.started(step.name)
            if step.needless(context):
                progress.succeeded(step.name)
                continue
            doing = partial(_done, step, context, seconds[step.name])
            if step.logged is Logged.NOT:
                await doing()
            else:
                entry = partial(saga.started, lease, step.name, note=step.note(context), told=progress.told())
                if step.logged is Logged.BESIDE:
                    await beside(entry, doing)
                else:
                    await entry()
                    await doing()
            committed = step is steps[-1]
            progress.succeeded(step.name, step.tell(context))
        await saga.clear(lease, told=progress.told())
    except LeaseLost:
        raise
    except BaseException as exc:
        if committed:
            raise
        with anyio.move_on_after(UNWIND_SECONDS, shield=True):
            await progress.failed(current, exc)
            await unwind(steps, context, lease=lease, saga=saga)
        if isinstance(exc, Exception):
            raise StepFailed(current, exc) from exc
        raise


async def _done(step: Step[C], context: C, seconds: float) -> None:
    await within(step.name, seconds, step.do(context))


async def unwind(steps: Sequence[Step[C]], context: C, *, lease: Lease, saga: SagaLog) -> bool:
    """Undo, last first, every step that the log says may have run. True when nothing is left to undo."""
    by_name = {step.name: step for step in steps}
    clean = True
    for name, note, _ in reversed(await saga.attempted(lease.tenant, lease.conversation)):
        step = by_name.get(name)
        try:
            if step is not None and step.undo is not None:
                await within(f"{name} (undo)", UNDO_SECONDS, step.undo(context, note))
            await saga.undone(lease, name)
        except LeaseLost:
            raise
        except Exception as exc:  # noqa: BLE001 - the undo edge: one undo that fails must not keep the others from running
            clean = False
            await _stuck(lease, saga, name, exc)
    return clean


async def undo(step: Step[C], context: C, note: str, *, lease: Lease, saga: SagaLog) -> bool:
    """Undo one step that ran long ago, so that the log does not name it any more. False when it did not work: then the
    log names it, so that it is seen and tried again."""
    try:
        if step.undo is not None:
            await within(f"{step.name} (undo)", UNDO_SECONDS, step.undo(context, note))
    except LeaseLost:
        raise
    except NestorError as exc:
        await saga.started(lease, step.name, note=note)
        await _stuck(lease, saga, step.name, exc)
        return False
    return True


async def _stuck(lease: Lease, saga: SagaLog, step: str, failure: Exception) -> None:
    message = failure.message if isinstance(failure, NestorError) else type(failure).__name__
    metrics.UNDO_STUCK.labels(step).inc()
    log.warning("saga.stuck", step=step, conversation=lease.conversation, problem=message)
    await saga.stuck(lease, step, message)


class Progress:
    """Hears of each step as it begins and ends. The base class hears nothing."""

    def started(self, step: str) -> None:
        """The step is about to run."""

    def succeeded(self, step: str, message: str | None = None) -> None:
        """The step has run."""

    def told(self) -> Told | None:
        """What it heard since this was asked last, to be stored with the next entry of the log."""
        return None

    async def failed(self, step: str, failure: BaseException) -> None:
        """The step raised, or was cancelled."""
