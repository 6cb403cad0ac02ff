"""The event log of a conversation as the older surfaces read it: by place from either end, and what its agent does now.

For the facades. It keeps nothing; what it answers is what the log says at that moment.
"""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import NotFound
from orchestrator.services.events import EventLog
from orchestrator.state.base import StoredEvent
from orchestrator.state.event_archive.places import EventsUnavailable

PAGE = 100
_ASK_SECONDS = 3.0  # for a runtime that does not answer: whoever polls waits no longer, and reads what is kept
_LOOKS = (4, 16, 80)  # events from the end, in which the last word of an agent is looked for: they may be large
_AT_WORK = frozenset({"ActionEvent", "ObservationEvent", "AgentErrorEvent"})


class Transcript:
    """Reads. Every method raises `StoreUnavailable`."""

    def __init__(self, events: EventLog) -> None:
        self._events = events

    async def length(self, conversation: Conversation, *, ask: bool = True) -> int:
        """The last sequence of the log; `ask` the runtime first for what is new there. 0 when all of it is gone."""
        if ask:
            with anyio.move_on_after(_ASK_SECONDS):
                await self._events.freshen(conversation)
        try:
            return await self._events.length(conversation)
        except NotFound:
            return 0

    async def read(self, conversation: Conversation, *, after: int, limit: int) -> Sequence[StoredEvent]:
        """Up to `limit` events above `after`, oldest first, of what is kept."""
        return await self._events.read(conversation, after=after, limit=limit, ask=False)

    async def forward(self, conversation: Conversation, *, after: int) -> AsyncIterator[StoredEvent]:
        """All events above `after`, oldest first."""
        while found := await self.read(conversation, after=after, limit=PAGE):
            for event in found:
                yield event
            after = found[-1].sequence

    async def backward(self, conversation: Conversation, *, before: int) -> AsyncIterator[StoredEvent]:
        """All events below `before`, newest first."""
        while before > 1:
            after = max(0, before - 1 - PAGE)
            found = await self.read(conversation, after=after, limit=before - 1 - after)
            for event in reversed(found):
                if event.sequence < before:
                    yield event
            before = after + 1

    async def execution_status(self, conversation: Conversation) -> str | None:
        """The last status that the agent server told in its log, such as `running` or `finished`. An agent that rests
        said so after the last that it did: where it did something since, it is at work. None while the archive cannot
        be read: where a conversation is can be told without its log."""
        try:
            return await self._execution_status(conversation)
        except EventsUnavailable:
            return None

    async def _execution_status(self, conversation: Conversation) -> str:
        before = await self.length(conversation, ask=False) + 1
        for look in _LOOKS:
            after = max(0, before - 1 - look)
            for event in reversed(await self.read(conversation, after=after, limit=before - 1 - after)):
                if (status := _status_by(event)) is not None:
                    return status
            before = after + 1
            if not after:
                return "idle"
        return "running"


def _status_by(stored: StoredEvent) -> str | None:
    """What an event says about the agent that wrote it; None when it says nothing."""
    event = json.loads(stored.payload)
    if event.get("kind") == "ConversationStateUpdateEvent" and (status := status_told(event)) is not None:
        return status
    return "running" if event.get("kind") in _AT_WORK else None


def status_told(event: dict[str, Any]) -> str | None:
    """The execution status that an event tells, None for one that tells none."""
    value = event.get("value")
    if event.get("key") == "full_state" and isinstance(value, dict):
        value = value.get("execution_status")
    elif event.get("key") != "execution_status":
        return None
    return value if isinstance(value, str) else None
