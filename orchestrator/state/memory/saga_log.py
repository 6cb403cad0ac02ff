"""The saga log in memory. See `base.SagaLog`."""

from collections.abc import Sequence
from contextlib import suppress

from orchestrator.domain.errors import NotFound
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state.base import Lease, Told
from orchestrator.state.memory.operations import MemoryOperations
from orchestrator.state.memory.shelf import Shelf


class MemorySagaLog:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._operations = MemoryOperations(shelf)

    async def started(self, lease: Lease, step: str, *, note: str = "", told: Told | None = None) -> None:
        await self._tell(lease, told)
        self._shelf.held(lease).saga[step] = (note, None)

    async def undone(self, lease: Lease, step: str) -> None:
        self._shelf.held(lease).saga.pop(step, None)

    async def stuck(self, lease: Lease, step: str, message: str) -> None:
        saga = self._shelf.held(lease).saga
        if step in saga:
            saga[step] = (saga[step][0], message)

    async def attempted(self, tenant: TenantId, id: ConversationId) -> Sequence[tuple[str, str, str | None]]:
        place = self._shelf.places.get((tenant, id))
        return [] if place is None else [(step, note, stuck) for step, (note, stuck) in place.saga.items()]

    async def clear(self, lease: Lease, *, told: Told | None = None) -> None:
        await self._tell(lease, told)
        self._shelf.held(lease).saga.clear()

    async def _tell(self, lease: Lease, told: Told | None) -> None:
        if told is not None:
            for stage in told.stages:
                with suppress(NotFound):
                    await self._operations.stage(lease.tenant, told.operation, stage)
