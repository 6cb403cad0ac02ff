"""What is done to a conversation that is due: start it, tend it, pause it, stop it, or delete it, under its lease."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import datetime

import anyio
import structlog

from orchestrator.domain.admission import Verdict
from orchestrator.domain.conversation import (
    LIVE_PHASES,
    Conversation,
    Desired,
    Phase,
    Reason,
    Why,
    advance,
    fail,
    put_to_rest,
)
from orchestrator.domain.errors import CapacityReached, LimitReached, NotFound, TransientError
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.domain.operation import OperationState
from orchestrator.domain.retention import Act, plan
from orchestrator.services import saga
from orchestrator.services.admission import Admission
from orchestrator.services.deletion import Deletion, remove_runtime
from orchestrator.services.discretion import discreet
from orchestrator.services.event_archiving import EventArchiving
from orchestrator.services.events import NOT_PULLED, EventLog
from orchestrator.services.failures import explain
from orchestrator.services.idleness import Idleness
from orchestrator.services.making import destroy_runtime
from orchestrator.services.progress import OperationProgress
from orchestrator.services.retiring import AT_REST, Retiring
from orchestrator.services.start import Provisioning, Surroundings, made, runtime_name
from orchestrator.services.start_clocks import StartClocks
from orchestrator.services.suspension import (
    PAUSED_BY_CALLER,
    PAUSED_FOR_ANOTHER,
    PAUSED_FOR_IDLING,
    SUSPENDED,
    WAITED_IN_VAIN,
    Suspension,
)
from orchestrator.services.tending import Tending, problem_of
from orchestrator.services.warm_start import ALL_STEPS, steps_of
from orchestrator.state.base import Lease, Store
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
MAXIMUM_ATTEMPTS = 3
_BACKOFF_MS = (500, 2_000, 5_000)
_SETTLE_SECONDS = 2.0  # what became ready or was used just now may be about to get its next message
_LAST_PULL_SECONDS = 20.0  # no runtime puts its own end off for longer
_RETRY_MS = 1_000
EXPIRED = Why(Reason.EXPIRED, "its runtime lived for as long as it may", "start it again", retryable=True)
REQUESTED_STOP = Why(Reason.REQUESTED, "stopped by a caller", "start it to go on")
_STARTS = ("start", "restart")
_STARTING = (Phase.PENDING, Phase.PROVISIONING, Phase.CONFIGURING)
Wake = Callable[[TenantId, ConversationId], Awaitable[None]]


async def _nobody(tenant: TenantId, id: ConversationId) -> None:
    """Until somebody subscribed."""


class Lifecycle:
    """Chooses and does the next act. Answers when the conversation is due again, None for not until asked."""

    def __init__(
        self,
        house: Surroundings,
        store: Store,
        tending: Tending,
        events: EventLog,
        suspension: Suspension,
        idleness: Idleness,
        admission: Admission,
        deletion: Deletion,
        retiring: Retiring,
        archiving: EventArchiving,
        *,
        start_timeout: float,
    ) -> None:
        self._admission = admission
        self._deletion = deletion
        self._retiring = retiring
        self._archiving = archiving
        self._suspension = suspension
        self._idleness = idleness
        self._house = house
        self._store = store
        self._tending = tending
        self._events = events
        self._clocks = StartClocks(house.clock, start_timeout)
        self._wake: Wake = _nobody

    def subscribe(self, wake: Wake) -> None:
        """Have `wake` called, from now on, for one that policy stopped while a message came: as a use of it would."""
        self._wake = wake

    async def act(self, lease: Lease, conversation: Conversation) -> int | None:
        """One act on a conversation that this replica has claimed. One that rests is due again when the clock says."""
        due_in_ms = await self._act(lease, conversation)
        if due_in_ms == 0:
            return 0
        tended = due_in_ms is not None and conversation.phase is Phase.READY
        present = conversation if tended else await self._store.conversations.get(lease.tenant, lease.conversation)
        if present is None:
            return due_in_ms
        again = await self._archiving.round(present)
        due_in_ms = due_in_ms if tended else await self._due(present, due_in_ms)
        return due_in_ms if again is None else min(again, again if due_in_ms is None else due_in_ms)

    async def _due(self, present: Conversation, due_in_ms: int | None) -> int | None:
        """For one that is not ready, where the clock is earlier."""
        if present.desired is Desired.DELETED:
            return due_in_ms
        if present.phase in AT_REST and due_in_ms is None:
            return await self._retiring.due(present)
        if present.phase is Phase.PAUSED and due_in_ms is not None:
            planned_ms = await self._retiring.due(present)
            return due_in_ms if planned_ms is None else min(due_in_ms, max(_RETRY_MS, planned_ms))
        return due_in_ms

    async def _act(self, lease: Lease, conversation: Conversation) -> int | None:
        if conversation.desired is Desired.DELETED:
            return await self._deletion.act(lease, conversation)
        if conversation.phase is Phase.DELETING:
            return await self._deletion.undo(lease, conversation)
        if conversation.desired is Desired.RUNNING and await self._wants_start(conversation):
            return await self._start(lease, conversation)
        if conversation.desired is Desired.STOPPED and conversation.phase in LIVE_PHASES | {Phase.PENDING}:
            return await self._stop(lease, conversation)
        if conversation.phase is Phase.STOPPING:  # begun by the clock, and broken off
            return await self._stop(lease, conversation, conversation.why)
        if conversation.phase is Phase.PAUSED and await self._kept_too_long(conversation):
            why = replace(conversation.why, message=f"{conversation.why.message}; paused for long, it was stopped")
            return await self._stop(lease, conversation, why)
        if conversation.phase in SUSPENDED:
            return await self._suspension.act(lease, conversation)
        if conversation.desired is Desired.PAUSED and conversation.phase is Phase.READY:
            return await self._pause(lease, conversation, PAUSED_BY_CALLER)
        if conversation.desired is Desired.PAUSED and conversation.phase in _STARTING:
            return await self._nothing_to_pause(lease, conversation)
        if conversation.desired is Desired.RUNNING and conversation.phase is Phase.READY:
            await self._end_start(lease, conversation)
            return await self._tend(lease, conversation)
        return await self._rest(lease, conversation)

    async def _rest(self, lease: Lease, conversation: Conversation) -> int | None:
        """Nothing is to run and nothing does: undo what was stuck, and end what was asked for and cannot be any more: a
        stop that came before its start began, a resume that came while the runtime was found to be lost."""
        if conversation.phase not in (Phase.STOPPED, Phase.FAILED):
            return None
        start = Provisioning(self._house, lease, conversation, generation=made(conversation.runtime).generation)
        if not await saga.unwind(ALL_STEPS, start, lease=lease, saga=self._store.saga):
            return saga.STUCK_RETRY_MS
        await self._admission.give_back(lease)
        stopped = conversation.desired is Desired.STOPPED
        if stopped:
            self._house.withdraw(conversation)
            await self._finish(conversation, OperationState.SUCCEEDED)
        else:
            await self._finish(conversation, OperationState.FAILED, conversation.why)
        if await self._is_waited_for(conversation):
            with suppress(LimitReached, CapacityReached, NotFound):  # it is kept; whoever uses it next wakes it
                await self._wake(lease.tenant, lease.conversation)
                return None
        return 0 if await self._retiring.act(lease, conversation) else None

    async def _is_waited_for(self, conversation: Conversation) -> bool:
        """Whether a message came while policy stopped it, when it could not be woken yet."""
        if conversation.phase is not Phase.STOPPED or not put_to_rest(conversation):
            return False
        return bool(await self._store.inbox.waiting(conversation.tenant, conversation.id, limit=1))

    async def _tend(self, lease: Lease, conversation: Conversation) -> int | None:
        """A round; and a pause, when nobody uses the conversation and its settings say so."""
        due_in_ms = await self._tending.tend(lease, conversation)
        if not due_in_ms:
            return due_in_ms
        present = await self._store.conversations.get(lease.tenant, lease.conversation)
        if present is None:
            return due_in_ms
        if (expires := await self._expires(present)) is not None:
            if expires <= self._house.clock.now():
                return await self._stop(lease, present, EXPIRED)
            due_in_ms = min(due_in_ms, int((expires - self._house.clock.now()).total_seconds() * 1000) + 50)
        if lease.conversation in await self._store.slots.evictions(lease.tenant):
            return await self._make_room(lease, present)
        await self._admission.count(lease, present)
        left = await self._idleness.seconds_left(present)
        if left is None:
            return due_in_ms
        if left > 0:
            return min(due_in_ms, int(left * 1000) + 50)
        return await self._pause(lease, present, PAUSED_FOR_IDLING)

    async def _expires(self, conversation: Conversation) -> datetime | None:
        """When the runtime of a ready one has lived for as long as it may."""
        times = await self._idleness.times(conversation)
        planned = plan(conversation, times, unused_since=None)
        return next((one.at for one in planned if one.act is Act.STOP), None)

    async def _kept_too_long(self, conversation: Conversation) -> bool:
        return await self._retiring.is_over(conversation) and not await self._suspension.is_wanted(conversation)

    async def _make_room(self, lease: Lease, conversation: Conversation) -> int | None:
        """Another one is to have its slot: pause it, unless somebody would miss it by now."""
        if not await self._admission.can_be_spared(conversation):
            await self._admission.keep(conversation)
            return 0
        settles = _SETTLE_SECONDS - await self._idleness.unused_seconds(conversation)
        if settles > 0:
            return int(settles * 1000) + 50
        return await self._pause(lease, conversation, PAUSED_FOR_ANOTHER)

    async def _nothing_to_pause(self, lease: Lease, conversation: Conversation) -> int | None:
        """Its runtime died in the moment in which a caller paused it, and was to start again: it fails instead, as it
        does when the pause came first."""
        start = Provisioning(self._house, lease, conversation, generation=lease.fence)
        if not await self._clear_way(start):
            return saga.STUCK_RETRY_MS
        why, failures = conversation.why, start.conversation.failures
        if failures and failures[-1].restarted:  # that it would be is not true
            why, failures = failures[-1].why, failures[:-1]
        ended = replace(start.conversation, failures=failures)
        await start.store(fail(ended, why, now=self._house.clock.now()))
        self._house.withdraw(start.conversation)
        await self._admission.give_back(lease)
        await self._finish(conversation, OperationState.FAILED, why)
        return None

    async def _pause(self, lease: Lease, conversation: Conversation, why: Why) -> int | None:
        """In place; a driver that cannot do that stops the runtime instead."""
        if self._suspension.can_pause:
            return await self._suspension.pause(lease, conversation, why)
        return await self._stop(lease, conversation, why)

    async def _end_start(self, lease: Lease, conversation: Conversation) -> None:
        """End the start or resume of one that is ready, if a crash came between its commit point and its end."""
        if await self._runs(conversation, *_STARTS, "resume"):
            await self._store.saga.clear(lease)
            await self._finish(conversation, OperationState.SUCCEEDED)

    async def _wants_start(self, conversation: Conversation) -> bool:
        """A start under way; or one that was asked for again, which is an operation that has not ended."""
        if conversation.phase in _STARTING:
            return True
        return conversation.phase in (Phase.FAILED, Phase.STOPPED) and await self._runs(conversation, *_STARTS)

    async def _runs(self, conversation: Conversation, *kinds: str) -> bool:
        """Whether its operation is one of these and has not ended."""
        if conversation.operation is None:
            return False
        operation = await self._store.operations.get(conversation.tenant, conversation.operation)
        return operation is not None and operation.kind in kinds and operation.state is OperationState.RUNNING

    async def _start(self, lease: Lease, conversation: Conversation) -> int | None:
        """What it ends is the operation of the record that was claimed: a stop or deletion that came meanwhile has one
        of its own, which ends with what it asked for."""
        if conversation.phase not in _STARTING:
            conversation = replace(conversation, attempt=0)
        start = Provisioning(self._house, lease, conversation, generation=lease.fence)
        if (pause_ms := self._restarts_in_ms(conversation)) > 0:
            return pause_ms
        if (wait_ms := await self._wait_for_slot(start, conversation)) is not None:
            return wait_ms or None
        left = self._clocks.left(conversation)
        if left <= 0:
            await self._back_to_pending(start)
            return await self._failed(start, conversation, await self._overdue(lease), TimeoutError())
        if not await self._clear_way(start):
            return min(saga.STUCK_RETRY_MS, int(left * 1000) + 50)
        attempt = replace(start.conversation, attempt=start.conversation.attempt + 1, restart_at=None)
        await start.store(advance(attempt, Phase.PROVISIONING, why=attempt.why, now=self._house.clock.now()))
        await self._store.conversations.put_route(made(start.conversation.runtime).id, lease.tenant, conversation.id)
        progress = OperationProgress(
            self._store.operations,
            start.conversation,
            self._house.clock,
            lambda why: discreet(why, start.conversation, self._house.effective, self._house.keys),
        )
        began = self._house.clock.monotonic()
        try:
            pool = self._house.pool
            async with AsyncExitStack() as start.connections:
                start.connections.enter_context(anyio.fail_after(left))
                if pool is not None:
                    start.connections.enter_context(pool.start_under_way())
                await saga.run(
                    steps_of(self._house),
                    start,
                    lease=lease,
                    saga=self._store.saga,
                    progress=progress,
                    seconds=self._house.step_seconds,
                )
        except saga.StepFailed as failed:
            return await self._failed(start, conversation, explain(failed.step, failed.cause), failed.cause)
        except TimeoutError as exc:
            if start.conversation.phase is Phase.READY:
                return 0  # it was in time; only the end of its operation is still to be written
            return await self._failed(start, conversation, explain(progress.current, exc), exc)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(5, shield=True):
                if start.conversation.phase is not Phase.READY:
                    await self._back_to_pending(start)
            raise
        self._clocks.stop(conversation)
        await self._finish(conversation, OperationState.SUCCEEDED)
        seconds = round(self._house.clock.monotonic() - began, 3)
        metrics.STARTS.labels("ready", "").inc()
        self._count_image(start.conversation, "ready")
        metrics.START_SECONDS.labels("warm" if start.warm else "cold").observe(seconds)
        log.info("runtime.ready", conversation=conversation.id, seconds=seconds, warm=start.warm)
        return 0  # at once: messages may be waiting

    async def _overdue(self, lease: Lease) -> Why:
        """The start has had its time, between two tries; with what kept it from the next one."""
        why = explain("", TimeoutError())
        for step, _, problem in await self._store.saga.attempted(lease.tenant, lease.conversation):
            if problem is not None:
                return replace(why, message=f"{why.message}, and {step} of an earlier try is not undone: {problem}")
        return why

    def _count_image(self, conversation: Conversation, outcome: str) -> None:
        if self._house.images is not None:
            metrics.IMAGE_STARTS.labels(self._house.images.share_of(conversation), outcome).inc()

    def _restarts_in_ms(self, conversation: Conversation) -> int:
        """How long one that died has to wait yet."""
        if conversation.restart_at is None or conversation.phase is not Phase.PENDING:
            return 0
        return int((conversation.restart_at - self._house.clock.now()).total_seconds() * 1000)

    async def _wait_for_slot(self, start: Provisioning, asked: Conversation) -> int | None:
        """None when it has its slot; else the time for which it may wait, 0 when that is over and it has failed."""
        try:
            stands = await self._admission.take(start.lease, start.conversation)
        except LimitReached as exc:
            why = Why(Reason.LIMIT, exc.message, exc.hint or "", retryable=True)
        else:
            if stands.verdict is not Verdict.QUEUED:
                return None
            if stands.left_ms:
                return stands.left_ms + 50
            why = WAITED_IN_VAIN
        metrics.STARTS.labels("failed", why.reason).inc()
        # Its place first: a start that is asked for after the failure was told must not lose the place it got.
        await self._admission.give_back(start.lease, asked=True)
        await self._back_to_pending(start)
        await start.store(fail(start.conversation, why, now=self._house.clock.now()))
        await self._finish(asked, OperationState.FAILED, why)
        return 0

    async def _clear_way(self, start: Provisioning) -> bool:
        """Undo what an earlier holder of the lease may have begun; False while something of it is stuck."""
        if not await saga.unwind(ALL_STEPS, start, lease=start.lease, saga=self._store.saga):
            return False
        earlier = made(start.conversation.runtime).generation
        if earlier:  # of a runtime that was lost; it may have been lost to us alone
            await destroy_runtime(start, runtime_name(start.conversation, earlier))
        await self._back_to_pending(start)
        return True

    async def _back_to_pending(self, start: Provisioning) -> None:
        if start.conversation.phase is not Phase.PENDING:
            now = self._house.clock.now()
            await start.store(advance(start.conversation, Phase.PENDING, why=start.conversation.why, now=now))

    async def _failed(self, start: Provisioning, asked: Conversation, why: Why, cause: BaseException) -> int | None:
        why = await discreet(why, start.conversation, self._house.effective, self._house.keys)
        log.warning(
            "start.failed", conversation=start.conversation.id, step=why.step, reason=why.reason, problem=why.message
        )
        attempt = start.conversation.attempt
        if isinstance(cause, TransientError) and attempt < MAXIMUM_ATTEMPTS:
            metrics.STARTS.labels("retried", why.reason).inc()
            await self._back_to_pending(start)
            return _BACKOFF_MS[attempt - 1]
        metrics.STARTS.labels("failed", why.reason).inc()
        self._clocks.stop(start.conversation)
        self._count_image(start.conversation, "failed")
        await start.store(fail(start.conversation, why, now=self._house.clock.now()))
        self._house.withdraw(start.conversation)  # it does not sleep any more, so its port wakes nobody
        await self._finish(asked, OperationState.FAILED, why)
        if await self._store.saga.attempted(start.lease.tenant, start.lease.conversation):
            return saga.STUCK_RETRY_MS  # something of it may run still, so it keeps its slot
        await self._admission.give_back(start.lease)
        return None

    async def _stop(self, lease: Lease, conversation: Conversation, why: Why = REQUESTED_STOP) -> int | None:
        if conversation.phase is Phase.READY:
            await self._last_pull(conversation)
        start = Provisioning(self._house, lease, conversation, generation=made(conversation.runtime).generation)
        if conversation.phase is not Phase.STOPPING:  # with its reason: whoever goes on after a crash knows no other
            await start.store(advance(conversation, Phase.STOPPING, why=why, now=self._house.clock.now()))
        if put_to_rest(start.conversation) and made(conversation.runtime).public_port:
            await self._store.conversations.add_sleeper(made(conversation.runtime).id)
        if not await remove_runtime(start, self._store.saga):
            return saga.STUCK_RETRY_MS
        await start.store(advance(start.conversation, Phase.STOPPED, why=why, now=self._house.clock.now()))
        await self._finish(conversation, OperationState.SUCCEEDED)
        await self._admission.give_back(lease)
        return None

    async def _last_pull(self, conversation: Conversation) -> None:
        try:
            with anyio.fail_after(_LAST_PULL_SECONDS):
                await self._events.pull(conversation)
        except (*NOT_PULLED, TimeoutError) as exc:
            log.warning("events.last_pull_failed", conversation=conversation.id, problem=problem_of(exc))

    async def _finish(self, conversation: Conversation, state: OperationState, why: Why | None = None) -> None:
        if conversation.operation is not None:
            with suppress(NotFound):  # it ended more than a day ago
                await self._store.operations.finish(conversation.tenant, conversation.operation, state, failure=why)
