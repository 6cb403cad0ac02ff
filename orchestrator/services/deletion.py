"""Deleting in two steps, so that it can be undone: at once what runs, later what is kept.

From the moment of the request the conversation is unknown to reads, to the proxy and to its session key. Its worker
removes the runtime, in whatever phase it was; workspace, sealed values and log stay until `purge_at`, and an undelete
brings it back stopped. Then everything goes. Called by `lifecycle.py` under the conversation's lease; each step can be
repeated.
"""

from contextlib import suppress
from dataclasses import replace

import structlog

from orchestrator.domain.conversation import Conversation, Desired, Phase, Reason, Why, advance
from orchestrator.domain.errors import PreconditionFailed
from orchestrator.domain.operation import OperationState
from orchestrator.drivers.errors import ClaimTaken
from orchestrator.services import saga
from orchestrator.services.admission import Admission
from orchestrator.services.ending import last_pull, remove_runtime
from orchestrator.services.event_archiving import EventArchiving
from orchestrator.services.events import EventLog
from orchestrator.services.progress import finish
from orchestrator.services.start import Provisioning, Surroundings, made
from orchestrator.state.base import Lease, Store

log = structlog.get_logger(__name__)
_LAST_PULL_SECONDS = 5.0  # its events are wanted only if it is undeleted, so a slow runtime does not keep it for long
UNDELETED = Why(Reason.REQUESTED, "deleted and brought back", "start it to go on")


class Deletion:
    """Answers as `Lifecycle.act`."""

    def __init__(
        self, house: Surroundings, store: Store, events: EventLog, archiving: EventArchiving, admission: Admission
    ) -> None:
        self._house = house
        self._store = store
        self._events = events
        self._archiving = archiving
        self._admission = admission

    async def act(self, lease: Lease, conversation: Conversation) -> int | None:
        """Remove what runs; and what is kept, when its time is over."""
        start = Provisioning(self._house, lease, conversation, generation=made(conversation.runtime).generation)
        if conversation.phase is not Phase.DELETING:
            self._house.withdraw(conversation)
            if conversation.phase is Phase.READY and self._left_ms(conversation) > 0:
                await last_pull(self._events, conversation, seconds=_LAST_PULL_SECONDS)
            await start.store(advance(conversation, Phase.DELETING, why=conversation.why, now=self._house.clock.now()))
        if not await remove_runtime(start, self._store.saga):
            return saga.STUCK_RETRY_MS
        await self._admission.give_back(lease, asked=True)
        left_ms = self._left_ms(start.conversation)
        if left_ms > 0 and not start.conversation.purging:
            if start.conversation.desired is Desired.DELETED:
                await finish(self._store.operations, start.conversation, OperationState.SUCCEEDED)
            return left_ms
        if not start.conversation.purging and not await self._no_way_back(start):
            return 0
        await self._purge(start)
        return None

    async def undo(self, lease: Lease, conversation: Conversation) -> int | None:
        """It is wanted again: stopped, with its workspace as it was."""
        start = Provisioning(self._house, lease, conversation, generation=made(conversation.runtime).generation)
        if not await remove_runtime(start, self._store.saga):
            return saga.STUCK_RETRY_MS
        await start.store(advance(start.conversation, Phase.STOPPED, why=UNDELETED, now=self._house.clock.now()))
        await self._admission.give_back(lease)
        await finish(self._store.operations, start.conversation, OperationState.SUCCEEDED)
        log.info("conversation.undeleted", conversation=conversation.id, tenant=conversation.tenant)
        return None

    async def _no_way_back(self, start: Provisioning) -> bool:
        """Mark that it is being purged, unless a caller was faster; from here on an undelete finds nothing."""
        conversations, lease = self._store.conversations, start.lease
        stored = await conversations.get(lease.tenant, lease.conversation)
        if stored is None or stored.desired is not Desired.DELETED or self._left_ms(stored) > 0:
            return False
        try:
            marked = replace(stored, purging=True)
            start.conversation = await conversations.save(lease, marked, expected_version=stored.version)
        except PreconditionFailed:
            return False
        return True

    async def _purge(self, start: Provisioning) -> None:
        with suppress(ClaimTaken):  # the storage under this id is another tenant's: there never was one of ours
            await saga.within(
                "remove volume",
                self._house.step_seconds["remove volume"],
                self._house.driver.remove_volume(start.labels, fence=start.lease.fence),
            )
        await self._archiving.forget(start.conversation)
        await self._store.conversations.drop_route(made(start.conversation.runtime).id)
        await finish(self._store.operations, start.conversation, OperationState.SUCCEEDED)
        await self._store.conversations.remove(start.lease)
        log.info("conversation.deleted", conversation=start.conversation.id, tenant=start.conversation.tenant)

    def _left_ms(self, conversation: Conversation) -> int:
        """Until it is purged; 0 for now, also for one that was deleted before there was a time for it."""
        if conversation.purge_at is None:
            return 0
        return max(0, int((conversation.purge_at - self._house.clock.now()).total_seconds() * 1000))
