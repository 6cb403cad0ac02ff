"""The events of a conversation, as closed records of the wire contract (section 5).

Made by the conversation and the agent, kept by `log`, sent by `feed`. A field more or an unknown kind makes the public
client lose the event, so nothing is ever added here that the contract does not name. `compact` is the form of search
answers, of the log and of socket frames (nulls left out); `complete` that of a single event (nulls present).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter

from runtime.events.actions import Action, Observation
from runtime.events.content import AnyThinkingBlock, Closed, Message, TextContent, ToolCall

Source = Literal["agent", "user", "environment", "hook"]
Risk = Literal["UNKNOWN", "LOW", "MEDIUM", "HIGH"]
HookPoint = Literal["PreToolUse", "PostToolUse", "UserPromptSubmit", "SessionStart", "SessionEnd", "Stop"]


class EventBase(Closed):
    """`id` and `timestamp` (naive UTC, microseconds) are given by the conversation, `parent_id` by its event tree."""

    id: str
    timestamp: str
    source: Source
    parent_id: str | None = None


class ToolAnnotations(Closed):
    title: str | None = None
    readOnlyHint: bool = False
    destructiveHint: bool = True
    idempotentHint: bool = False
    openWorldHint: bool = True


class ToolDescription(Closed):
    """How a tool is announced in SystemPromptEvent; `kind` is the client's class name for it."""

    description: str
    action_type: str
    observation_type: str
    annotations: ToolAnnotations
    meta: dict[str, Any] | None = None
    kind: str
    title: str


class ClientToolDescription(ToolDescription):
    """A tool that the client carries out."""

    client_tool_name: str
    input_schema: dict[str, Any]


class MCPToolDescription(ToolDescription):
    """A tool of an MCP server, with the server's own words for it."""

    mcp_tool: dict[str, Any]


class SystemPromptEvent(EventBase):
    source: Source = "agent"
    system_prompt: TextContent
    tools: list[ClientToolDescription | MCPToolDescription | ToolDescription]
    dynamic_context: TextContent | None = None
    kind: Literal["SystemPromptEvent"] = "SystemPromptEvent"


class MessageEvent(EventBase):
    llm_message: Message
    llm_response_id: str | None = None
    activated_skills: list[str] = Field(default_factory=list)
    extended_content: list[TextContent] = Field(default_factory=list)
    sender: str | None = None
    critic_result: None = None
    kind: Literal["MessageEvent"] = "MessageEvent"


class ActionEvent(EventBase):
    """A tool call; `action` is absent when the tool or its arguments were not valid."""

    source: Source = "agent"
    thought: list[TextContent] = Field(default_factory=list)
    reasoning_content: str | None = None
    thinking_blocks: list[AnyThinkingBlock] = Field(default_factory=list)
    responses_reasoning_item: dict[str, Any] | None = None
    action: Action | None = None
    tool_name: str
    tool_call_id: str
    tool_call: ToolCall
    llm_response_id: str
    security_risk: Risk = "UNKNOWN"
    critic_result: None = None
    summary: str | None = None
    kind: Literal["ActionEvent"] = "ActionEvent"


class ObservationEvent(EventBase):
    source: Source = "environment"
    tool_name: str
    tool_call_id: str
    observation: Observation
    action_id: str
    extended_content: list[TextContent] = Field(default_factory=list)
    kind: Literal["ObservationEvent"] = "ObservationEvent"


class ErrorClassification(Closed):
    kind: Literal["auth", "quota", "rate_limit", "config", "transient", "agent_action", "internal", "unknown"]
    retryable: bool
    user_action: Literal["none", "retry", "settings"] = "none"
    error_id: str | None = None


class AgentErrorEvent(EventBase):
    source: Source = "agent"
    tool_name: str
    tool_call_id: str
    error: str
    classification: ErrorClassification | None = None
    kind: Literal["AgentErrorEvent"] = "AgentErrorEvent"


class ConversationErrorEvent(EventBase):
    source: Source = "environment"
    code: str
    detail: str
    classification: ErrorClassification | None = None
    kind: Literal["ConversationErrorEvent"] = "ConversationErrorEvent"


class ConversationStateUpdateEvent(EventBase):
    source: Source = "environment"
    key: str
    value: Any = None
    kind: Literal["ConversationStateUpdateEvent"] = "ConversationStateUpdateEvent"


class PauseEvent(EventBase):
    source: Source = "user"
    kind: Literal["PauseEvent"] = "PauseEvent"


class InterruptEvent(EventBase):
    source: Source = "user"
    kind: Literal["InterruptEvent"] = "InterruptEvent"


