"""Pausing a ready conversation in place and bringing it back: the runtime is frozen, its address and keys stay.

Two kinds. Paused by a caller (`desired` is paused): stays so until somebody resumes it. Paused by policy (`desired` is
still running, the reason says which policy): whoever uses it wakes it, by an operation "resume" or a waiting message.
"""

from dataclasses import replace

import anyio
import structlog

from orchestrator.domain.admission import Verdict
from orchestrator.domain.conversation import UNUSED, Conversation, Desired, Phase, Reason, Why, advance
from orchestrator.domain.errors import LimitReached, RuntimeNotFound, StepOverdue
from orchestrator.domain.operation import OperationState
from orchestrator.drivers.base import Pausable
from orchestrator.drivers.values import Condition, Handle
from orchestrator.services.admission import Admission
from orchestrator.services.deaths import GONE, Deaths, how_it_died
from orchestrator.services.ending import last_pull
from orchestrator.services.events import EventLog
from orchestrator.services.failures import explain
from orchestrator.services.idleness import Idleness
from orchestrator.services.progress import finish
from orchestrator.services.saga import STUCK_RETRY_MS, within
from orchestrator.services.start import Surroundings, made, runtime_name, save
from orchestrator.state.base import Lease, Store

log = structlog.get_logger(__name__)
SUSPENDED = frozenset({Phase.PAUSING, Phase.PAUSED, Phase.RESUMING})
PAUSED_BY_CALLER = Why(Reason.REQUESTED, "paused by a caller", "resume it to go on")
PAUSED_FOR_IDLING = Why(Reason.IDLE, "nobody used it and its agent rested", "use it, and it goes on", retryable=True)
PAUSED_FOR_ANOTHER = Why(
    Reason.EVICTED,
    "it was unused for longest when another one needed its place",
    "use it, and it goes on",
    retryable=True,
)
PAUSED_FOR_BUDGET = Why(
    Reason.LIMIT,
    "what may be spent on models this month is spent",
    "it goes on by its next use when the month has ended, or the operator has raised the budget",
    retryable=True,
)
WAITED_IN_VAIN = Why(
    Reason.LIMIT,
    "it waited for a place and got none in time",
    "start it again later, or stop another one",
    retryable=True,
)
_IN_USE = Why(Reason.REQUESTED, "in use")
_SILENT = Why(
    Reason.HEALTH_TIMEOUT,
    "the runtime did not answer after its pause",
    "start the conversation again",
    retryable=True,
)
_LOOK_MS = 60_000  # how often somebody looks whether a paused runtime is still there
_QUEUE_FULL_MS = 5_000
_PULL_SECONDS = 20.0
_ALIVE_SECONDS = 20.0


