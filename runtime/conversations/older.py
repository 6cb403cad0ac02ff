"""The older body of POST /api/conversations (contract nested-config.md 6): what it asks for, and how that is made.

Uses the stored settings, and clones the repository before the agent starts. Its failures carry the older message ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from runtime.configuration.store import SettingsStore
from runtime.conversations.conversation import Conversation
from runtime.conversations.definition import from_settings
from runtime.conversations.record import Origin, WorkspaceRecord
from runtime.conversations.service import ConversationService
from runtime.conversations.start import GivenMessage, StartRequest
from runtime.conversations.tools import shell_environment
from runtime.events.content import Content, ImageContent, TextContent
from runtime.git.clone import CloneFailed, CloneFailure, clone
from runtime.git.remotes import Remote, remote_for
from runtime.secrets.providers import GitProviderStore

SETTINGS_NOT_FOUND = "CONFIGURATION$SETTINGS_NOT_FOUND"
_MESSAGE_IDS = {
    CloneFailure.REFUSED: "STATUS$ERROR_GIT_PROVIDER_AUTHENTICATION",
    CloneFailure.UNAVAILABLE: "STATUS$ERROR_REPOSITORY_UNAVAILABLE",
    CloneFailure.FOREIGN: "STATUS$ERROR_REPOSITORY_UNAVAILABLE",
}


class OlderRefusal(Exception):
    """The conversation cannot be made; `message_id` is what the older orchestrators look at."""

    def __init__(self, message: str, message_id: str) -> None:
        super().__init__(message)
        self.message_id = message_id


class OlderStart(BaseModel):
    """Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    repository: str | None = Field(default=None, max_length=2048)
    git_provider: str | None = None
    selected_branch: str | None = Field(default=None, max_length=250, pattern=r"^[^-\s][^\s]*$")
    initial_user_msg: str | None = None
    image_urls: list[str] | None = None
    replay_json: str | None = None
    suggested_task: dict[str, Any] | None = None
    create_microagent: dict[str, Any] | None = None
    conversation_instructions: str | None = None
    mcp_config: dict[str, Any] | None = None
    conversation_id: UUID | None = None
    #: our own: it goes on with what was taken in for it (`copying.py`), and nothing is cloned
    imported: bool = False


class OlderConversations:
    """Makes conversations from older bodies."""

    def __init__(
        self, conversations: ConversationService, settings_store: SettingsStore, git_providers: GitProviderStore
    ) -> None:
        self._conversations = conversations
        self._settings_store = settings_store
        self._git_providers = git_providers

    async def create(self, body: OlderStart) -> tuple[Conversation, bool]:
        """The conversation, and whether it is new; its first message is stored, no run is started.

        Raises OlderRefusal, InvalidRepository, CapacityFull, WorkspaceUnusable (also where nothing was taken in for one
        that is to go on with it), OSError.
        """
        if body.conversation_id is not None and _exists(self._conversations, body.conversation_id):
            return await self._conversations.get(body.conversation_id), False
        if not self._settings_store.stored:
            raise OlderRefusal("Settings not found", SETTINGS_NOT_FOUND)
        directory = self._conversations.settings.workspace_path.absolute()
        if body.repository and not body.imported:
            await self._clone(body, directory)
        origin = Origin(repository=body.repository, branch=body.selected_branch, git_provider=body.git_provider)
        return await self._conversations.population.create(
            self._request(body, directory), origin=origin, imported=body.imported
        )

    async def _clone(self, body: OlderStart, parent: Path) -> None:
        """Into a folder of the repository's name below the working directory, which the conversation starts in."""
        settings = self._conversations.settings
        remote: Remote = remote_for(
            body.repository or "",
            chosen=body.git_provider,
            providers=self._git_providers.all(),
            http_hosts=settings.allow_http_hosts,
        )
        environment = {**shell_environment(), **self._conversations.git_environment()}
        try:
            await clone(remote, branch=body.selected_branch, target=parent / remote.name, environment=environment)
        except CloneFailed as error:
            raise OlderRefusal(str(error), _MESSAGE_IDS[error.failure]) from error

    def _request(self, body: OlderStart, directory: Path) -> StartRequest:
        record = self._settings_store.read()
        agent = from_settings(record.agent_settings)
        if record.older is not None and not record.older.enable_default_condenser:
            agent.condenser = None
        if body.conversation_instructions and agent.agent_context is not None:
            given = [agent.agent_context.system_message_suffix, body.conversation_instructions]
            suffix = "\n\n".join(text for text in given if text)
            agent.agent_context = agent.agent_context.model_copy(update={"system_message_suffix": suffix})
        content: list[Content] = [TextContent(text=body.initial_user_msg)] if body.initial_user_msg else []
        if body.image_urls:
            content.append(ImageContent(image_urls=body.image_urls))
        return StartRequest(
            workspace=WorkspaceRecord(working_dir=str(directory)),
            agent=agent,
            conversation_id=body.conversation_id,
            initial_message=GivenMessage(content=content) if content else None,
            max_iterations=record.conversation_settings.max_iterations,
            max_budget_per_run=(record.older.max_budget_per_task or None) if record.older is not None else None,
        )


def _exists(conversations: ConversationService, conversation_id: UUID) -> bool:
    return conversations.exists(conversation_id)
