"""One start of a conversation: it waits for its turn, clears what an earlier try left, runs its saga and tells its end.

A try that fails for a while is made again, so often and within the time that the whole start has.
"""

from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

import anyio
import structlog

from orchestrator.domain.admission import Verdict
from orchestrator.domain.conversation import Conversation, Phase, Reason, Why, advance, fail
from orchestrator.domain.errors import LimitReached, TransientError
from orchestrator.domain.operation import OperationState
from orchestrator.services import saga
from orchestrator.services.admission import Admission
from orchestrator.services.beside import beside
from orchestrator.services.discretion import discreet
from orchestrator.services.failures import explain
from orchestrator.services.making import destroy_runtime
from orchestrator.services.progress import OperationProgress, finish
from orchestrator.services.start import Provisioning, Surroundings, made, runtime_name
from orchestrator.services.start_clocks import StartClocks
from orchestrator.services.suspension import WAITED_IN_VAIN
from orchestrator.services.warm_start import ALL_STEPS, steps_of
from orchestrator.state.base import Lease, Store
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
MAXIMUM_ATTEMPTS = 3
#: Until the first round of one that has just become ready, where no message waits: whoever waits for the start has his
#: answer before the round takes the runtime's time and this loop's. One that comes meanwhile is due at once.
FIRST_ROUND_MS = 250
_BACKOFF_MS = (500, 2_000, 5_000)
#: The phases of a start under way.
STARTING = (Phase.PENDING, Phase.PROVISIONING, Phase.CONFIGURING)


class Starting:
    """Answers, as `Lifecycle` does, when the conversation is due again."""

    def __init__(self, house: Surroundings, store: Store, admission: Admission, *, start_timeout: float) -> None:
        self._house = house
        self._store = store
        self._admission = admission
        self._clocks = StartClocks(house.clock, start_timeout)

    async def start(self, lease: Lease, conversation: Conversation) -> int | None:
        """What it ends is the operation of the record that was claimed: a stop or deletion that came meanwhile has one
        of its own, which ends with what it asked for."""
        if conversation.phase not in STARTING:
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
        runtime = made(attempt.runtime).id
        await beside(
            partial(self._store.conversations.put_route, runtime, lease.tenant, conversation.id),
            partial(start.store, advance(attempt, Phase.PROVISIONING, why=attempt.why, now=self._house.clock.now())),
        )
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
        await finish(self._store.operations, conversation, OperationState.SUCCEEDED)
        seconds = round(self._house.clock.monotonic() - began, 3)
        metrics.STARTS.labels("ready", "").inc()
        self._count_image(start.conversation, "ready")
        metrics.START_SECONDS.labels("warm" if start.warm else "cold").observe(seconds)
        log.info("runtime.ready", conversation=conversation.id, seconds=seconds, warm=start.warm)
        return 0 if await self._has_messages(conversation) else FIRST_ROUND_MS

    async def _has_messages(self, conversation: Conversation) -> bool:
        """Whether some wait to be delivered."""
        return bool(await self._store.inbox.waiting(conversation.tenant, conversation.id, limit=1))

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
            if await self._admission.has_spent(asked) and await self._has_messages(asked):
                await self._admission.give_back(start.lease, asked=True)
                return 1  # they wait until there is money again, and it asks for a place anew
            why = WAITED_IN_VAIN
        metrics.STARTS.labels("failed", why.reason).inc()
        # Its place first: a start that is asked for after the failure was told must not lose the place it got.
        await self._admission.give_back(start.lease, asked=True)
        await self._back_to_pending(start)
        await start.store(fail(start.conversation, why, now=self._house.clock.now()))
        await finish(self._store.operations, asked, OperationState.FAILED, why)
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
        await finish(self._store.operations, asked, OperationState.FAILED, why)
        if await self._store.saga.attempted(start.lease.tenant, start.lease.conversation):
            return saga.STUCK_RETRY_MS  # something of it may run still, so it keeps its slot
        await self._admission.give_back(start.lease)
        return None

    async def give_up(self, lease: Lease, conversation: Conversation) -> int | None:
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
        await finish(self._store.operations, conversation, OperationState.FAILED, why)
        return None
