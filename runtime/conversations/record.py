"""What is kept of a conversation beside its events, and how it is shown.

`ConversationRecord` is one file in the conversation's folder, secrets sealed. `shown` is ConversationInfo of the wire
(contract 4.3), `full_state` the value of the state frame. Knows nothing of runs or sockets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from runtime.agent.stats import Stats
from runtime.agent.stuck import StuckThresholds
from runtime.conversations.availability import OWNED_ELSEWHERE, of_directory
from runtime.conversations.definition import AgentDefinition
from runtime.conversations.goal import Goal
from runtime.conversations.hooks import HookConfig
from runtime.conversations.observability import Observability
from runtime.conversations.status import Status
from runtime.events.clock import utc_now, zulu
from runtime.machine.worktrees import Worktree
from runtime.secrets.sources import LookupSecret, SecretSource, StaticSecret
from runtime.store.cipher import Cipher
from runtime.store.exposure import Exposure, render


class WorkspaceRecord(BaseModel):
    model_config = ConfigDict(extra="ignore")

    working_dir: str = Field(min_length=1)
    kind: Literal["LocalWorkspace"] = "LocalWorkspace"


class Origin(BaseModel):
    """What the older conversation body said; its conversations have every stored secret and provider token."""

    model_config = ConfigDict(extra="ignore")

    repository: str | None = None
    branch: str | None = None
    git_provider: str | None = None


class ConversationRecord(BaseModel):
    """Changed by its conversation only; written whole."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, protected_namespaces=())
    omitted_when_null: ClassVar[frozenset[str]] = frozenset()

    id: UUID
    workspace: WorkspaceRecord
    worktree: Worktree | None = None  #: it was made for this conversation, and goes with the last that works in it
    agent: AgentDefinition
    max_iterations: int = Field(default=500, ge=1)
    stuck_detection: bool = True
    stuck_thresholds: StuckThresholds = Field(default_factory=StuckThresholds)
    max_budget_per_run: float | None = None
    execution_status: Status = Status.IDLE
    confirmation_policy: dict[str, Any] = Field(default_factory=lambda: {"kind": "NeverConfirm"})
    security_analyzer: dict[str, Any] | None = None
    hook_config: HookConfig | None = None
    #: by event id, why a hook kept it from being done or answered
    blocked_actions: dict[str, str] = Field(default_factory=dict)
    blocked_messages: dict[str, str] = Field(default_factory=dict)
    activated_skills: list[str] = Field(default_factory=list)
    session_begun: bool = False  #: the hooks were told
    secrets: dict[str, SecretSource] = Field(default_factory=dict)
    tool_module_qualnames: dict[str, str] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    title: str | None = None
    autotitle: bool = True  #: the first message makes a title where there is none
    title_llm_profile: str | None = None  #: whose model makes it; the first line where there is none
    observability: Observability = Field(default_factory=Observability)  #: of its traces
    launched_agent_profile: dict[str, Any] | None = None  #: which one it was started with, as it was then
    stats: Stats = Field(default_factory=Stats)
    last_user_message_id: str | None = None
    leaf_event_id: str | None = None
    final_response: str = ""
    goal: Goal | None = None  #: the last one, whatever came of it
    origin: Origin | None = None
    parent_conversation_id: UUID | None = None
    sub_conversation_ids: list[UUID] = Field(default_factory=list)
    forked_from_conversation_id: UUID | None = None
    forked_from_event_id: str | None = None
    #: whether somebody went back to an earlier event: then not every event of the log is on the way to the last one
    branched: bool = False
    own_llm: bool = False  #: its model was chosen for it, whatever the stored settings say
    client_tools: list[dict[str, Any]] = Field(default_factory=list)
    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now)
    #: how far the log went when this was written; what is behind it the record does not know yet
    log_events: int = 0
    log_bytes: int = 0
    _version: int = PrivateAttr(default=0)
    _shown_json: tuple[int, str, bytes] | None = PrivateAttr(default=None)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if not name.startswith("_"):
            self.touch()

    @property
    def version(self) -> int:
        """Another number after every change, so that what was made of the record can be kept."""
        return self._version

    def touch(self) -> None:
        """Whoever changes something inside of a field calls this; to give a field another value is noticed."""
        self._version += 1

    def shown_json(self, folder: Path, *, elsewhere: bool = False) -> bytes:
        """`shown` without skills as JSON, made anew only after a change."""
        status = runtime_info(self, elsewhere=elsewhere)["runtime_status"]
        if self._shown_json is None or self._shown_json[:2] != (self._version, status):
            whole = shown(self, folder, include_skills=False, elsewhere=elsewhere)
            text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
            self._shown_json = (self._version, status, text.encode())
        return self._shown_json[2]


