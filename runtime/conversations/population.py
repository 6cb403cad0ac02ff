"""Conversations that come and go: made, forked, begun with a copy from elsewhere, removed.

`service` has one of these for all conversations. Each step is serialised by id, so that a repeated request joins the
first, and leaves nothing behind where it fails. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import structlog

from runtime.conversations.agents import Agents
from runtime.conversations.conversation import Conversation
from runtime.conversations.copying import Copies
from runtime.conversations.forking import UnknownEvent, copy_log, forked
from runtime.conversations.library import ConversationNotFound, Library, Opened
from runtime.conversations.making import record_of
from runtime.conversations.outward import Outward
from runtime.conversations.ownership import OwnedElsewhere, Ownership
from runtime.conversations.record import ConversationRecord, Origin
from runtime.conversations.runs import AlreadyRunning
from runtime.conversations.start import StartRequest
from runtime.conversations.status import Status, advance
from runtime.conversations.workspaces import Workspaces, WorkspaceUnusable
from runtime.events.feed import GONE

log = structlog.get_logger()

#: how long a removal waits for requests that are at the conversation
_ENDING_SECONDS = 3.0


class IdTaken(Exception):
    """A conversation with this id exists."""


class Population:
    """The only maker and remover of a library's conversations in this process. Single event loop."""

    def __init__(
        self, library: Library, agents: Agents, *, ownership: Ownership, workspaces: Workspaces, outward: Outward
    ) -> None:
        self._library = library
        self._agents = agents
        self._folders = library.folders
        self._ownership = ownership
        self._workspaces = workspaces
        self._outward = outward
        self._copies = Copies(library.folders)
        self._locks: dict[UUID, asyncio.Lock] = {}

    async def create(
        self, request: StartRequest, *, origin: Origin | None = None, imported: bool = False
    ) -> tuple[Conversation, bool]:
        """Make a conversation and add its first message; False when the id exists, and then nothing is changed.

        With `imported` it goes on with what `take_in` took. Starts no run. Raises CapacityFull, WorkspaceUnusable,
        OSError; then nothing is left.
        """
        conversation_id = request.conversation_id or uuid4()
        async with self._locked(conversation_id):
            if self._library.exists(conversation_id):
                return (await self._library.open(conversation_id)).conversation, False
            if request.initial_message is not None:
                self._agents.check_capacity()
            self._check_parent(request)
            record = record_of(conversation_id, request, origin)
            await self._workspaces.prepare(record, request)
            opened = await (self._add_copy(record) if imported else self._add(record))
            if request.parent_conversation_id is not None:
                await self._tell_parent(request.parent_conversation_id, conversation_id)
            if request.initial_message is not None:
                await opened.runner.submit(request.initial_message.message)
                self._agents.warm_up()
            opened.conversation.announce(flush=imported)
            return opened.conversation, True

    async def fork(
        self,
        conversation_id: UUID,
        *,
        new_id: UUID | None,
        title: str | None,
        tags: dict[str, str] | None,
        reset_metrics: bool,
        from_event_id: UUID | None,
    ) -> Conversation:
        """A copy up to an event, at rest. Raises ConversationNotFound, UnknownEvent, IdTaken, OSError; then nothing
        is left."""
        id = new_id or uuid4()
        async with self._locked(id), self._library.using(conversation_id) as opened:
            source = opened.conversation
            if self._library.exists(id):
                raise IdTaken
            number = source.events.number(from_event_id) if from_event_id is not None else len(source.events) - 1
            if number is None:
                raise UnknownEvent
            record = forked(
                source.record,
                id,
                title=title,
                tags=tags,
                reset_metrics=reset_metrics,
                from_event_id=str(from_event_id) if from_event_id is not None else None,
            )
            made = await self._library.add(record, lambda: copy_log(source.events, number + 1, self._folders, record))
            made.conversation.announce(flush=True)
            return made.conversation

    @asynccontextmanager
    async def given_out(self, conversation_id: UUID, count: int | None) -> AsyncIterator[tuple[Conversation, int]]:
        """A conversation for a copy of its first `count` events, None: of all; with their number. It stays in memory
        meanwhile. Raises ConversationNotFound, AlreadyRunning, UnknownEvent where there are not so many."""
        async with self._library.using(conversation_id) as opened:
            conversation = opened.conversation
            if conversation.status is Status.RUNNING:
                raise AlreadyRunning
            if count is not None and count > len(conversation.events):
                raise UnknownEvent
            yield conversation, len(conversation.events) if count is None else count

    @asynccontextmanager
    async def taken_in(self, conversation_id: UUID) -> AsyncIterator[Copies]:
        """Where to put the copy with which a conversation of this id will begin. Raises IdTaken where the runtime has a
        conversation: the working directory would be taken from it."""
        async with self._locked(conversation_id):
            if self._library.records():
                raise IdTaken
            yield self._copies

    async def delete(self, conversation_id: UUID) -> None:
        """End its run, shell and sockets, and remove all of it. Raises ConversationNotFound, OSError."""
        async with self._locked(conversation_id):
            async with self._library.using(conversation_id) as opened, self._leaving(opened):
                record = opened.conversation.record
                record.execution_status = advance(record.execution_status, Status.DELETING)
                await self._outward.leaving(conversation_id)
                try:
                    await self._library.remove(opened, GONE)
                finally:
                    self._outward.left(conversation_id)
            await self._forget_child(record)
            await self._leave_worktree(record)

    @asynccontextmanager
    async def _leaving(self, opened: Opened) -> AsyncIterator[None]:
        """To everybody else it is gone, nothing runs in it, and what requests had begun is over, as far as they let us
        wait for it."""
        with self._library.leaving(opened):
            await opened.runner.cancel()
            await opened.runner.end_session()
            await self._library.alone(opened, seconds=_ENDING_SECONDS)
            yield

    async def _leave_worktree(self, record: ConversationRecord) -> None:
        """Remove it, unless another conversation works in it: then it goes with that one."""
        made = record.worktree
        if made is None:
            return
        for other in self._library.records():
            if Path(made.path) in (place := Path(other.workspace.working_dir), *place.parents):
                if other.worktree is None:
                    async with self._library.using(other.id) as heir:
                        heir.conversation.record.worktree = made
                        await heir.conversation.save()
                return
        await self._workspaces.remove(made)

    async def _forget_child(self, record: ConversationRecord) -> None:
        if record.parent_conversation_id is None or not self._library.exists(record.parent_conversation_id):
            return
        try:
            async with self._library.using(record.parent_conversation_id) as opened:
                parent = opened.conversation
                left = [child for child in parent.record.sub_conversation_ids if child != record.id]
                parent.record.sub_conversation_ids = left
                await parent.save()
        except (ConversationNotFound, OwnedElsewhere):
            log.info("conversation.child_not_forgotten", parent=str(record.parent_conversation_id))

    async def _add(self, record: ConversationRecord) -> Opened:
        try:
            return await self._library.add(record, lambda: self._begin(record))
        except BaseException:
            await self._leave_worktree(record)
            raise

    async def _add_copy(self, record: ConversationRecord) -> Opened:
        """A conversation over the log that was taken in for it: it learns from the log what it is."""
        carried = await asyncio.to_thread(self._copies.begin, record.id)
        if carried is None:
            raise WorkspaceUnusable("nothing was taken in that this conversation could begin with")
        opened = await self._add(record)
        carried.put_into(record)
        await opened.conversation.save()
        return opened

    def _begin(self, record: ConversationRecord) -> None:
        """The folder of a new conversation, which is nobody else's from its first moment on."""
        self._folders.make(record.id)
        self._ownership.claim(record.id)
        self._folders.write(record)

    async def _tell_parent(self, parent_id: UUID, child_id: UUID) -> None:
        try:
            async with self._library.using(parent_id) as opened:
                parent = opened.conversation
                parent.record.sub_conversation_ids = [*parent.record.sub_conversation_ids, child_id]
                await parent.save()
        except ConversationNotFound:  # removed a moment ago: the child is left as it is when that happens later
            log.info("conversation.parent_not_told", parent=str(parent_id))

    def _check_parent(self, request: StartRequest) -> None:
        """Raises WorkspaceUnusable."""
        if request.parent_conversation_id is None:
            return
        if not self._library.exists(request.parent_conversation_id):
            raise WorkspaceUnusable("parent_conversation_id names no conversation")
        parent = self._library.record(request.parent_conversation_id)
        if parent.workspace.working_dir != request.workspace.working_dir:
            raise WorkspaceUnusable("a child works in the working directory of its parent")

    @asynccontextmanager
    async def _locked(self, conversation_id: UUID) -> AsyncIterator[None]:
        lock = self._locks.setdefault(conversation_id, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._locks.get(conversation_id) is lock:
                del self._locks[conversation_id]
