"""How a conversation is asked for, in the newer form (contract 4.1); validated here, carried out by the service.

Used by the route. Unknown keys are ignored. What this runtime cannot do is refused with words instead of being
silently left out, except for fields that only observe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from runtime.agent.stuck import StuckThresholds
from runtime.agent.tools.client import ClientToolSpec, checked_tools
from runtime.configuration.record import AgentSettings
from runtime.conversations.additions import LaunchAdditions
from runtime.conversations.definition import AgentDefinition, from_settings
from runtime.conversations.hooks import HookConfig
from runtime.conversations.observability import (
    DEFAULT_SPAN_NAME,
    Observability,
    ParentSpan,
    SpanName,
    TraceMetadata,
    TraceTags,
)
from runtime.conversations.policies import ConfirmationPolicy, NeverConfirm, SecurityAnalyzer
from runtime.conversations.record import WorkspaceRecord
from runtime.events.content import Content, Message
from runtime.machine.worktrees import WorktreeOptions
from runtime.secrets.names import check_name
from runtime.secrets.sources import SecretSource

_TAG = re.compile(r"[a-z0-9]+")
_TAG_CHARACTERS = 256
#: null in these is the same as nothing: clients send it
_NULL_IS_DEFAULT = ("tags", "observability_span_name", "observability_tags", "observability_metadata")


def checked_tags(tags: dict[str, str]) -> dict[str, str]:
    """The tags themselves. Raises ValueError saying the rule."""
    for key, text in tags.items():
        if not _TAG.fullmatch(key) or len(text) > _TAG_CHARACTERS:
            raise ValueError(f"tag keys are lower-case letters and digits, values up to {_TAG_CHARACTERS} characters")
    return tags


def as_source(value: object) -> object:
    """A secret may be given as its value, as {"value": ...}, or as a source with its kind."""
    if isinstance(value, str):
        return {"kind": "StaticSecret", "value": value}
    if isinstance(value, Mapping) and "kind" not in value:
        return {"kind": "LookupSecret" if "url" in value else "StaticSecret", **value}
    return value


GivenSource = Annotated[SecretSource, BeforeValidator(as_source)]


class GivenMessage(BaseModel):
    """A message from outside; unknown top-level keys are ignored, unknown keys of a content item are not."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    role: Literal["user", "system", "assistant", "tool"] = "user"
    content: list[Content] = Field(default_factory=list)
    run: bool = False

    @field_validator("role")
    @classmethod
    def _from_the_user(cls, role: str) -> str:
        if role != "user":
            raise ValueError("only messages with role 'user' are accepted")
        return role

    @property
    def message(self) -> Message:
        return Message(role="user", content=self.content)


class ContainerOptions(BaseModel):
    """Of a server that makes a container a conversation; this one checks the form and has no use for it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    memory: str | None = Field(default=None, pattern=r"^\d+(\.\d+)? ?[kKmMgGtTpP]?[iI]?[bB]?$")
    cpus: float | None = Field(default=None, ge=0.01, allow_inf_nan=False)
    browser: bool = True


class StartRequest(BaseModel):
    """Validate with `context=Opening(cipher)` when `secrets_encrypted` is set, so that tokens are opened."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    workspace: WorkspaceRecord
    agent: AgentDefinition
    conversation_id: UUID | None = None
    initial_message: GivenMessage | None = None
    max_iterations: int = Field(default=500, ge=1)
    stuck_detection: bool = True
    stuck_detection_thresholds: StuckThresholds = Field(default_factory=StuckThresholds)
    max_budget_per_run: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    confirmation_policy: ConfirmationPolicy = Field(default_factory=lambda: NeverConfirm(kind="NeverConfirm"))
    security_analyzer: SecurityAnalyzer | None = None
    hook_config: HookConfig | None = None
    secrets: dict[str, GivenSource] = Field(default_factory=dict)
    tool_module_qualnames: dict[str, str] = Field(default_factory=dict)
    client_tools: Annotated[list[ClientToolSpec], AfterValidator(checked_tools)] = Field(
        default_factory=list, max_length=100
    )
    tags: dict[str, str] = Field(default_factory=dict)
    title: str | None = Field(default=None, min_length=1, max_length=500)
    worktree: bool = False
    worktree_options: WorktreeOptions | None = None
    parent_conversation_id: UUID | None = None
    conversation_runtime: Literal["local"] | None = None
    container: ContainerOptions | None = None
    autotitle: bool = True
    title_llm_profile: str | None = Field(default=None, min_length=1, max_length=128)
    prompt: str | None = Field(default=None, max_length=2000)
    agent_launch_additions: LaunchAdditions | None = None
    observability_span_name: SpanName = DEFAULT_SPAN_NAME
    observability_tags: TraceTags = Field(default_factory=list)
    observability_metadata: TraceMetadata = Field(default_factory=dict)
    observability_parent_span_context: ParentSpan | None = None
    launched_agent_profile: dict[str, Any] | None = Field(default=None, exclude=True)

    @property
    def observability(self) -> Observability:
        return Observability(
            span_name=self.observability_span_name,
            tags=self.observability_tags,
            metadata=self.observability_metadata,
            parent_span_context=self.observability_parent_span_context,
        )

    @model_validator(mode="before")
    @classmethod
    def _one_agent(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            return value
        given = dict(value)
        given.pop("launched_agent_profile", None)  # ours to say
        for name in _NULL_IS_DEFAULT:
            if given.get(name, "") is None:
                del given[name]
        if given.get("plugins"):
            raise ValueError("plugins are not available in this runtime")
        if given.get("agent") is None:
            given["agent"] = _built(given, info)
        elif isinstance(given["agent"], Mapping):
            # An agent with a model and no kind counts as the ordinary one.
            given["agent"] = {"kind": "Agent", **given["agent"]}
        return given

    @model_validator(mode="after")
    def _with_additions(self) -> StartRequest:
        if self.agent_launch_additions is not None:
            self.agent = self.agent_launch_additions.applied(self.agent)
            self.agent_launch_additions = None  # once is enough, however often this is validated
        return self

    @field_validator("secrets")
    @classmethod
    def _names(cls, secrets: dict[str, Any]) -> dict[str, Any]:
        for name in secrets:
            check_name(name)
        return secrets

    @field_validator("tags")
    @classmethod
    def _tags(cls, tags: dict[str, str]) -> dict[str, str]:
        return checked_tags(tags)


def _built(given: Mapping[str, Any], info: ValidationInfo) -> AgentDefinition:
    settings = given.get("agent_settings")
    if settings is None:
        raise ValueError("One of `agent`, `agent_settings`, or `agent_profile_id` must be provided")
    return from_settings(AgentSettings.model_validate(settings, context=info.context))
