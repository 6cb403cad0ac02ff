"""The event log as it grows, for whoever reads along: from an exclusive cursor on, with nothing lost and nothing twice.

SSE and WebSocket read here. What is new is learned from `state.Changes`, which is a hint: a reader also looks by itself
now and then, and asks the runtime then, so that a lost hint or a silent runtime costs time and never an event.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import anyio
import structlog

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.ids import ConversationId
from orchestrator.services.events import EventLog
from orchestrator.state.base import Changes, StoredEvent
from orchestrator.state.event_archive.archive import DamagedEvents

log = structlog.get_logger(__name__)
LOOK_AGAIN_SECONDS = 5.0
PAGE = 100
_LISTEN_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Update:
    """Either an event with its number, or where the conversation is now. The latter has no number: it is not in the log
    and is told anew to everybody who comes. With neither it is a sign of life."""

    event: StoredEvent | None = None
    conversation: Conversation | None = None


class EventFeed:
    """Of one replica. `run` has to run for updates to be prompt."""

    def __init__(self, events: EventLog, changes: Changes, *, look_again: float = LOOK_AGAIN_SECONDS) -> None:
        self._events = events
        self._changes = changes
        self._look_again = look_again
        self._waiting: dict[ConversationId, anyio.Event] = {}
        self._listeners: list[Callable[[ConversationId | None], None]] = []

    def subscribe(self, listener: Callable[[ConversationId | None], None]) -> None:
        """Have `listener` called with each conversation that changed on any replica, with None when changes may have
        been missed."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Until cancelled: wake those whose conversation changed."""
        while True:
            try:
                async for id in self._changes.listen():
                    self._wake(id)
                    self._tell(id)
            except StoreUnavailable as exc:
                log.warning("feed.not_listening", problem=exc.message)
            for id in list(self._waiting):
                self._wake(id)
            await anyio.sleep(_LISTEN_AGAIN_SECONDS)
            self._tell(None)

    def _tell(self, id: ConversationId | None) -> None:
        for listener in self._listeners:
            listener(id)

    async def probe(self, conversation: Conversation, *, after: int) -> None:
        """Raises what a reader from there would meet at once: `DamagedEvents`, `StoreUnavailable`."""
        await self._events.read(conversation, after=after, limit=PAGE, ask=False)

    async def follow(
        self, id: ConversationId, load: Callable[[], Awaitable[Conversation]], *, after: int
    ) -> AsyncGenerator[Update]:
        """Everything after `after`, then what comes. Ends by the exception of `load` (`NotFound` when it is gone), and
        by `DamagedEvents`, which no waiting mends. The store being away is waited out."""
        told: Conversation | None = None
        ask = True
        try:
            while True:
                change = self._waiting.setdefault(id, anyio.Event())  # before the look, so that nothing falls between
                try:
                    conversation = await load()
                    if told is None or (told.phase, told.why) != (conversation.phase, conversation.why):
                        yield Update(conversation=conversation)
                    told = conversation
                    found = await self._events.read(conversation, after=after, limit=PAGE, ask=ask)
                except DamagedEvents:
                    raise
                except StoreUnavailable:
                    await anyio.sleep(_LISTEN_AGAIN_SECONDS)
                    continue
                for event in found:
                    after = event.sequence
                    yield Update(event=event)
                if len(found) == PAGE:
                    continue
                with anyio.move_on_after(self._look_again) as waited:
                    await change.wait()
                ask = waited.cancelled_caught  # nobody told us: the runtime may know more than the log
                if ask:
                    yield Update()
        finally:
            self._wake(id)  # other readers of it look once for nothing, and the place in the table is free

    def _wake(self, id: ConversationId) -> None:
        change = self._waiting.pop(id, None)
        if change is not None:
            change.set()
