"""Every conversation of this runtime: made, found, run, paused and removed here.

The routes call one method each. `library` knows which conversations there are and which are in memory. Making and
removing one are serialised by id, so that a repeated request joins the first. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import structlog
from pydantic import SecretStr

from runtime.agent.llm import hold_connections, release_connections, warm_up
from runtime.configuration.profiles import ProfileStore
from runtime.configuration.record import LlmSettings
from runtime.configuration.store import SettingsStore
from runtime.conversations.conversation import Conversation
from runtime.conversations.copying import Copies
from runtime.conversations.folder import Folders
from runtime.conversations.forking import UnknownEvent, copy_log, forked
from runtime.conversations.goal import Goal, opening, reopening
from runtime.conversations.library import ConversationNotFound, Library, Opened
from runtime.conversations.live_secrets import UserSecrets, held
from runtime.conversations.making import Maker, record_of
from runtime.conversations.outward import Nobody, Outward
from runtime.conversations.ownership import OwnedElsewhere, Ownership
from runtime.conversations.record import ConversationRecord, Origin
from runtime.conversations.runs import MESSAGE_INSTEAD, AlreadyRunning
from runtime.conversations.start import GivenMessage, StartRequest
from runtime.conversations.status import Status, advance
from runtime.conversations.workspaces import Workspaces, WorkspaceUnusable
from runtime.events.clock import utc_now
from runtime.events.content import Message
from runtime.events.feed import GONE
from runtime.git.credentials import CredentialService
from runtime.secrets.providers import GitProviderStore
from runtime.secrets.sources import Lookup
from runtime.secrets.store import SecretStore
from runtime.settings import RuntimeSettings
from runtime.store.cipher import Cipher

log = structlog.get_logger()


class IdTaken(Exception):
    """A conversation with this id exists."""


class NoGoal(Exception):
    """There is no goal that was interrupted, so none can be taken up again."""


class CapacityFull(Exception):
    """As many agents run as this runtime allows; try again when one has ended."""


class ConversationService:
    """The only writer of conversations in this process. Single event loop."""

    def __init__(
        self,
        *,
        settings: RuntimeSettings,
        cipher: Cipher,
        settings_store: SettingsStore,
        secret_store: SecretStore,
        git_providers: GitProviderStore,
        profiles: ProfileStore,
        outward: Outward | None = None,
        asks_models: bool = True,
    ) -> None:
        self.settings = settings
        self._asks_models = asks_models
        self._outward = outward or Nobody()
        self.folders = Folders(settings.conversations_path, cipher)
        self._copies = Copies(self.folders)
        self._credentials = CredentialService(
            git_providers, directory=settings.persistence_dir, http_hosts=settings.allow_http_hosts
        )
        self._workspaces = Workspaces(settings, settings_store, self._credentials)
        self._ownership = Ownership(settings.conversations_path, lease_seconds=settings.lease_ttl_seconds)
        self._user = UserSecrets(
            store=secret_store,
            providers=git_providers,
            lookup=Lookup(settings, secret_store, git_providers),
            configured=settings.never_shown,
        )
        self._asked_all = False  #: whether `_user.seen` has what conversations hold that were never opened
        maker = Maker(
            folders=self.folders,
            ownership=self._ownership,
            workspaces=self._workspaces,
            user=self._user,
            settings_store=settings_store,
            profiles=profiles,
            outward=self._outward,
            on_activity=self._on_activity,
        )
        self._library = Library(
            self.folders, self._ownership, make=maker.made, idle_seconds=settings.conversation_idle_ttl_seconds
        )
        self._locks: dict[UUID, asyncio.Lock] = {}
        self._warming: asyncio.Task[None] | None = None
        self._last_activity: float | None = None
        self._kept_places = 0  #: of runs that will start as soon as their message is on disk

    # -- life

    async def start(self) -> None:
        """Read every record, serve git credentials, end runs that a crash broke off. Raises OSError."""
        if self._asks_models:
            hold_connections(self)
        await self._credentials.start()
        await self._library.load()

    async def stop(self) -> None:
        """Break off runs, end shells, close what is open. What is stored stays and says that a run was broken off."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await self._library.close()
        await self._credentials.stop()
        if self._asks_models:
            await release_connections(self)

    async def end_runs(self) -> None:
        """Break off whatever runs. Idempotent."""
        for opened in self._library.all_opened():
            await opened.runner.cancel()

    def secret_values(self) -> Set[SecretStr]:
        """What every conversation holds and what its commands were given; for masking what leaves beside them."""
        if not self._asked_all:
            self._asked_all = True
            for record in self._library.records():
                self._user.seen.update((*held(record.agent), *held(record.secrets)))
        return self._user.seen

    def idle_since(self) -> float | None:
        """time.monotonic of the last event of any conversation; None before the first."""
        return self._last_activity

    def git_environment(self) -> dict[str, str]:
        """What makes a git process use this user's providers and name."""
        return self._workspaces.git_environment()

    def agent_environment(self) -> Mapping[str, str]:
        """What a process of the agent starts with; nothing of the server's own."""
        return self._workspaces.environment()

    # -- one conversation

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
                return await self.get(conversation_id), False
            if request.initial_message is not None:
                self._check_capacity()
            self._check_parent(request)
            record = record_of(conversation_id, request, origin)
            await self._workspaces.prepare(record, request)
            opened = await (self._add_copy(record) if imported else self._add(record))
            if request.parent_conversation_id is not None:
                parent = await self.get(request.parent_conversation_id)
                parent.record.sub_conversation_ids = [*parent.record.sub_conversation_ids, conversation_id]
                await parent.save()
            if request.initial_message is not None:
                await opened.runner.submit(request.initial_message.message)
                self._warm_up()
            opened.conversation.announce(flush=imported)
            return opened.conversation, True

    async def get(self, conversation_id: UUID) -> Conversation:
        """The conversation, opened when it was not. Raises ConversationNotFound, OwnedElsewhere.

        Whoever works with it for longer than a moment wants `using`.
        """
        return (await self._library.open(conversation_id)).conversation

    @asynccontextmanager
    async def using(self, conversation_id: UUID) -> AsyncIterator[Conversation]:
        """The same; it stays in memory for the length of the block."""
        async with self._library.using(conversation_id) as opened:
            yield opened.conversation

    def record(self, conversation_id: UUID) -> ConversationRecord:
        """The conversation's record without opening it. Raises ConversationNotFound, OwnedElsewhere."""
        return self._library.record(conversation_id)

    async def recovered(self, conversation_id: UUID) -> ConversationRecord:
        """The same, and true also when the server that had it died. Raises OSError as well."""
        return await self._library.recovered(conversation_id)

    def records(self) -> Sequence[ConversationRecord]:
        """All of them, in no order."""
        return self._library.records()

    def elsewhere(self, ids: Iterable[UUID]) -> Set[UUID]:
        """Those of them that another live server owns."""
        return self._library.elsewhere(ids)

    def exists(self, conversation_id: UUID) -> bool:
        """Whether there is one, whoever owns it."""
        return self._library.exists(conversation_id)

    def opened(self, conversation_id: UUID) -> Conversation | None:
        """The conversation when it is in memory; None says nothing about whether it exists."""
        found = self._library.opened(conversation_id)
        return found.conversation if found is not None else None

    async def run(self, conversation_id: UUID) -> None:
        """Start the agent; it is `running` when this returns.

        Raises ConversationNotFound, AlreadyRunning, CapacityFull.
        """
        opened = await self._library.open(conversation_id)
        if opened.conversation.status is Status.RUNNING:
            raise AlreadyRunning
        self._check_capacity()
        self._warm_up()
        opened.runner.start()

    async def receive(
        self,
        conversation_id: UUID,
        given: GivenMessage,
        *,
        run: bool,
        event_id: UUID | None = None,
        needs_place: bool = False,
    ) -> None:
        """Add a message, on disk when this returns, and start the agent when asked. A known `event_id` does nothing.

        Raises ConversationNotFound; CapacityFull, with the message stored unless it `needs_place`. A running agent
        takes the message up.
        """
        self._warm_up()
        async with self._library.using(conversation_id) as opened:
            if needs_place and opened.conversation.status is not Status.RUNNING:
                self._check_capacity()
                self._kept_places += 1
            else:
                needs_place = False
            try:
                to_answer = await self._submit(opened, given, run=run, event_id=event_id)
            finally:
                self._kept_places -= needs_place
            # Nothing waits from here to the start of the run, so that nobody else takes the place.
            if to_answer and run and opened.conversation.status is not Status.RUNNING:
                await self.run(conversation_id)

    async def _submit(self, opened: Opened, given: GivenMessage, *, run: bool, event_id: UUID | None) -> bool:
        opened.runner.abandon_goal()  # whoever speaks has something else in mind
        if run and opened.conversation.status is Status.WAITING_FOR_CONFIRMATION:
            await opened.runner.reject(MESSAGE_INSTEAD)  # words are not leave
        return await opened.runner.submit(given.message, event_id=event_id)

    async def start_goal(self, conversation_id: UUID, objective: str, *, max_iterations: int) -> None:
        """Let the agent pursue an objective, turn after turn; `running` when this returns, and on disk.

        Raises ConversationNotFound, AlreadyRunning (also when acts wait for leave), CapacityFull.
        """
        goal = Goal(objective=objective, max_iterations=max_iterations)
        await self._pursue(await self._library.open(conversation_id), goal, opening(goal))

    async def resume_goal(self, conversation_id: UUID) -> None:
        """Take up the last goal, when it was interrupted. Raises NoGoal, and what `start_goal` raises."""
        opened = await self._library.open(conversation_id)
        goal = opened.conversation.record.goal
        if goal is None or goal.status in ("complete", "capped"):
            raise NoGoal
        await self._pursue(opened, goal.resumed(), reopening(goal))

    async def stop_goal(self, conversation_id: UUID) -> None:
        """Pursue it no longer; the turn under way ends as it would. None is under way: nothing happens.

        Raises ConversationNotFound.
        """
        opened = await self._library.open(conversation_id)
        opened.runner.abandon_goal()
        await opened.conversation.settle()
        await opened.conversation.save()

    async def _pursue(self, opened: Opened, goal: Goal, message: Message) -> None:
        if opened.conversation.status is Status.RUNNING:
            raise AlreadyRunning
        self._check_capacity()
        self._warm_up()
        opened.runner.pursue(goal, message)
        await opened.conversation.settle()

    async def over(self, conversation_id: UUID, *, seconds: float | None) -> bool:
        """Whether the run that goes on is over, at the latest after `seconds`. Raises ConversationNotFound."""
        async with self._library.using(conversation_id) as opened:
            return await opened.runner.over(seconds=seconds)

    async def pause(self, conversation_id: UUID) -> None:
        """Let the running agent end its step and stop; without effect in any other status. ConversationNotFound."""
        conversation = await self.get(conversation_id)
        conversation.request_pause()
        await conversation.settle()
        conversation.announce()

    async def interrupt(self, conversation_id: UUID) -> None:
        """Break off what the agent does now; without effect when it does nothing. Raises ConversationNotFound."""
        opened = await self._library.open(conversation_id)
        await opened.runner.interrupt()
        opened.conversation.announce()

    async def ask(self, conversation_id: UUID, question: str) -> str:
        """The agent's answer to a question beside its work. Raises ConversationNotFound, ModelError, NoAnswer."""
        async with self._library.using(conversation_id) as opened:
            return await opened.runner.memory.answer(question)

    async def condense(self, conversation_id: UUID) -> None:
        """Condense now, or before the next step of a running agent.

        Raises ConversationNotFound, NoCondenser, ModelError.
        """
        async with self._library.using(conversation_id) as opened:
            opened.runner.memory.request()
            if opened.conversation.status is not Status.RUNNING:
                await opened.runner.memory.condense()

    async def respond(self, conversation_id: UUID, *, accept: bool, reason: str) -> None:
        """Give or refuse leave for the acts that wait for it; nothing waits: nothing happens.

        Raises ConversationNotFound, CapacityFull (then they still wait).
        """
        opened = await self._library.open(conversation_id)
        if opened.conversation.status is not Status.WAITING_FOR_CONFIRMATION:
            return
        if accept:
            await self.run(conversation_id)
        else:
            await opened.runner.reject(reason)

    async def set_confirmation_policy(self, conversation_id: UUID, policy: Mapping[str, Any]) -> None:
        """From the next act on. On disk when this returns. Raises ConversationNotFound."""
        conversation = await self.get(conversation_id)
        conversation.record.confirmation_policy = dict(policy)
        await conversation.save()

    async def set_security_analyzer(self, conversation_id: UUID, analyzer: Mapping[str, Any] | None) -> None:
        """From the next answer of the model on. On disk when this returns. Raises ConversationNotFound."""
        conversation = await self.get(conversation_id)
        conversation.record.security_analyzer = None if analyzer is None else dict(analyzer)
        await conversation.save()

    async def change(self, conversation_id: UUID, *, title: str | None, tags: dict[str, str] | None) -> None:
        """Another title, other tags; None leaves what is there. On disk when this returns. ConversationNotFound."""
        opened = await self._library.open(conversation_id)
        conversation = opened.conversation
        if title is not None:
            opened.runner.titles.given()
            conversation.record.title = title
        if tags is not None:
            conversation.record.tags = tags
        conversation.record.updated_at = utc_now()
        await conversation.save()
        conversation.announce()

    async def switch_llm(self, conversation_id: UUID, llm: LlmSettings) -> None:
        """Another model from the next run on. On disk when this returns. Raises ConversationNotFound."""
        conversation = await self.get(conversation_id)
        record = conversation.record
        record.agent = record.agent.model_copy(update={"llm": llm})
        record.own_llm = True
        conversation.secrets.refresh_mask()
        await conversation.save()

    async def navigate(self, conversation_id: UUID, event_id: UUID | None) -> Conversation:
        """Go on from an earlier event, or from the beginning; nothing of the log is lost. On disk when this returns.

        Raises ConversationNotFound, AlreadyRunning, UnknownEvent.
        """
        opened = await self._library.open(conversation_id)
        conversation = opened.conversation
        if conversation.status in (Status.RUNNING, Status.WAITING_FOR_CONFIRMATION):
            raise AlreadyRunning
        if event_id is not None and not conversation.events.contains(event_id):
            raise UnknownEvent
        conversation.record.leaf_event_id = str(event_id) if event_id is not None else None
        conversation.record.branched = True
        conversation.toolbox.forget()
        await conversation.save()
        return conversation

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
        async with self._locked(id), self.using(conversation_id) as source:
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
            made = await self._library.add(record, lambda: copy_log(source.events, number + 1, self.folders, record))
            made.conversation.announce(flush=True)
            return made.conversation

    @asynccontextmanager
    async def given_out(self, conversation_id: UUID, count: int | None) -> AsyncIterator[tuple[Conversation, int]]:
        """A conversation for a copy of its first `count` events, None: of all; with their number. It stays in memory
        meanwhile. Raises ConversationNotFound, AlreadyRunning, UnknownEvent where there are not so many."""
        async with self.using(conversation_id) as conversation:
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

    async def restore_directory(self, conversation_id: UUID) -> None:
        """Make the working directory when it is gone: empty, as for a new conversation.

        Raises ConversationNotFound, OwnedElsewhere, WorkspaceUnusable.
        """
        await self._workspaces.restore(self._library.record(conversation_id))

    async def delete(self, conversation_id: UUID) -> None:
        """End its run, shell and sockets, and remove all of it. Raises ConversationNotFound, OSError."""
        async with self._locked(conversation_id):
            async with self._library.using(conversation_id) as opened:
                await opened.runner.cancel()
                await opened.runner.end_session()
                record = opened.conversation.record
                record.execution_status = advance(record.execution_status, Status.DELETING)
                await self._outward.leaving(conversation_id)
                try:
                    await self._library.remove(opened, GONE)
                finally:
                    self._outward.left(conversation_id)
            await self._forget_child(record)
            await self._leave_worktree(record)

    # -- inside

    async def _leave_worktree(self, record: ConversationRecord) -> None:
        """Remove it, unless another conversation works in it: then it goes with that one."""
        made = record.worktree
        if made is None:
            return
        for other in self._library.records():
            if Path(made.path) in (place := Path(other.workspace.working_dir), *place.parents):
                if other.worktree is None:
                    async with self.using(other.id) as heir:
                        heir.record.worktree = made
                        await heir.save()
                return
        await self._workspaces.remove(made)

    async def _forget_child(self, record: ConversationRecord) -> None:
        if record.parent_conversation_id is None or not self._library.exists(record.parent_conversation_id):
            return
        try:
            async with self.using(record.parent_conversation_id) as parent:
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
        self.folders.make(record.id)
        self._ownership.claim(record.id)
        self.folders.write(record)

    def _check_parent(self, request: StartRequest) -> None:
        """Raises WorkspaceUnusable."""
        if request.parent_conversation_id is None:
            return
        if not self._library.exists(request.parent_conversation_id):
            raise WorkspaceUnusable("parent_conversation_id names no conversation")
        parent = self._library.record(request.parent_conversation_id)
        if parent.workspace.working_dir != request.workspace.working_dir:
            raise WorkspaceUnusable("a child works in the working directory of its parent")

    def _check_capacity(self) -> None:
        running = sum(opened.conversation.status is Status.RUNNING for opened in self._library.all_opened())
        if running + self._kept_places >= self.settings.max_concurrent_runs:
            raise CapacityFull

    def _warm_up(self) -> None:
        """Somebody has said something: a model will be asked. Not before, as the library takes two thirds of what the
        server holds then, and seconds of a processor, also in a conversation in which nothing is ever said."""
        if self._warming is None and self._asks_models:
            self._warming = asyncio.create_task(warm_up(), name="import of the model library")

    def _on_activity(self, opened: Opened) -> None:
        self._last_activity = time.monotonic()
        opened.touch()

    @asynccontextmanager
    async def _locked(self, conversation_id: UUID) -> AsyncIterator[None]:
        lock = self._locks.setdefault(conversation_id, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._locks.get(conversation_id) is lock:
                del self._locks[conversation_id]
