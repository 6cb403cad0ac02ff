"""The end of a conversation's event log in memory. See `base.Events`."""

from collections.abc import Sequence
from datetime import datetime

from orchestrator.domain.hooks import accepted
from orchestrator.domain.ids import ConversationId, TenantId, message_event_id
from orchestrator.domain.spending import NOTHING
from orchestrator.state.base import HeldEvents, StoredEvent
from orchestrator.state.memory.shelf import Place, Shelf
from orchestrator.state.memory.spending import charge


class MemoryEvents:
    confirmed = True  # as much as anything here is

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def append(
        self, tenant: TenantId, id: ConversationId, events: Sequence[StoredEvent], *, at: datetime | None = None
    ) -> int:
        place = self._shelf.place(tenant, id)
        log, last, highest = place.events, _last(place), NOTHING
        for event in events:
            if event.first == last + 1:
                log.append(event)
                if event.is_message:
                    ids = {message_event_id(id, message.client_id): message.client_id for message in place.messages}
                    at, client = self._shelf.now(), ids.get(event.id)
                    told = accepted(tenant, id, event.sequence, event.id, at, client_id=client)
                    self._shelf.publish(tenant, id, [told])
                if event.spent is not None:
                    highest = highest.up_to(event.spent)
                last = event.sequence
            elif event.first > last:
                break
        charge(self._shelf, tenant, id, highest, at or self._shelf.now())
        self._shelf.tell(id)
        return last

    async def last(self, tenant: TenantId, id: ConversationId) -> StoredEvent | None:
        log = self._log(tenant, id)
        return log[-1] if log else None

    async def read(self, tenant: TenantId, id: ConversationId, *, after: int, limit: int) -> Sequence[StoredEvent]:
        return [event for event in self._log(tenant, id) if event.sequence > after][:limit]

    async def held(self, tenant: TenantId, id: ConversationId) -> HeldEvents:
        log, place = self._log(tenant, id), self._shelf.places.get((tenant, id))
        archived = None if place is None else place.archived
        last = 0 if place is None else _last(place)
        return HeldEvents(len(log), sum(len(event.payload.encode()) for event in log), last, archived)

    async def resume(self, tenant: TenantId, id: ConversationId, archived: StoredEvent | None) -> None:
        place = self._shelf.place(tenant, id)
        last = place.events[-1].sequence if place.events else 0
        if archived is not None and archived.sequence > last:
            place.events[:] = [archived]
        _reaches(place, archived.sequence if archived is not None else 0)

    async def trim(self, tenant: TenantId, id: ConversationId, *, archived: int, events: int, size: int) -> None:
        place = self._shelf.place(tenant, id)
        kept: list[StoredEvent] = []
        taken = 0
        for event in reversed(place.events):
            length = len(event.payload.encode())
            full = not events or (kept and (len(kept) >= events or taken + length > size))
            if event.sequence <= archived and full:
                break
            kept.insert(0, event)
            taken += length
        place.events[:] = kept
        _reaches(place, archived)

    def _log(self, tenant: TenantId, id: ConversationId) -> list[StoredEvent]:
        place = self._shelf.places.get((tenant, id))
        return [] if place is None else place.events


def _last(place: Place) -> int:
    """The end of the log; that of the archive, where nothing is held."""
    return place.events[-1].sequence if place.events else max(0, place.archived or 0)


def _reaches(place: Place, archived: int) -> None:
    place.archived = max(archived, -1 if place.archived is None else place.archived)
