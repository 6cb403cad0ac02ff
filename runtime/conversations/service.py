"""Every conversation of this runtime: found and changed here, made and removed by `population`, run by `agents`.

The routes call one method each. `library` knows which conversations there are and which are in memory. Knows no HTTP.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import structlog
from pydantic import SecretStr

from runtime.agent.llm import hold_connections, release_connections
from runtime.configuration.profiles import ProfileStore
from runtime.configuration.record import LlmSettings
from runtime.configuration.store import SettingsStore
from runtime.conversations.agents import Agents
from runtime.conversations.conversation import Conversation
from runtime.conversations.folder import Folders
from runtime.conversations.forking import UnknownEvent
from runtime.conversations.library import Library, Opened
from runtime.conversations.live_secrets import UserSecrets, held
from runtime.conversations.making import Maker
from runtime.conversations.outward import Nobody, Outward
from runtime.conversations.ownership import Ownership
from runtime.conversations.population import Population
from runtime.conversations.record import ConversationRecord
from runtime.conversations.runs import AlreadyRunning
from runtime.conversations.status import Status
from runtime.conversations.workspaces import Workspaces
from runtime.events.clock import utc_now
from runtime.git.credentials import CredentialService
from runtime.machine.files import Boundaries
from runtime.secrets.providers import GitProviderStore
from runtime.secrets.sources import Lookup
from runtime.secrets.store import SecretStore
from runtime.settings import RuntimeSettings
from runtime.store.cipher import Cipher

log = structlog.get_logger()
_NO_BOUNDARIES = Boundaries()


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
        boundaries: Boundaries = _NO_BOUNDARIES,
        outward: Outward | None = None,
        asks_models: bool = True,
    ) -> None:
        self.settings = settings
        self._asks_models = asks_models
        outward = outward or Nobody()
        self.folders = Folders(settings.conversations_path, cipher)
        self._credentials = CredentialService(
            git_providers, directory=settings.persistence_dir, http_hosts=settings.allow_http_hosts
        )
        self._workspaces = Workspaces(settings, settings_store, self._credentials)
        ownership = Ownership(settings.conversations_path, lease_seconds=settings.lease_ttl_seconds)
        self._user = UserSecrets(
            store=secret_store,
            providers=git_providers,
            lookup=Lookup(settings, secret_store, git_providers),
            configured=settings.never_shown,
        )
        self._asked_all = False  #: whether `_user.seen` has what conversations hold that were never opened
        maker = Maker(
            folders=self.folders,
            ownership=ownership,
            workspaces=self._workspaces,
            user=self._user,
            settings_store=settings_store,
            profiles=profiles,
            outward=outward,
            boundaries=boundaries,
            version_bytes=settings.version_megabytes * 1_000_000,
            on_activity=self._on_activity,
        )
        self._library = Library(
            self.folders, ownership, make=maker.made, idle_seconds=settings.conversation_idle_ttl_seconds
        )
        self.agents = Agents(self._library, at_once=settings.max_concurrent_runs, asks_models=asks_models)
        self.population = Population(
            self._library, self.agents, ownership=ownership, workspaces=self._workspaces, outward=outward
        )
        self._last_activity: float | None = None

    # -- life

    async def start(self) -> None:
        """Read every record, serve git credentials, end runs that a crash broke off. Raises OSError."""
        if self._asks_models:
            hold_connections(self)
        await self._credentials.start()
        await self._library.load()

    async def stop(self) -> None:
        """Break off runs, end shells, close what is open. What is stored stays and says that a run was broken off."""
        await self.agents.stop()
        await self._library.close()
        await self._credentials.stop()
        if self._asks_models:
            await release_connections(self)

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

    async def set_confirmation_policy(self, conversation_id: UUID, policy: Mapping[str, Any]) -> None:
        """From the next act on. On disk when this returns. Raises ConversationNotFound."""
        async with self.using(conversation_id) as conversation:
            conversation.record.confirmation_policy = dict(policy)
            await conversation.save()

    async def set_security_analyzer(self, conversation_id: UUID, analyzer: Mapping[str, Any] | None) -> None:
        """From the next answer of the model on. On disk when this returns. Raises ConversationNotFound."""
        async with self.using(conversation_id) as conversation:
            conversation.record.security_analyzer = None if analyzer is None else dict(analyzer)
            await conversation.save()

    async def change(self, conversation_id: UUID, *, title: str | None, tags: dict[str, str] | None) -> None:
        """Another title, other tags; None leaves what is there. On disk when this returns. ConversationNotFound."""
        async with self._library.using(conversation_id) as opened:
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
        async with self.using(conversation_id) as conversation:
            record = conversation.record
            record.agent = record.agent.model_copy(update={"llm": llm})
            record.own_llm = True
            conversation.secrets.refresh_mask()
            await conversation.save()

    async def navigate(self, conversation_id: UUID, event_id: UUID | None) -> Conversation:
        """Go on from an earlier event, or from the beginning; nothing of the log is lost. On disk when this returns.

        Raises ConversationNotFound, AlreadyRunning, UnknownEvent.
        """
        async with self.using(conversation_id) as conversation:
            if conversation.status in (Status.RUNNING, Status.WAITING_FOR_CONFIRMATION):
                raise AlreadyRunning
            if event_id is not None and not conversation.events.contains(event_id):
                raise UnknownEvent
            conversation.record.leaf_event_id = str(event_id) if event_id is not None else None
            conversation.record.branched = True
            conversation.toolbox.forget()
            await conversation.save()
            return conversation

    async def restore_directory(self, conversation_id: UUID) -> None:
        """Make the working directory when it is gone: empty, as for a new conversation.

        Raises ConversationNotFound, OwnedElsewhere, WorkspaceUnusable.
        """
        await self._workspaces.restore(self._library.record(conversation_id))

    def _on_activity(self, opened: Opened) -> None:
        self._last_activity = time.monotonic()
        opened.touch()
