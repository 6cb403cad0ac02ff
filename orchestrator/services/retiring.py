"""What the clock does to a conversation at rest: its workspace is removed (archived), then it is deleted.

Called by the worker that holds the lease, when the due time comes that it was given at the end of the act before; so
nothing is ever scanned. One to which nothing is to be done is not due at all; when a setting changes, `reviewing.py`
makes those due that it may concern.
"""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import structlog

from orchestrator.domain.conversation import Conversation, Desired, Phase
from orchestrator.domain.errors import NestorError, StoreUnavailable
from orchestrator.domain.ids import OperationId, new_uuid
from orchestrator.domain.operation import Operation, OperationState
from orchestrator.domain.retention import Act, Planned, plan
from orchestrator.drivers.errors import ClaimTaken
from orchestrator.services.event_archiving import EventArchiving
from orchestrator.services.idleness import Idleness
from orchestrator.services.saga import within
from orchestrator.services.start import Provisioning, Surroundings, made, save
from orchestrator.services.tending import problem_of
from orchestrator.state.base import Lease, Store

log = structlog.get_logger(__name__)
_UNKNOWN_MS = 24 * 3600 * 1000  # where settings cannot be opened
AT_REST = frozenset({Phase.STOPPED, Phase.FAILED})


class Retiring:
    """Each act can be repeated."""

    def __init__(
        self,
        house: Surroundings,
        store: Store,
        idleness: Idleness,
        *,
        archiving: EventArchiving,
        undelete_seconds: float,
    ) -> None:
        self._archiving = archiving
        self._house = house
        self._store = store
        self._idleness = idleness
        self._undelete_seconds = undelete_seconds

    async def due(self, conversation: Conversation) -> int | None:
        """In how many ms one at rest or paused has to be looked at again; None for never."""
        try:
            planned = await self._planned(conversation)
        except StoreUnavailable:
            raise
        except NestorError:
            return _UNKNOWN_MS
        if planned is None:
            return None
        return max(0, int((planned.at - self._house.clock.now()).total_seconds() * 1000) + 1)

    async def is_over(self, conversation: Conversation) -> bool:
        """Whether a paused one has been kept for as long as it may."""
        planned = await self._next(conversation)
        return planned is not None and planned.act is Act.STOP and planned.at <= self._house.clock.now()

    async def act(self, lease: Lease, conversation: Conversation) -> bool:
        """What is due for one at rest; True when something was done."""
        if conversation.archived_at is not None and conversation.was_ready:
            await self._remove_workspace(lease, conversation)
            return True
        planned = await self._next(conversation)
        if planned is None or planned.at > self._house.clock.now():
            return False
        if planned.act is Act.ARCHIVE:
            archived = replace(conversation, archived_at=self._house.clock.now(), updated_at=self._house.clock.now())
            await save(self._house.conversations, lease, archived)  # from now on it cannot be started
            self._house.withdraw(archived)
        elif planned.act is Act.DELETE:
            await self._delete(conversation)
        return True

    async def _next(self, conversation: Conversation) -> Planned | None:
        try:
            return await self._planned(conversation)
        except StoreUnavailable:
            raise
        except NestorError as exc:  # settings that cannot be opened: nothing is removed by a guess
            log.warning("retention.unknown", conversation=conversation.id, problem=problem_of(exc))
            return None

    async def _planned(self, conversation: Conversation) -> Planned | None:
        """Raises `StoreUnavailable`, and another `NestorError` where settings cannot be opened."""
        times = await self._idleness.times(conversation)
        return next(iter(plan(conversation, times, unused_since=None)), None)

    async def _remove_workspace(self, lease: Lease, conversation: Conversation) -> None:
        """The record and the event log stay readable."""
        start = Provisioning(self._house, lease, conversation, generation=made(conversation.runtime).generation)
        with suppress(ClaimTaken):  # the storage under this id is another tenant's: there never was one of ours
            await within(
                "remove volume",
                self._house.step_seconds["remove volume"],
                self._house.driver.remove_volume(start.labels, fence=lease.fence),
            )
        await self._archiving.forget_snapshots(conversation)
        runtime = replace(made(conversation.runtime), volume=None)  # another start has a storage of its own again
        await start.store(replace(conversation, runtime=runtime, was_ready=False))
        log.info("conversation.archived", conversation=conversation.id, tenant=conversation.tenant)

    async def _delete(self, conversation: Conversation) -> None:
        """As a caller would: it can be undone for as long."""
        now, operation = self._house.clock.now(), OperationId(new_uuid())
        await self._store.operations.create(
            Operation(
                operation,
                conversation.tenant,
                conversation.id,
                "delete",
                OperationState.RUNNING,
                (),
                now,
                now,
                subject=conversation.kind,
            )
        )
        deleted = replace(
            conversation,
            desired=Desired.DELETED,
            purge_at=now + timedelta(seconds=self._undelete_seconds),
            operation=operation,
        )
        stored = await self._store.conversations.request(
            deleted, expected_version=conversation.version, replaces=conversation.operation
        )
        if not stored:
            await self._store.operations.forget(conversation.tenant, operation)  # somebody wants something of it
