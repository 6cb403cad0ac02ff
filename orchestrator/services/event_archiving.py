"""Moving event logs from the state server to the archive: what makes them unbounded there, and bounded here.

The state server holds the end of each log while there is a runtime, and nothing of one without. What is more than
twice what it is to hold is archived by whoever appends next, before it appends; what is held of a conversation that
rests, by its worker. First the segment is on disk, then the stream is cut: a crash in between leaves events in both,
which is harmless, and nothing is ever in neither.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import structlog

from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.domain.errors import NotFound
from orchestrator.domain.ids import ConversationId
from orchestrator.state.base import Events, HeldEvents, StoredEvent
from orchestrator.state.event_archive.archive import (
    SEGMENT_CHARACTERS,
    SEGMENT_EVENTS,
    DamagedEvents,
    EventArchive,
    Log,
)
from orchestrator.state.event_archive.places import EventsUnavailable

log = structlog.get_logger(__name__)
#: Nothing runs, or what does is frozen: the log is as long as it will be for a while.
_RESTING = frozenset({Phase.PAUSED, Phase.STOPPED, Phase.FAILED, Phase.DELETING})
#: Nothing runs, and it may stay so for ever: the state server is to hold nothing of its log.
_AT_REST = frozenset({Phase.STOPPED, Phase.FAILED, Phase.DELETING})
_ARCHIVE_AT = 2  # times the bounds
_REFUSE_AT = 8  # times the bounds, when the archive cannot be used: the runtime keeps what is refused
_TRY_AGAIN_SECONDS = 5.0
_PAGE = 100


@dataclass(frozen=True)
class Bounds:
    """What the state server holds of one log when the rest is archived."""

    events: int
    size: int  #: bytes of the events


def log_of(conversation: Conversation) -> Log:
    return Log(conversation.tenant, conversation.id, conversation.created_at)


class EventArchiving:
    """One replica's. Several may archive the same log at once: the same events under the same numbers."""

    def __init__(self, events: Events, archive: EventArchive, bounds: Bounds) -> None:
        self._events = events
        self._archive = archive
        self._bounds = bounds
        self._locks: dict[ConversationId, tuple[anyio.Lock, int]] = {}
        self._failed_at = -_TRY_AGAIN_SECONDS

    async def known(self, conversation: Conversation) -> HeldEvents:
        """What is held, where it is also known what the archive has: a state server that lost the end of the log goes
        on behind the archive's. Raises `StoreUnavailable`, `NotFound`."""
        where = (conversation.tenant, conversation.id)
        held = await self._events.held(*where)
        if held.archived is None or self._archive.known(log_of(conversation)) > max(held.archived, held.last):
            await self._events.resume(*where, await self._archive.last(log_of(conversation)))
            held = await self._events.held(*where)
        return held

    async def last(self, conversation: Conversation) -> StoredEvent | None:
        """The last event of the log, from wherever it is. Raises as `known`, and `EventsUnavailable`."""
        held = await self.known(conversation)
        if held.last and not held.events:
            return await self._archive.last(log_of(conversation))
        return await self._events.last(conversation.tenant, conversation.id)

    async def make_room(self, conversation: Conversation) -> None:
        """Before something is appended: archive what is too much. While the archive cannot be used, more is held, up to
        a limit; beyond it `EventsUnavailable`. Raises `StoreUnavailable`, `NotFound`."""
        held = await self.known(conversation)
        if not self._exceeds(held, _ARCHIVE_AT):
            return
        full = self._exceeds(held, _REFUSE_AT)
        if anyio.current_time() - self._failed_at < _TRY_AGAIN_SECONDS:
            if full:
                raise EventsUnavailable(self._archive.problem or "the archive of events cannot be used")
            return
        try:
            await self.archive(conversation, beyond=_ARCHIVE_AT)
        except EventsUnavailable:
            if full:
                raise

    async def settled(self, conversation: Conversation) -> None:
        """What was appended survives: by the state server's word, or in the archive. Raises `StoreUnavailable`."""
        if not self._events.confirmed:
            await self.archive(conversation)

    async def round(self, conversation: Conversation) -> int | None:
        """A part of the conversation's own round, one clean tick: archive what is held and rests. Answers the
        milliseconds until it has to be tried again, None when all is well. Raises `StoreUnavailable` of the state
        server."""
        try:
            held = await self.known(conversation)
            rests = conversation.phase in _RESTING and held.last > (held.archived or 0)
            rests = rests or (conversation.phase in _AT_REST and held.events > 0)
            if rests or self._exceeds(held, _ARCHIVE_AT):
                await self.archive(conversation)
            if rests or self._archive.wants_merge(log_of(conversation)):
                await self._archive.merge(log_of(conversation))
        except EventsUnavailable as exc:
            log.warning("events.not_archived", conversation=conversation.id, problem=exc.message)
            return int(_TRY_AGAIN_SECONDS * 1000)
        except NotFound:
            pass  # it was removed meanwhile
        return None

    async def archive(self, conversation: Conversation, *, beyond: int = 0) -> None:
        """All that is held is in the archive when this returns, and the state server holds no more than it is to. Can
        be repeated at any point; nothing is done where no more than `beyond` times the bounds is held by then. Raises
        `StoreUnavailable`, `NotFound`."""
        try:
            async with self._alone(conversation.id):
                if beyond and not self._exceeds(await self.known(conversation), beyond):
                    return  # somebody else did it while we waited
                await self._move(conversation)
        except EventsUnavailable as exc:
            self._archive.problem, self._failed_at = exc.message, anyio.current_time()
            raise
        self._archive.problem = None

    async def read(self, conversation: Conversation, *, after: int, limit: int) -> list[StoredEvent]:
        """Events above `after` in a row, from wherever they are. Raises `StoreUnavailable`."""
        found: list[StoredEvent] = []
        while len(found) < limit:
            wanted = limit - len(found)
            held = await self._events.read(conversation.tenant, conversation.id, after=after, limit=wanted)
            if held and held[0].first <= after + 1:
                return [*found, *held]
            some = await self._archived(conversation, after, wanted, lacks=bool(held))
            if not some:
                return found
            found += some
            after = found[-1].sequence
        return found

    async def forget_snapshots(self, conversation: Conversation) -> None:
        """With the workspace that they are copies of; its log stays. Raises `EventsUnavailable`."""
        await self._archive.snapshots.remove_all(log_of(conversation).home)

    async def forget(self, conversation: Conversation) -> None:
        """Remove all of its log from the archive. Gone already: fine. Raises `EventsUnavailable`."""
        await self._archive.remove(log_of(conversation))
        self._archive.problem = None

    async def _archived(self, conversation: Conversation, after: int, limit: int, *, lacks: bool) -> list[StoredEvent]:
        """Those above `after` that are not held any more; empty at the log's end. `lacks`: there have to be some."""
        try:
            reach = (await self.known(conversation)).archived or 0
        except NotFound:
            return []
        if reach <= after and not lacks:
            return []
        some = list(await self._archive.read(log_of(conversation), after=after, limit=limit))
        if not some:
            raise DamagedEvents(f"events after {after} are nowhere, and there were some", log_of(conversation).folder)
        return some

    async def _move(self, conversation: Conversation) -> None:
        mine, where = log_of(conversation), (conversation.tenant, conversation.id)
        held = await self.known(conversation)
        archived = max(held.archived or 0, self._archive.known(mine))
        while some := await self._gathered(conversation, archived):
            await self._archive.write(mine, some)
            archived = some[-1].sequence
        events = 0 if conversation.phase in _AT_REST else self._bounds.events
        try:
            await self._events.trim(*where, archived=archived, events=events, size=self._bounds.size)
        except NotFound:
            await self._archive.remove(mine)  # it was purged while this was written
            raise

    async def _gathered(self, conversation: Conversation, after: int) -> list[StoredEvent]:
        """The events of the next segment."""
        some: list[StoredEvent] = []
        size = 0
        while len(some) < SEGMENT_EVENTS and size < SEGMENT_CHARACTERS:
            page = await self._events.read(conversation.tenant, conversation.id, after=after, limit=_PAGE)
            if not page:
                break
            if page[0].first > after + 1:
                raise DamagedEvents(f"events after {after} are neither held nor archived", log_of(conversation).folder)
            some += page
            size += sum(len(event.payload) for event in page)
            after = page[-1].sequence
        return some

    def _exceeds(self, held: HeldEvents, times: int) -> bool:
        return held.events > times * self._bounds.events or held.size > times * self._bounds.size

    @asynccontextmanager
    async def _alone(self, id: ConversationId) -> AsyncIterator[None]:
        """One at a time in this process, so that what is written once is not written twice for nothing."""
        lock, users = self._locks.get(id, (anyio.Lock(), 0))
        self._locks[id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[id]
            if users == 1:
                del self._locks[id]
            else:
                self._locks[id] = (lock, users - 1)
