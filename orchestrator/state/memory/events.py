"""The event log of a conversation in memory. See `base.Events`."""

from collections.abc import Sequence

from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state.base import StoredEvent
from orchestrator.state.memory.shelf import Shelf


class MemoryEvents:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def append(self, tenant: TenantId, id: ConversationId, events: Sequence[StoredEvent]) -> int:
        log = self._shelf.place(tenant, id).events
        for event in events:
            if event.sequence == len(log) + 1:
                log.append(event)
            elif event.sequence > len(log):
                break
        self._shelf.tell(id)
        return len(log)

    async def last(self, tenant: TenantId, id: ConversationId) -> StoredEvent | None:
        log = self._log(tenant, id)
        return log[-1] if log else None

    async def read(self, tenant: TenantId, id: ConversationId, *, after: int, limit: int) -> Sequence[StoredEvent]:
        return self._log(tenant, id)[after : after + limit]

    def _log(self, tenant: TenantId, id: ConversationId) -> list[StoredEvent]:
        place = self._shelf.places.get((tenant, id))
        return [] if place is None else place.events
