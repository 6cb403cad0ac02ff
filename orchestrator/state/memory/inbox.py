"""The inbox of a conversation in memory. See `base.Inbox`."""

import json
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.domain import hooks
from orchestrator.domain.ids import ConversationId, TenantId, message_event_id
from orchestrator.state.base import Lease, Message
from orchestrator.state.memory.shelf import Shelf
from orchestrator.state.refusals import inbox_full


class MemoryInbox:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def put(self, tenant: TenantId, id: ConversationId, *, client_id: str, content: str, limit: int) -> Message:
        place = self._shelf.place(tenant, id)
        for message in place.messages:
            if message.client_id == client_id:
                return message
        waiting = sum(not message.delivered for message in place.messages)
        if waiting >= limit:
            raise inbox_full(waiting, limit)
        message = Message(len(place.messages) + 1, client_id, content, delivered=False)
        place.messages.append(message)
        self._shelf.note(tenant, "message", f"{id}|{message.sequence}", json.dumps([client_id, content]))
        place.poke(self._shelf.now_ms())
        return message

    async def waiting(self, tenant: TenantId, id: ConversationId, *, limit: int) -> Sequence[Message]:
        place = self._shelf.places.get((tenant, id))
        messages = [] if place is None else place.messages
        return [message for message in messages if not message.delivered][:limit]

    async def page(self, tenant: TenantId, id: ConversationId, *, after: int, limit: int) -> Sequence[Message]:
        place = self._shelf.places.get((tenant, id))
        if place is None:
            return []
        numbers = {event.id: event.sequence for event in place.events}
        return [
            replace(message, accepted=numbers.get(message_event_id(id, message.client_id)))
            for message in place.messages[after : after + limit]
        ]

    async def many(self, tenant: TenantId, id: ConversationId, client_ids: Sequence[str]) -> Sequence[Message | None]:
        return [await self.find(tenant, id, client_id) for client_id in client_ids]

    async def count(self, tenant: TenantId, id: ConversationId) -> int:
        return len(await self.page(tenant, id, after=0, limit=10**9))

    async def find(self, tenant: TenantId, id: ConversationId, client_id: str) -> Message | None:
        messages = await self.page(tenant, id, after=0, limit=10**9)
        return next((message for message in messages if message.client_id == client_id), None)

    async def delivered(self, lease: Lease, sequence: int, *, client_id: str | None = None) -> None:
        messages = self._shelf.held(lease).messages
        if 1 <= sequence <= len(messages) and not messages[sequence - 1].delivered:
            self._shelf.note(lease.tenant, "delivered", f"{lease.conversation}|{sequence}", "")
            messages[sequence - 1] = replace(messages[sequence - 1], delivered=True)
            if client_id is not None and (outbox := self._shelf.outboxes.get(lease.tenant)) is not None:
                at, id = self._shelf.now(), lease.conversation
                told = hooks.delivered(lease.tenant, id, sequence, at, client_id=client_id)
                outbox.publish(id, [told], self._shelf.now_ms())
