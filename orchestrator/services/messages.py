"""Messages of callers to a conversation: its inbox, in every phase, and what became of each.

They are delivered by the conversation's own round (`tending.py`), whenever there is a runtime.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.domain.errors import CapacityReached, LimitReached, Mismatch, NotFound
from orchestrator.domain.ids import ConversationId, TenantId, UserId, new_uuid
from orchestrator.services.admission import WAKE_MS
from orchestrator.services.conversations import ConversationService
from orchestrator.services.resting import archived, at_rest
from orchestrator.state.base import Inbox, Message

Content = str | list[dict[str, Any]]  #: text, or parts as the agent server takes them
WAITING_MESSAGES = 1_000


class Messages:
    """Every method works on the conversations of one tenant, and of one user where the caller is a user; raises
    `NotFound` as `ConversationService.get`."""

    def __init__(self, inbox: Inbox, conversations: ConversationService, *, wake: Callable[[], None]) -> None:
        self._inbox = inbox
        self._conversations = conversations
        self._wake = wake

    async def post(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, *, content: Content, client_id: str | None
    ) -> Message:
        """Put a message into the inbox, once for each `client_id`, in every phase. Raises `Mismatch` where another
        content came under this id, `Conflict` for a conversation that is archived, `LimitReached`."""
        conversation, text = await self._conversations.get(tenant, user, id), json.dumps(content)
        if conversation.archived_at is not None:
            return await self._delivered(conversation, client_id, text)
        message = await self._inbox.put(
            tenant, id, client_id=client_id or new_uuid(), content=text, limit=WAITING_MESSAGES
        )
        _same(message, text)
        if at_rest(conversation) and (await self._conversations.get(tenant, user, id)).archived_at is not None:
            raise archived()  # it became so meanwhile
        self._wake()
        if conversation.phase is Phase.STOPPED:
            with suppress(LimitReached, CapacityReached):  # the message is kept; whoever uses it next wakes it
                await self._conversations.wake(tenant, id, wait_ms=WAKE_MS)
        return message

    async def page(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, *, after: int, limit: int
    ) -> Sequence[Message]:
        """The inbox above `after`, oldest first, with what became of each message."""
        conversation = await self._conversations.get(tenant, user, id)
        found = await self._inbox.page(tenant, id, after=after, limit=limit)
        return [_told(conversation, message) for message in found]

    async def many(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, client_ids: Sequence[str]
    ) -> Sequence[Message | None]:
        """Those, in that order; None for what never came."""
        conversation = await self._conversations.get(tenant, user, id)
        found = await self._inbox.many(tenant, id, client_ids)
        return [None if message is None else _told(conversation, message) for message in found]

    async def count(self, tenant: TenantId, user: UserId | None, id: ConversationId) -> int:
        """How many ever came into the inbox."""
        await self._conversations.get(tenant, user, id)
        return await self._inbox.count(tenant, id)

    async def find(self, tenant: TenantId, user: UserId | None, id: ConversationId, client_id: str) -> Message:
        """One of them. Raises `NotFound`."""
        conversation = await self._conversations.get(tenant, user, id)
        found = await self._inbox.find(tenant, id, client_id)
        if found is None:
            raise NotFound("there is no such message")
        return _told(conversation, found)

    async def _delivered(self, gone: Conversation, client_id: str | None, text: str) -> Message:
        """The message that was delivered under this id before its conversation was archived, for whoever repeats it.
        Raises `Mismatch`, and `Conflict` where there is none."""
        found = await self._inbox.find(gone.tenant, gone.id, client_id) if client_id else None
        if found is None:
            raise archived()
        _same(found, text)
        if not found.delivered:
            raise archived()
        return found


def _same(message: Message, text: str) -> None:
    """Raises `Mismatch` where what is kept under this id has another content."""
    if message.content != text:
        raise Mismatch(
            "another message was sent under this client_id", field="client_id", hint="use a new one for each message"
        )


def _told(conversation: Conversation, message: Message) -> Message:
    return replace(message, undeliverable=conversation.archived_at is not None and not message.delivered)
