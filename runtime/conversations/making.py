"""What a conversation is made of: the record of a request, and the conversation in memory over its record.

`Maker` puts log, secrets, tools and runner together; it decides nothing about when. Used by the service.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from runtime.configuration.profiles import ProfileStore
from runtime.configuration.record import LlmSettings
from runtime.configuration.store import SettingsStore
from runtime.conversations.branch import branch, tasks_of
from runtime.conversations.conversation import Conversation
from runtime.conversations.definition import modules_of
from runtime.conversations.folder import Folders
from runtime.conversations.library import Opened
from runtime.conversations.live_secrets import LiveSecrets, UserSecrets
from runtime.conversations.outward import Outward
from runtime.conversations.ownership import Ownership
from runtime.conversations.record import ConversationRecord, Origin
from runtime.conversations.runs import Runner
from runtime.conversations.start import StartRequest
from runtime.conversations.tools import toolbox_for
from runtime.conversations.workspaces import Workspaces
from runtime.events.actions import TaskItem
from runtime.events.log import EventLog
from runtime.events.models import parse
from runtime.machine import account
from runtime.machine.files import Boundaries
from runtime.skills.loader import Skill, project_skills, skill_of, user_skills
from runtime.skills.memory import notes

if TYPE_CHECKING:
    from runtime.conversations.versions import Versions

_BLOCK = 200


@dataclass(frozen=True)
class Maker:
    """`on_activity` is told when something happened in one."""

    folders: Folders
    ownership: Ownership
    workspaces: Workspaces
    user: UserSecrets
    settings_store: SettingsStore
    profiles: ProfileStore
    outward: Outward
    boundaries: Boundaries
    version_bytes: int
    on_activity: Callable[[Opened], None]

    def made(self, record: ConversationRecord) -> Opened:
        """A conversation over its record, with all that it is made of. Raises OSError."""
        secrets = LiveSecrets(lambda: record, self.user)
        folder = self.folders.path(record.id)
        events = EventLog(folder)
        conversation = Conversation(
            record,
            folders=self.folders,
            events=events,
            secrets=secrets,
            toolbox=toolbox_for(
                record.agent,
                directory=Path(record.workspace.working_dir),
                environment=self.workspaces.environment(),
                secrets=secrets,
                output_directory=_outputs(folder),
                tasks=lambda: _tasks(record, events),
                client_tools=record.client_tools,
            ),
            on_activity=lambda: self.on_activity(opened),
            may_write=lambda: self.ownership.check(record.id),
            skills=lambda: _skills(record),
            memory=lambda: _memory(record),
            outward=self.outward,
        )
        runner = Runner(
            conversation,
            llm=lambda: self._llm_of(record),
            profiles=lambda name: self.profiles.all().get(name),
            environment=self.workspaces.environment,
            versions=lambda: self._versions_of(record, events),
        )
        opened = Opened(conversation, runner)
        secrets.refresh_mask()
        return opened

    def _versions_of(self, record: ConversationRecord, events: EventLog) -> Versions | None:
        """None: nobody could copy one, since its creator chose where it works; or none are wanted."""
        if record.origin is None or not self.version_bytes:
            return None
        from runtime.conversations.versions import Versions  # with the first run: a start need not wait for it
        from runtime.machine.versions import Bounds, FolderVersions

        folder = FolderVersions(
            self.folders.versions(record.id),
            Path(record.workspace.working_dir),
            self.boundaries,
            Bounds(self.version_bytes),
        )
        return Versions(folder, count=lambda: len(events), name=str(record.id))

    def _llm_of(self, record: ConversationRecord) -> LlmSettings:
        """An older conversation follows the stored settings, as its creator named none; a newer one keeps its own."""
        if record.origin is None or record.own_llm:
            return record.agent.llm
        return self.settings_store.read().agent_settings.llm


def _tasks(record: ConversationRecord, events: EventLog) -> list[TaskItem] | None:
    """The agent's list of tasks as the log has it; blocks."""
    if record.branched:
        return tasks_of(branch([parse(line) for line in events.lines(0, len(events))], record.leaf_event_id))
    for last in range(len(events), 0, -_BLOCK):
        found = tasks_of([parse(line) for line in events.lines(max(0, last - _BLOCK), last)])
        if found is not None:
            return found
    return None


def _outputs(folder: Path) -> Path:
    """Where whole outputs of commands are kept: where the agent's shell can read them."""
    chosen = account.chosen()
    return folder / "observations" if chosen is None else chosen.home / ".outputs" / folder.name


def _memory(record: ConversationRecord) -> str | None:
    """What earlier work has noted, where that was asked for. Blocks for the length of two small files."""
    context = record.agent.agent_context
    if context is None or not context.load_memory:
        return context.memory_context if context is not None else None
    with account.acting():
        return notes(account.home(), Path(record.workspace.working_dir)) or context.memory_context


def _skills(record: ConversationRecord) -> list[Skill]:
    """What the agent was given, and what lies in its workspace, where that was asked for or a repository was cloned
    into it. Of one name the project's counts, then the one that was given. Blocks for the length of a few small files,
    once a conversation."""
    with account.acting():
        return _skills_found(record)


def _skills_found(record: ConversationRecord) -> list[Skill]:
    context = record.agent.agent_context
    given = [skill for one in (context.skills if context is not None else []) if (skill := skill_of(one)) is not None]
    own = user_skills(account.home()) if context is not None and context.load_user_skills else []
    project: list[Skill] = []
    root = Path(record.workspace.working_dir)
    if record.origin is not None:
        name = (record.origin.repository or "").rstrip("/").rpartition("/")[2].removesuffix(".git")
        project = project_skills(root / name if name else root)
    elif context is not None and context.load_project_skills:
        project = project_skills(root)
    unwanted = context.disabled_skills if context is not None else []
    found = {skill.name: skill for skill in (*own, *given, *project)}
    return [skill for name, skill in found.items() if name not in unwanted]


def record_of(conversation_id: UUID, request: StartRequest, origin: Origin | None) -> ConversationRecord:
    return ConversationRecord(
        id=conversation_id,
        workspace=request.workspace,
        agent=request.agent,
        max_iterations=request.max_iterations,
        stuck_detection=request.stuck_detection,
        stuck_thresholds=request.stuck_detection_thresholds,
        max_budget_per_run=request.max_budget_per_run,
        confirmation_policy=request.confirmation_policy.model_dump(),
        hook_config=request.hook_config,
        security_analyzer=request.security_analyzer.model_dump() if request.security_analyzer is not None else None,
        secrets=dict(request.secrets),
        tool_module_qualnames={**modules_of(request.agent), **request.tool_module_qualnames},
        tags=request.tags,
        title=request.title,
        autotitle=request.autotitle,
        title_llm_profile=request.title_llm_profile,
        observability=request.observability,
        launched_agent_profile=request.launched_agent_profile,
        client_tools=[spec.model_dump(exclude_none=True) for spec in request.client_tools],
        parent_conversation_id=request.parent_conversation_id,
        origin=origin,
    )
