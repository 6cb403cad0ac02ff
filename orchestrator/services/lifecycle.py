"""What is done to a conversation that is due: start it, tend it, pause it, stop it, or delete it, under its lease."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

import structlog

from orchestrator.domain.conversation import (
    LIVE_PHASES,
    Conversation,
    Desired,
    Kind,
    Phase,
    Why,
    put_to_rest,
)
from orchestrator.domain.errors import CapacityReached, LimitReached, NotFound
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.domain.operation import OperationState
from orchestrator.domain.retention import Act, plan
from orchestrator.services import saga
from orchestrator.services.admission import Admission
from orchestrator.services.deletion import Deletion
from orchestrator.services.event_archiving import EventArchiving
from orchestrator.services.events import EventLog
from orchestrator.services.idleness import Idleness
from orchestrator.services.progress import finish
from orchestrator.services.retiring import AT_REST, Retiring
from orchestrator.services.start import Provisioning, Surroundings, made
from orchestrator.services.starting import FIRST_ROUND_MS, STARTING, Starting
from orchestrator.services.stopping import EXPIRED, Stopping
from orchestrator.services.suspension import (
    PAUSED_BY_CALLER,
    PAUSED_FOR_ANOTHER,
    PAUSED_FOR_BUDGET,
    PAUSED_FOR_IDLING,
    SUSPENDED,
    Suspension,
)
from orchestrator.services.tending import Tending
from orchestrator.services.warm_start import ALL_STEPS
from orchestrator.state.base import Lease, Store

log = structlog.get_logger(__name__)
_SETTLE_SECONDS = 2.0  # what became ready or was used just now may be about to get its next message
_RETRY_MS = 1_000
_STARTS = ("start", "restart")
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
        self._starting = Starting(house, store, admission, start_timeout=start_timeout)
        self._stopping = Stopping(house, store, events, admission)
        self._wake: Wake = _nobody

    def subscribe(self, wake: Wake) -> None:
        """Have `wake` called, from now on, for one that policy stopped while a message came: as a use of it would."""
        self._wake = wake

    async def act(self, lease: Lease, conversation: Conversation) -> int | None:
        """One act on a conversation that this replica has claimed. One that rests is due again when the clock says."""
        due_in_ms = await self._act(lease, conversation)
        if due_in_ms is not None and due_in_ms <= FIRST_ROUND_MS:
            return due_in_ms  # the next act is so near that nothing else is looked after now
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
            return await self._starting.start(lease, conversation)
        if conversation.desired is Desired.STOPPED and conversation.phase in LIVE_PHASES | {Phase.PENDING}:
            return await self._stopping.stop(lease, conversation)
        if conversation.phase is Phase.STOPPING:  # begun by the clock, and broken off
            return await self._stopping.stop(lease, conversation, conversation.why)
        if conversation.phase is Phase.PAUSED and await self._kept_too_long(conversation):
            why = replace(conversation.why, message=f"{conversation.why.message}; paused for long, it was stopped")
            return await self._stopping.stop(lease, conversation, why)
        if conversation.phase in SUSPENDED:
            return await self._suspension.act(lease, conversation)
        if conversation.desired is Desired.PAUSED and conversation.phase is Phase.READY:
            return await self._pause(lease, conversation, PAUSED_BY_CALLER)
        if conversation.desired is Desired.PAUSED and conversation.phase in STARTING:
            return await self._starting.give_up(lease, conversation)
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
            await finish(self._store.operations, conversation, OperationState.SUCCEEDED)
        else:
            await finish(self._store.operations, conversation, OperationState.FAILED, conversation.why)
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
        """A round; and a pause, when nobody uses the conversation and its settings say so. One that is over a budget is
        paused before anything else, so that no message costs more."""
        if conversation.kind is Kind.CONVERSATION and await self._admission.is_over_budget(conversation):
            return await self._pause(lease, conversation, PAUSED_FOR_BUDGET)
        due_in_ms = await self._tending.tend(lease, conversation)
        if not due_in_ms:
            return due_in_ms
        present = await self._store.conversations.get(lease.tenant, lease.conversation)
        if present is None:
            return due_in_ms
        if (expires := await self._expires(present)) is not None:
            if expires <= self._house.clock.now():
                return await self._stopping.stop(lease, present, EXPIRED)
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

    async def _pause(self, lease: Lease, conversation: Conversation, why: Why) -> int | None:
        """In place; a driver that cannot do that stops the runtime instead."""
        if self._suspension.can_pause:
            return await self._suspension.pause(lease, conversation, why)
        return await self._stopping.stop(lease, conversation, why)

    async def _end_start(self, lease: Lease, conversation: Conversation) -> None:
        """End the start or resume of one that is ready, if a crash came between its commit point and its end."""
        if await self._runs(conversation, *_STARTS, "resume"):
            await self._store.saga.clear(lease)
            await finish(self._store.operations, conversation, OperationState.SUCCEEDED)

    async def _wants_start(self, conversation: Conversation) -> bool:
        """A start under way; or one that was asked for again, which is an operation that has not ended."""
        if conversation.phase in STARTING:
            return True
        return conversation.phase in (Phase.FAILED, Phase.STOPPED) and await self._runs(conversation, *_STARTS)

    async def _runs(self, conversation: Conversation, *kinds: str) -> bool:
        """Whether its operation is one of these and has not ended."""
        if conversation.operation is None:
            return False
        operation = await self._store.operations.get(conversation.tenant, conversation.operation)
        return operation is not None and operation.kind in kinds and operation.state is OperationState.RUNNING