class UserRejectObservation(EventBase):
    """A pending act that was refused: by the user, or by a hook."""

    source: Source = "environment"
    tool_name: str
    tool_call_id: str
    rejection_reason: str = "User rejected the action."
    rejection_source: Literal["user", "hook"] = "user"
    action_id: str
    kind: Literal["UserRejectObservation"] = "UserRejectObservation"


class CondensationRequest(EventBase):
    source: Source = "environment"
    kind: Literal["CondensationRequest"] = "CondensationRequest"


class Condensation(EventBase):
    """From here on the model sees `summary` at `summary_offset` instead of the forgotten events."""

    source: Source = "environment"
    forgotten_event_ids: list[str] = Field(default_factory=list)
    summary: str | None = None
    summary_offset: int | None = Field(default=None, ge=0)
    llm_response_id: str
    kind: Literal["Condensation"] = "Condensation"


class HookExecutionEvent(EventBase):
    source: Source = "hook"
    hook_event_type: HookPoint
    hook_command: str
    tool_name: str | None = None
    success: bool
    blocked: bool = False
    exit_code: int
    stdout: str = ""
    stderr: str = ""
    reason: str | None = None
    additional_context: str | None = None
    error: str | None = None
    action_id: str | None = None
    message_id: str | None = None
    hook_input: dict[str, Any] | None = None
    kind: Literal["HookExecutionEvent"] = "HookExecutionEvent"


class LLMCompletionLogEvent(EventBase):
    """One call of a model as it was made; only when the model's settings ask for it."""

    source: Source = "environment"
    filename: str
    log_data: str
    model_name: str = "unknown"
    usage_id: str = "default"
    kind: Literal["LLMCompletionLogEvent"] = "LLMCompletionLogEvent"


class StreamingDeltaEvent(EventBase):
    """A piece of the answer while it is being written; sent live, never stored."""

    source: Source = "agent"
    content: str | None = None
    reasoning_content: str | None = None
    kind: Literal["StreamingDeltaEvent"] = "StreamingDeltaEvent"


class ServerErrorEvent(EventBase):
    """Answer to a bad frame on the socket; sent live, never stored (an SDK-only client cannot parse it)."""

    source: Source = "environment"
    code: str
    detail: str
    kind: Literal["ServerErrorEvent"] = "ServerErrorEvent"


StoredEvent: TypeAlias = (
    SystemPromptEvent
    | MessageEvent
    | ActionEvent
    | ObservationEvent
    | AgentErrorEvent
    | ConversationErrorEvent
    | ConversationStateUpdateEvent
    | PauseEvent
    | InterruptEvent
    | UserRejectObservation
    | CondensationRequest
    | Condensation
    | HookExecutionEvent
    | LLMCompletionLogEvent
)
Event: TypeAlias = StoredEvent | StreamingDeltaEvent | ServerErrorEvent

#: Order is part of the index file: append only.
STORED_KINDS: tuple[str, ...] = (
    "SystemPromptEvent",
    "MessageEvent",
    "ActionEvent",
    "ObservationEvent",
    "AgentErrorEvent",
    "ConversationErrorEvent",
    "ConversationStateUpdateEvent",
    "PauseEvent",
    "InterruptEvent",
    "UserRejectObservation",
    "CondensationRequest",
    "Condensation",
    "HookExecutionEvent",
    "LLMCompletionLogEvent",
)
SOURCES: tuple[Source, ...] = ("agent", "user", "environment", "hook")

_STORED: TypeAdapter[StoredEvent] = TypeAdapter(
    Annotated[StoredEvent, Field(discriminator="kind")], config=ConfigDict(defer_build=True)
)


def build() -> None:
    """Build now what is built when it is first used: every kind of event, and what reads one from a log. Idempotent."""
    for kind in _kinds(Closed):
        kind.model_rebuild()
    _STORED.rebuild()


def _kinds(base: type[Closed]) -> Iterator[type[Closed]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


def compact(event: Event) -> bytes:
    """One line of JSON without null fields. Nulls inside a state update's value stay: they are data."""
    return event.model_dump_json(exclude_none=True).encode()


def complete(event: Event) -> dict[str, Any]:
    """All fields, absent ones as null."""
    return event.model_dump(mode="json")


def parse(line: bytes) -> StoredEvent:
    """The stored event of one log line. Raises pydantic.ValidationError for anything else."""
    return _STORED.validate_json(line)


def parse_object(line: bytes) -> dict[str, Any]:
    """The log line as a plain object, without building models."""
    loaded = json.loads(line)
    if not isinstance(loaded, dict):
        raise ValueError("an event is a JSON object")
    return loaded
