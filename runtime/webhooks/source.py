"""What one conversation has to tell its receivers: from its own log and record while it lives.

`Source` is what a lane sends from; `LiveSource` is one of a conversation of this runtime, `kept.KeptSource` of one that
was deleted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol
from uuid import UUID

from runtime.conversations.conversation import Conversation
from runtime.conversations.library import ConversationNotFound
from runtime.conversations.ownership import OwnedElsewhere
from runtime.conversations.record import ConversationRecord
from runtime.conversations.service import ConversationService
from runtime.webhooks.batch import Batch, lines_after, wire_forms
from runtime.webhooks.position import PositionFile

#: what joins a conversation to others and must stay, even where a secret is spelt like a part of it
_JOINTS = ("id", "execution_status", "created_at", "updated_at", "last_user_message_id", "leaf_event_id")


#: the digest of a conversation that is gone
DELETED = "deleted"


class Vanished(Exception):
    """The conversation is no longer here."""


@dataclass(frozen=True)
class State:
    """A conversation as a whole, when its log had `events` events. Equal digests mean that it did not change."""

    body: bytes
    digest: str
    events: int


class Source(Protocol):
    """One conversation."""

    conversation: UUID
    #: whether it ends: then nothing is held back, and what is refused for too long is given up
    closing: bool

    def position(self, receiver: str) -> PositionFile: ...

    async def batch(self, after: int, through: int, *, most_events: int, most_bytes: int) -> Batch:
        """What comes after that event, on disk for good. Raises Vanished, OSError."""
        ...

    async def state(self) -> State:
        """Raises Vanished, OSError."""
        ...

    @property
    def is_overdue(self) -> bool: ...


class LiveSource:
    """Implements Source. One for all receivers of a conversation, so that the disk is waited for once."""

    closing = False
    is_overdue = False

    def __init__(self, conversation: UUID, conversations: ConversationService) -> None:
        self.conversation = conversation
        self._conversations = conversations
        self._synced = 0

    def position(self, receiver: str) -> PositionFile:
        return PositionFile(self._conversations.folders.path(self.conversation), receiver)

    async def batch(self, after: int, through: int, *, most_events: int, most_bytes: int) -> Batch:
        async with self._using() as conversation:
            lines = lines_after(conversation.events, after, through, most_events=most_events, most_bytes=most_bytes)
            await self._sync(conversation, after + len(lines))
            conversation.secrets.refresh_mask()
            mask = conversation.mask if conversation.mask.longest else None
            events = await asyncio.to_thread(wire_forms, lines, mask, most_bytes=most_bytes)
            return Batch(after, events)

    async def state(self) -> State:
        async with self._using() as conversation:
            await self._sync(conversation, len(conversation.events))
            return state_of(conversation)

    @asynccontextmanager
    async def _using(self) -> AsyncIterator[Conversation]:
        """It stays in memory meanwhile. One that another server has now is that server's to send."""
        try:
            async with self._conversations.using(self.conversation) as conversation:
                yield conversation
        except (ConversationNotFound, OwnedElsewhere):
            raise Vanished from None

    async def _sync(self, conversation: Conversation, through: int) -> None:
        """A receiver must not have what a power cut could still take from the log: its number would be given again."""
        if through <= self._synced:
            return
        reached = len(conversation.events)
        syncing = asyncio.ensure_future(asyncio.to_thread(conversation.events.sync))
        try:
            await asyncio.shield(syncing)
        except asyncio.CancelledError:
            await asyncio.wait({syncing})  # whoever cancels may close the log next
            raise
        self._synced = max(self._synced, reached)


def state_of(conversation: Conversation) -> State:
    """The conversation as it is now, masked."""
    conversation.secrets.refresh_mask()
    shown = {**conversation.shown(), "runtime_info": None}
    masked = {**conversation.mask.tree(shown), **{name: shown[name] for name in _JOINTS}}
    body = json.dumps(masked, ensure_ascii=False, separators=(",", ":")).encode()
    return State(body, digest(conversation.record, conversation.folder), len(conversation.events))


def digest(record: ConversationRecord, folder: Path) -> str:
    """Another one when a receiver of whole conversations would see a difference."""
    told, _, _ = record.shown_json(folder).rpartition(b',"runtime_info":')  # which receivers are not told
    return sha256(told).hexdigest()[:16]
