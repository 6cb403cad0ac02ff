"""Where a conversation's agent works, and with what its processes start: the directory, a working tree, git's settings.

Used by the service when conversations are made, restored and removed. What is made here is the agent's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from runtime.configuration.store import SettingsStore
from runtime.conversations.availability import AVAILABLE, of_directory
from runtime.conversations.record import ConversationRecord
from runtime.conversations.start import StartRequest
from runtime.conversations.tools import shell_environment
from runtime.git.clone import CloneFailed, ensure_repository
from runtime.git.credentials import CredentialService, environment
from runtime.machine import account
from runtime.machine.worktrees import Worktree, WorktreeOptions, WorktreeRefused
from runtime.machine.worktrees import make as make_worktree
from runtime.machine.worktrees import remove as remove_worktree
from runtime.settings import RuntimeSettings

GIT_USER_NAME = "Nestor Agent"
GIT_USER_EMAIL = "agent@nestor.invalid"


class WorkspaceUnusable(Exception):
    """The working directory cannot be made; the text says why."""


class Workspaces:
    """Of all conversations of this runtime."""

    def __init__(
        self, settings: RuntimeSettings, settings_store: SettingsStore, credentials: CredentialService
    ) -> None:
        self._settings = settings
        self._settings_store = settings_store
        self._credentials = credentials
        self._making = asyncio.Lock()  #: two may want the same new directory, or one inside the other

    def git_environment(self) -> dict[str, str]:
        """What makes a git process use this user's providers and name."""
        older = self._settings_store.read().older
        return environment(
            self._credentials.path,
            program=self._credentials.program,
            user_name=(older.git_user_name if older else None) or GIT_USER_NAME,
            user_email=(older.git_user_email if older else None) or GIT_USER_EMAIL,
        )

    def environment(self) -> Mapping[str, str]:
        """What a process of the agent starts with; nothing of the server's own."""
        given = {name: value.get_secret_value() for name, value in self._settings.agent_variables.items()}
        return {**shell_environment(), **given, **self.git_environment()}

    async def prepare(self, record: ConversationRecord, request: StartRequest) -> None:
        """The directory to work in: made when missing, or a working tree of its own. Raises WorkspaceUnusable."""
        directory = Path(record.workspace.working_dir)
        if not request.worktree:
            holds_clone = record.origin is not None and record.origin.repository is not None
            await self._make_directory(directory, holds_clone=holds_clone)
            return
        try:
            record.worktree, place = await account.in_thread(
                make_worktree,
                directory,
                name=record.id.hex,
                root=self._settings.conversation_worktree_root.absolute(),
                options=request.worktree_options or WorktreeOptions(),
                environment=self.environment(),
            )
        except WorktreeRefused as error:
            raise WorkspaceUnusable(str(error)) from error
        record.workspace = record.workspace.model_copy(update={"working_dir": str(place)})

    async def restore(self, record: ConversationRecord) -> None:
        """Make the working directory when it is gone: empty, as for a new conversation. Raises WorkspaceUnusable."""
        directory = Path(record.workspace.working_dir)
        if of_directory(directory) is not AVAILABLE:
            await self._make_directory(directory, holds_clone=record.origin is not None)

    async def remove(self, worktree: Worktree) -> None:
        """A working tree that nobody works in any more; what was not committed is kept on a branch."""
        await account.in_thread(remove_worktree, worktree, self.environment())

    async def _make_directory(self, directory: Path, *, holds_clone: bool) -> None:
        """Make it, and a repository in it when it is in none, as the contract has it; not around a clone."""
        variables = self.environment()

        def prepare() -> None:
            directory.mkdir(parents=True, exist_ok=True)
            if not holds_clone:
                ensure_repository(directory, variables)

        if self._settings.generation is None:  # behind an orchestrator, who holds the key is not whose machine it is
            await asyncio.to_thread(account.adopt, directory)
        try:
            async with self._making:
                await account.in_thread(prepare)
        except OSError as error:
            raise WorkspaceUnusable(f"{directory} cannot be made or used: {_told(error)}") from error
        except CloneFailed as error:
            raise WorkspaceUnusable(f"git init failed in {directory}: {error}") from error


def _told(error: OSError) -> str:
    """What is wrong, and what to do where it is only that the agent is another user than the caller."""
    user = account.chosen()
    if user is None or not isinstance(error, PermissionError):
        return str(error.strerror)
    return f"{error.strerror} for user {user.name}, as whom the agent works: give the folder to that user"
