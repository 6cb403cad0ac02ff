"""What is done about a runtime that is gone: its conversation fails with the reason, or starts again by itself.

Called by the worker that holds the lease, from a round (`tending.py`) and from a resume (`suspension.py`). The rule is
in `domain/restarts.py`; the setting is `limits.restart` of the request, the user or the tenant, else the operator's.
"""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import structlog

from orchestrator.domain.conversation import Conversation, Desired, Phase, Reason, Why, advance, fail, noted
from orchestrator.domain.errors import NestorError, RuntimeNotFound
from orchestrator.domain.ids import OperationId, new_uuid
from orchestrator.domain.operation import Operation, OperationState, Stage
from orchestrator.domain.restarts import Restarts
from orchestrator.drivers.base import Driver
from orchestrator.drivers.values import ExitCause, Handle
from orchestrator.services.admission import Admission
from orchestrator.services.discretion import discreet
from orchestrator.services.provisioning import CREATE
from orchestrator.services.saga import STUCK_RETRY_MS, undo
from orchestrator.services.start import Provisioning, Surroundings, made, runtime_name, save
from orchestrator.services.warm_start import stages_of
from orchestrator.state.base import Lease, Operations, SagaLog
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
GONE = Why(Reason.RUNTIME_LOST, "the runtime is gone", "start the conversation again", retryable=True)


class Deaths:
    """Each act can be repeated: what a crash broke off is done again by the next holder of the lease."""

    def __init__(
        self, house: Surroundings, operations: Operations, saga: SagaLog, admission: Admission, operator: Restarts
    ) -> None:
        self._house = house
        self._saga = saga
        self._operations = operations
        self._admission = admission
        self._operator = operator

    async def give_up(self, lease: Lease, conversation: Conversation, why: Why) -> int | None:
        """The runtime is gone: say so, and remove what is left of it; workspace and log are kept. Answers in how
        many ms it starts again by itself, None when it does not."""
        why = await discreet(why, conversation, self._house.effective, self._house.keys)
        log.warning("runtime.lost", conversation=conversation.id, reason=why.reason, problem=why.message)
        if self._house.images is not None:
            metrics.IMAGE_LOST.labels(self._house.images.share_of(conversation)).inc()
        delay = await self._delay(conversation)
        if delay is None:
            gone = await save(self._house.conversations, lease, self._failed(conversation, why))
        else:
            gone = await self._to_start_again(lease, conversation, why, delay)
        self._house.withdraw(conversation)  # after the record: a route that is asked for now is read from it
        generation = made(conversation.runtime).generation
        name = runtime_name(conversation, generation)
        start = Provisioning(self._house, lease, gone, generation=generation)
        if not await undo(CREATE, start, name, lease=lease, saga=self._saga):
            return STUCK_RETRY_MS  # something of it may run still, so it keeps its slot
        await self._remove_renamed(lease, conversation)
        if gone.phase is Phase.FAILED:
            await self._admission.give_back(lease)
            return None
        return int(made(delay) * 1000)

    async def _remove_renamed(self, lease: Lease, conversation: Conversation) -> None:
        """Somebody may have given the runtime another name. It must not live on beside the next one, as it would until
        the reconciler has seen it twice."""
        runtime, driver = made(conversation.runtime), self._house.driver
        with suppress(NestorError):  # then it does
            for one in await driver.list(self._house.installation):
                if (one.labels.runtime, one.labels.generation) == (runtime.id, runtime.generation):
                    await driver.destroy(one, fence=lease.fence)

    async def _delay(self, conversation: Conversation) -> float | None:
        if conversation.desired is not Desired.RUNNING or conversation.phase not in (Phase.READY, Phase.RESUMING):
            return None
        chosen = await self._chosen(conversation)
        return chosen.delay(conversation.failures, self._house.clock.now())

    async def _chosen(self, conversation: Conversation) -> Restarts:
        own = (await self._house.effective.settings(conversation)).get("limits")
        return self._operator.chosen(own if isinstance(own, dict) else {})

    def _failed(self, conversation: Conversation, why: Why) -> Conversation:
        now = self._house.clock.now()
        done = sum(failure.restarted for failure in conversation.failures)
        if done:
            why = replace(why, message=f"{why.message}, after {done} restarts")
        return fail(conversation, why, now=now)

    async def _to_start_again(self, lease: Lease, conversation: Conversation, why: Why, delay: float) -> Conversation:
        """Pending under an operation of its own, with its slot kept: it is on its way back already."""
        now = self._house.clock.now()
        operation = OperationId(new_uuid())
        stages = tuple(Stage(name) for name in stages_of(self._house))
        await self._operations.create(
            Operation(
                operation,
                lease.tenant,
                lease.conversation,
                "restart",
                OperationState.RUNNING,
                stages,
                now,
                now,
                subject=conversation.kind,
            )
        )
        told = replace(why, message=f"{why.message}; it starts again in {delay:g} seconds", hint="", retryable=True)
        pending = advance(noted(conversation, why, now=now, restarted=True), Phase.PENDING, why=told, now=now)
        pending = replace(pending, restart_at=now + timedelta(seconds=delay), attempt=0)
        stored = await save(self._house.conversations, lease, pending, operation=operation)
        if stored.operation != operation:  # a caller wanted something else in that moment
            await self._operations.forget(lease.tenant, operation)
        return stored


async def how_it_died(driver: Driver, handle: Handle | None) -> Why:
    """Of a runtime that does not run any more, as far as the engine knows: the cause, and its last lines."""
    if handle is None:
        return GONE
    try:
        observed = await driver.inspect(handle)
    except RuntimeNotFound:
        return GONE
    tail = tuple(await driver.logs(handle))
    if observed.cause is ExitCause.OOM:
        return Why(Reason.OOM, "the runtime ran out of memory", "give it more memory, then start again", True, "", tail)
    if observed.cause is ExitCause.DISK:
        hint = "start it again and remove what is not needed, within ten minutes"
        return Why(Reason.DISK_FULL, "workspace and state are larger than allowed", hint, True, "", tail)
    status = "" if observed.exit_code is None else f" (exit status {observed.exit_code})"
    return Why(Reason.RUNTIME_LOST, f"the runtime ended{status}", "start the conversation again", True, "", tail)
