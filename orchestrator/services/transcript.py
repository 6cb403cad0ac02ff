"""The event log of a conversation as the older surfaces read it: by place from either end, and what its agent does now.

For the facades. It keeps nothing; what it answers is what the log says at that moment.
"""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import NotFound
from orchestrator.services.events import EventLog
from orchestrator.state.base import StoredEvent

PAGE = 100
_TAIL = 100  # events in which the last word of an agent that rests is found
_STATE = '"ConversationStateUpdateEvent"'


class Transcript:
    """Reads. Every method raises `StoreUnavailable`."""

    def __init__(self, events: EventLog) -> None:
        self._events = events

    async def length(self, conversation: Conversation, *, ask: bool = True) -> int:
        """The last sequence of the log; `ask` the runtime first for what is new there. 0 when all of it is gone."""
        if ask:
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

    async def execution_status(self, conversation: Conversation) -> str:
        """The last status that the agent server told in its log, such as `running` or `finished`. An agent that rests
        says so at the end of the log, so one that said nothing for long is at work."""
        last = await self.length(conversation, ask=False)
        after = max(0, last - _TAIL)
        for event in reversed(await self.read(conversation, after=after, limit=_TAIL)):
            if _STATE in event.payload and (status := status_told(json.loads(event.payload))) is not None:
                return status
        return "running" if after else "idle"


def status_told(event: dict[str, Any]) -> str | None:
    """The execution status that an event tells, None for one that tells none."""
    value = event.get("value")
    if event.get("key") == "full_state" and isinstance(value, dict):
        value = value.get("execution_status")
    elif event.get("key") != "execution_status":
        return None
    return value if isinstance(value, str) else None
