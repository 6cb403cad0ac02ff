"""The saga log in memory. See `base.SagaLog`."""

from collections.abc import Sequence

from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state.base import Lease
from orchestrator.state.memory.shelf import Shelf


class MemorySagaLog:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def started(self, lease: Lease, step: str, *, note: str = "") -> None:
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

    async def clear(self, lease: Lease) -> None:
        self._shelf.held(lease).saga.clear()
