"""Snapshots of a conversation: log and workspace together at one event, taken on request and kept to be forked from.

What is kept is the stream that a fork would be given at that moment (`copying.py`), so a fork of a snapshot needs no
runtime of its source. The runtime is asked for the length of its log before and after: where it is the same, nothing
ran in between, and the workspace is that of this event.
"""

from collections.abc import AsyncIterator, Sequence
from weakref import WeakValueDictionary

import anyio
import structlog

from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import Conflict, LimitReached, NotFound, NotOffered, TransientError
from orchestrator.domain.ids import ConversationId, TenantId, UserId, new_uuid
from orchestrator.domain.snapshots import Snapshot, SnapshotId
from orchestrator.services.conversations import ConversationService
from orchestrator.services.copying import Copying, check_source
from orchestrator.services.event_archiving import log_of
from orchestrator.services.files import Files
from orchestrator.services.thawing import Thawing, held_back
from orchestrator.state.event_archive.places import Missing
from orchestrator.state.event_archive.snapshots import SnapshotArchive

log = structlog.get_logger(__name__)
_TRIES = 3
_AT_ONCE = 4  #: of all tenants on one replica: each holds some pieces in memory
_OF_A_TENANT = 2  #: at once, so that its slow runtimes keep nobody else waiting
_UNDO_SECONDS = 30.0
#: what one may take, and bytes a second beyond: else a runtime that gives its copy byte by byte holds a turn for ever
_LEAST_SECONDS, _LEAST_RATE = 120.0, 1_000_000


class Snapshots:
    """Every method works on the conversations of one tenant, and of one user where the caller is a user. `most` of each
    conversation, 0 for none at all; `limit_bytes` of each."""

    def __init__(
        self,
        conversations: ConversationService,
        files: Files,
        copying: Copying,
        thawing: Thawing,
        archive: SnapshotArchive,
        clock: Clock,
        *,
        most: int,
        limit_bytes: int,
    ) -> None:
        self._conversations = conversations
        self._files = files
        self._copying = copying
        self._thawing = thawing
        self._archive = archive
        self._clock = clock
        self._most = most
        self._limit_bytes = limit_bytes
        self._turns = anyio.Semaphore(_AT_ONCE)
        self._shares: WeakValueDictionary[TenantId, anyio.Semaphore] = WeakValueDictionary()
        self._taken: set[str] = set()  # conversations of which one is being taken here

    async def take(self, tenant: TenantId, user: UserId | None, id: ConversationId) -> Snapshot:
        """One of now; it is there for good when this returns, and nothing of it where this raises. Raises `NotFound`,
        `Conflict` where the conversation cannot be copied as it is, or is being copied, `LimitReached` where it has as
        many as it may, `TooLarge`, `TransientError`, `NotOffered`."""
        source = await self._conversations.get(tenant, user, id)
        if self._most == 0:
            raise NotOffered("this installation keeps no snapshots", hint="NESTOR_SNAPSHOTS")
        check_source(source)
        home = _home(source)
        if home in self._taken:  # else as many as are asked for at once would find room
            raise Conflict("a snapshot of this conversation is being taken", hint="wait until it is there")
        self._taken.add(home)
        try:
            async with self._share(tenant), self._turns:
                await self._room(source)
                with anyio.move_on_after(_LEAST_SECONDS + self._limit_bytes / _LEAST_RATE):
                    if held_back(source):
                        return await self._thawing.meanwhile(source, lambda there: self._settled(there, user))
                    return await self._settled(await self._files.reached(source), user)
        finally:
            self._taken.discard(home)
        raise TransientError("the runtime took too long to give a copy of itself", retry_after=60)

    async def list(self, tenant: TenantId, user: UserId | None, id: ConversationId) -> Sequence[Snapshot]:
        """The oldest first. Raises `NotFound`, `EventsUnavailable`."""
        return await self._archive.present(_home(await self._conversations.get(tenant, user, id)))

    async def remove(self, tenant: TenantId, user: UserId | None, id: ConversationId, snapshot: SnapshotId) -> None:
        """Raises `NotFound` for one that is not there any more, `EventsUnavailable`."""
        source = await self._conversations.get(tenant, user, id)
        if not await self._archive.remove(_home(source), snapshot):
            raise _unknown()

    async def find(self, source: Conversation, *, id: SnapshotId | None, at: int | None) -> Snapshot | None:
        """The one of this id, or the newest at exactly this event. Raises `NotFound` for an id that is not there."""
        found = await self._archive.present(_home(source))
        if id is None:
            return next((one for one in reversed(found) if one.at == at), None)
        known = next((one for one in found if one.id == id), None)
        if known is None:
            raise _unknown()
        return known

    async def pieces(self, source: Conversation, id: SnapshotId) -> AsyncIterator[bytes]:
        """What a fork takes in. Raises `NotFound`, `EventsUnavailable`."""
        try:
            async for piece in self._archive.pieces(_home(source), id):
                yield piece
        except Missing:
            raise _unknown() from None

    def _share(self, tenant: TenantId) -> anyio.Semaphore:
        """The turn within what one tenant may take."""
        return self._shares.setdefault(tenant, anyio.Semaphore(_OF_A_TENANT))

    async def _room(self, source: Conversation) -> None:
        present = len(await self._archive.present(_home(source)))
        if present >= self._most:
            details = {"rule": "conversation.snapshots", "limit": self._most, "current": present, "retry_after": 60}
            raise LimitReached("this conversation has as many snapshots as it may", hint="remove one", **details)

    async def _settled(self, source: Conversation, user: UserId | None) -> Snapshot:
        for _ in range(_TRIES):
            made = await self._once(source, user)
            if made is not None:
                log.info("snapshot.taken", conversation=source.id, tenant=source.tenant, at=made.at, bytes=made.size)
                return made
        raise Conflict("the conversation went on while it was copied", hint="take it while the agent rests")

    async def _once(self, source: Conversation, user: UserId | None) -> Snapshot | None:
        """None where the conversation went on meanwhile."""
        home, id, now = _home(source), SnapshotId(new_uuid()), self._clock.now()
        at = await self._copying.events(source)
        done = False
        try:
            await self._archive.begin(home, id, now)
            async with self._copying.stream(source, at) as stream:
                pieces = await self._archive.write(home, id, stream, limit_bytes=self._limit_bytes)
            if await self._copying.events(source) != at:
                return None
            made = Snapshot(id, at, sum(piece.size for piece in pieces), now, user)
            await self._archive.finish(home, made, pieces)
            await self._conversations.get(source.tenant, source.user, source.id)  # deleted meanwhile: it goes as well
            done = True
            return made
        finally:
            if not done:  # also where the caller is gone; what is not undone in time goes with a later one
                with anyio.move_on_after(_UNDO_SECONDS, shield=True):
                    await self._archive.remove(home, id)


def _home(conversation: Conversation) -> str:
    return log_of(conversation).home


def _unknown() -> NotFound:
    return NotFound("there is no such snapshot")