class Suspension:
    """Each act is idempotent: what a crash broke off is done again by the next holder of the lease."""

    def __init__(
        self,
        house: Surroundings,
        store: Store,
        deaths: Deaths,
        events: EventLog,
        idleness: Idleness,
        admission: Admission,
    ) -> None:
        self._admission = admission
        self._house = house
        self._store = store
        self._deaths = deaths
        self._events = events
        self._idleness = idleness

    @property
    def can_pause(self) -> bool:
        """Whether the driver can; otherwise a pause is a stop."""
        return isinstance(self._house.driver, Pausable) and self._house.driver.capabilities.pause

    async def act(self, lease: Lease, conversation: Conversation) -> int | None:
        """What is due for a conversation in one of the phases `SUSPENDED`."""
        if conversation.phase is Phase.PAUSING:
            return await self.pause(lease, conversation, conversation.why)
        if conversation.phase is Phase.RESUMING or await self.is_wanted(conversation):
            return await self._resume(lease, conversation)
        return await self._stay(lease, conversation)

    async def pause(self, lease: Lease, conversation: Conversation, why: Why) -> int | None:
        """Freeze the runtime of a ready conversation, or finish to. Nothing of its log is left to be pulled."""
        interrupted = conversation.phase is Phase.PAUSING
        if conversation.phase is Phase.READY:
            await last_pull(self._events, conversation, seconds=_PULL_SECONDS)
            conversation = await self._to(lease, conversation, Phase.PAUSING, why)
            if why.reason in UNUSED and self._idleness.is_used(conversation):
                await self._to(lease, conversation, Phase.READY, _IN_USE)
                await self._admission.keep(conversation)
                return 0  # somebody came in the last moment; the route was never withdrawn
        self._house.published(conversation)  # requests from now on find it paused, and wake it
        handle, driver = await self._handle(conversation), self._house.driver
        if handle is None or not isinstance(driver, Pausable):
            return await self._lose(lease, conversation, GONE)
        try:
            await within("freeze", self._house.step_seconds["freeze"], driver.pause(handle, fence=lease.fence))
        except RuntimeNotFound:
            return await self._lose(lease, conversation, await how_it_died(driver, handle))
        except StepOverdue as exc:  # told as what is stuck is, until it works
            await self._store.saga.started(lease, "freeze")
            await self._store.saga.stuck(lease, "freeze", exc.message)
            return STUCK_RETRY_MS
        if interrupted:
            await self._store.saga.clear(lease)
        conversation = await self._to(lease, conversation, Phase.PAUSED, why)
        self._house.published(conversation)
        await self._admission.give_back(lease)
        log.info("runtime.paused", conversation=conversation.id, reason=why.reason)
        return 0

    async def _stay(self, lease: Lease, conversation: Conversation) -> int | None:
        """Paused and to stay so. Who asked for the pause last is what is told."""
        handle, driver = await self._handle(conversation), self._house.driver
        seen = None if handle is None else await self._condition(handle)
        if handle is None or seen in (None, Condition.EXITED):
            return await self._lose(lease, conversation, await how_it_died(driver, handle))
        if seen is Condition.RUNNING and isinstance(driver, Pausable):  # it was thawed for a moment (`thawing.py`)
            try:
                await within("freeze", self._house.step_seconds["freeze"], driver.pause(handle, fence=lease.fence))
            except (RuntimeNotFound, StepOverdue):
                return STUCK_RETRY_MS
            log.warning("runtime.frozen_again", conversation=conversation.id)
        await self._admission.give_back(lease)
        if conversation.desired is Desired.PAUSED:
            if conversation.why.reason is not Reason.REQUESTED:
                held = replace(conversation, why=PAUSED_BY_CALLER, updated_at=self._house.clock.now())
                conversation = await save(self._house.conversations, lease, held)
                self._house.published(conversation)
            await finish(self._store.operations, conversation, OperationState.SUCCEEDED)
        return _LOOK_MS

    async def _resume(self, lease: Lease, conversation: Conversation) -> int | None:
        if (wait_ms := await self._wait_for_slot(lease, conversation)) is not None:
            return wait_ms
        if conversation.phase is Phase.PAUSED:
            conversation = await self._to(lease, conversation, Phase.RESUMING, conversation.why)
        handle, driver = await self._handle(conversation), self._house.driver
        if handle is None or not isinstance(driver, Pausable):
            return await self._lose(lease, conversation, GONE)
        try:
            thawing = driver.unpause(handle, fence=lease.fence)
            endpoint = await within("thaw", self._house.step_seconds["thaw"], thawing)
        except RuntimeNotFound:
            return await self._lose(lease, conversation, await how_it_died(driver, handle))
        except StepOverdue as exc:
            return await self._lose(lease, conversation, explain("thaw", exc))
        runtime = replace(made(conversation.runtime), address=f"{endpoint.host}:{endpoint.port}")
        conversation = replace(conversation, runtime=runtime)
        if not await self._answers(conversation):
            return await self._lose(lease, conversation, _SILENT)
        conversation = await self._to(lease, conversation, Phase.READY, Why(Reason.REQUESTED, "resumed"))
        self._house.published(conversation)
        if conversation.desired is Desired.RUNNING:
            await finish(self._store.operations, conversation, OperationState.SUCCEEDED)
        log.info("runtime.resumed", conversation=conversation.id)
        return 0  # at once: messages may be waiting

    async def _wait_for_slot(self, lease: Lease, conversation: Conversation) -> int | None:
        """None when it has its slot; else it stays paused, and is looked at again after that time."""
        try:
            stands = await self._admission.take(lease, conversation)
        except LimitReached:
            return _QUEUE_FULL_MS
        if stands.verdict is not Verdict.QUEUED:
            return None
        if stands.left_ms:
            return min(stands.left_ms + 50, _LOOK_MS)
        await self._admission.give_back(lease, asked=True)
        await finish(self._store.operations, conversation, OperationState.FAILED, WAITED_IN_VAIN)  # messages ask anew
        return 0

    async def is_wanted(self, conversation: Conversation) -> bool:
        """Whether a paused one is to go on: by a resume under way, or for a message that waits."""
        if conversation.desired is not Desired.RUNNING:
            return False
        if await self._store.inbox.waiting(conversation.tenant, conversation.id, limit=1):
            return True
        if conversation.operation is None:
            return False
        operation = await self._store.operations.get(conversation.tenant, conversation.operation)
        return operation is not None and operation.kind == "resume" and operation.state is OperationState.RUNNING

    async def _answers(self, conversation: Conversation) -> bool:
        key = made(await self._house.keys.inner_key(conversation))
        async with self._house.clients.open(f"http://{made(conversation.runtime).address}", key) as client:
            with anyio.move_on_after(_ALIVE_SECONDS):
                await client.wait_alive()
                return True
        return False

    async def _lose(self, lease: Lease, conversation: Conversation, why: Why) -> int | None:
        due_in_ms = await self._deaths.give_up(lease, conversation, why)
        if conversation.desired in (Desired.RUNNING, Desired.PAUSED):  # a stop or deletion that came since goes on
            await finish(self._store.operations, conversation, OperationState.FAILED, why)
        return due_in_ms

    async def _handle(self, conversation: Conversation) -> Handle | None:
        return await self._house.driver.find(runtime_name(conversation, made(conversation.runtime).generation))

    async def _condition(self, handle: Handle) -> Condition | None:
        try:
            return (await self._house.driver.inspect(handle)).condition
        except RuntimeNotFound:
            return None

    async def _to(self, lease: Lease, conversation: Conversation, phase: Phase, why: Why) -> Conversation:
        moved = advance(conversation, phase, why=why, now=self._house.clock.now())
        return await save(self._house.conversations, lease, moved)