def hooks_shown(record: ConversationRecord) -> dict[str, Any] | None:
    """The hooks as clients name their fields."""
    return None if record.hook_config is None else record.hook_config.model_dump(mode="json", by_alias=True)


def runtime_info(record: ConversationRecord, *, elsewhere: bool) -> Mapping[str, Any]:
    """How it is with the conversation's runtime now; `elsewhere`: another server owns it."""
    return OWNED_ELSEWHERE if elsewhere else of_directory(Path(record.workspace.working_dir))


def shown(record: ConversationRecord, folder: Path, *, include_skills: bool, elsewhere: bool = False) -> dict[str, Any]:
    """ConversationInfo. No secret in any form: those fields are null."""
    info = runtime_info(record, elsewhere=elsewhere)
    agent = render(record.agent, Exposure.WITHHELD, _NO_CIPHER)
    if not include_skills and agent["agent_context"] is not None:
        agent["agent_context"]["skills"] = []
    return {
        "id": str(record.id),
        "workspace": record.workspace.model_dump(),
        "persistence_dir": str(folder),
        "max_iterations": record.max_iterations,
        "stuck_detection": record.stuck_detection,
        "execution_status": record.execution_status.value,
        "confirmation_policy": record.confirmation_policy,
        "security_analyzer": record.security_analyzer,
        "activated_knowledge_skills": record.activated_skills,
        "invoked_skills": [],
        "blocked_actions": record.blocked_actions,
        "blocked_messages": record.blocked_messages,
        "last_user_message_id": record.last_user_message_id,
        "leaf_event_id": record.leaf_event_id,
        "stats": record.stats.model_dump(),
        "secret_registry": {"secret_sources": {name: _source(found) for name, found in record.secrets.items()}},
        "agent_state": {},
        "hook_config": hooks_shown(record),
        "title": record.title,
        "metrics": None,
        "created_at": zulu(record.created_at),
        "updated_at": zulu(record.updated_at),
        "forked_from_conversation_id": _text(record.forked_from_conversation_id),
        "forked_from_event_id": record.forked_from_event_id,
        "parent_conversation_id": _text(record.parent_conversation_id),
        "sub_conversation_ids": [str(child) for child in record.sub_conversation_ids],
        "tags": record.tags,
        "current_model_id": None,
        "available_models": [],
        "supports_runtime_model_switch": False,
        "launched_agent_profile": record.launched_agent_profile,
        "agent": agent,
        "client_tools": record.client_tools,
        "tool_module_qualnames": record.tool_module_qualnames,
        "runtime_info": dict(info),
    }


def full_state(record: ConversationRecord, folder: Path) -> dict[str, Any]:
    """The value of the state frame: nulls left out, secrets as asterisks."""
    state: dict[str, Any] = {
        "id": str(record.id),
        "agent": render(record.agent, Exposure.REDACTED, _NO_CIPHER),
        "workspace": record.workspace.model_dump(),
        "persistence_dir": str(folder),
        "max_iterations": record.max_iterations,
        "stuck_detection": record.stuck_detection,
        "execution_status": record.execution_status.value,
        "confirmation_policy": record.confirmation_policy,
        "security_analyzer": record.security_analyzer,
        "activated_knowledge_skills": record.activated_skills,
        "activated_path_rules": [],
        "invoked_skills": [],
        "blocked_actions": record.blocked_actions,
        "blocked_messages": record.blocked_messages,
        "last_user_message_id": record.last_user_message_id,
        "leaf_event_id": record.leaf_event_id,
        "head_is_empty": record.branched and record.leaf_event_id is None,
        "stats": record.stats.model_dump(),
        "secret_registry": {"secret_sources": {name: _source(found) for name, found in record.secrets.items()}},
        "tags": record.tags,
        "agent_state": {},
        "hook_config": hooks_shown(record),
    }
    if state["agent"]["agent_context"] is not None:
        state["agent"]["agent_context"]["skills"] = []  # they can be larger than a frame may be
    return {key: _without_nulls(value) for key, value in state.items() if value is not None}


def _text(id: UUID | None) -> str | None:
    return None if id is None else str(id)


def _source(source: StaticSecret | LookupSecret) -> dict[str, Any]:
    """Values and headers never leave; url and description do."""
    if isinstance(source, StaticSecret):
        return {"description": source.description, "value": None, "kind": source.kind}
    return {"description": source.description, "url": source.url, "headers": {}, "kind": source.kind}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


#: neither exposure that is used here needs a key
_NO_CIPHER = Cipher(None)
