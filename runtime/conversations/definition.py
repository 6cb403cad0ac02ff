"""The agent of a conversation as its creator described it: model, tools, context.

A record of the wire (contract 4.1): what the runtime does not act on is kept and given back, because a client that
attaches later parses it. Secrets in every part of it are sealed at rest and never answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo

from runtime.agent.condenser import check_condenser
from runtime.configuration.record import (
    AgentContext,
    AgentSettings,
    CondenserSettings,
    LlmSettings,
    McpServer,
    ToolChoice,
)
from runtime.store.exposure import Opening, is_blank_or_mask, is_stored

DEFAULT_TOOLS = ("terminal", "file_editor", "task_tracker")
#: the client's modules of the tools that we have; a client imports them to parse stored events
TOOL_MODULES: Mapping[str, str] = {
    "terminal": "openhands.tools.terminal.definition",
    "file_editor": "openhands.tools.file_editor.definition",
    "task_tracker": "openhands.tools.task_tracker.definition",
}
_SECRET_FIELDS = ("api_key", "secret", "token", "password", "authorization")
_NOT_SECRET = ("max_tokens", "max_input_tokens", "max_output_tokens", "input_cost_per_token", "output_cost_per_token")


def _hide(value: Any, info: ValidationInfo) -> Any:
    """The tree with every string under a secret-looking name as a SecretStr, tokens opened like everywhere else."""
    if isinstance(value, Mapping):
        return {key: _hide_field(str(key), item, info) for key, item in value.items()}
    if isinstance(value, list):
        return [_hide(item, info) for item in value]
    return value


def _hide_field(name: str, value: Any, info: ValidationInfo) -> Any:
    lowered = name.lower()
    secret = any(word in lowered for word in _SECRET_FIELDS) and lowered not in _NOT_SECRET
    if not secret or not isinstance(value, str):
        return _hide(value, info)
    if is_blank_or_mask(value):
        return None
    return info.context.open(value) if isinstance(info.context, Opening) else SecretStr(value)


#: a part of the agent that is only kept and given back
Kept = Annotated[dict[str, Any], BeforeValidator(_hide)]


def _condenser(value: dict[str, Any] | None, info: ValidationInfo) -> dict[str, Any] | None:
    if value is not None and not is_stored(info):
        check_condenser(value)
    return value


class AgentDefinition(BaseModel):
    """`kind: Agent` of the wire. Unknown fields are dropped."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, protected_namespaces=())
    omitted_when_null: ClassVar[frozenset[str]] = frozenset()

    llm: LlmSettings
    tools: list[ToolChoice] = Field(default_factory=list)
    mcp_config: dict[str, McpServer] = Field(default_factory=dict)
    filter_tools_regex: str | None = None
    include_default_tools: list[str] = Field(default_factory=lambda: ["FinishTool", "ThinkTool"])
    agent_context: AgentContext | None = None
    system_prompt: str | None = None
    system_prompt_filename: str = "system_prompt.j2"
    security_policy_filename: str = "security_policy.j2"
    system_prompt_kwargs: Kept = Field(default_factory=lambda: {"llm_security_analyzer": True})
    condenser: Annotated[Kept | None, AfterValidator(_condenser)] = None
    critic: Kept | None = None
    tool_concurrency_limit: Annotated[int, Field(ge=1)] = 1
    persona: str | None = None
    kind: Literal["Agent"] = "Agent"


def condenser_of(settings: CondenserSettings, llm: LlmSettings) -> dict[str, Any] | None:
    """The condenser that these settings mean, as the wire has it; None for none."""
    if not settings.enabled or settings.condenser_kind == "no_op":
        return None
    return {
        "kind": "LLMSummarizingCondenser",
        "llm": llm.model_copy(update={"usage_id": "condenser"}).model_dump(exclude={"is_subscription"}),
        "max_size": settings.max_size,
        "max_tokens": settings.max_tokens,
        "keep_first": settings.keep_first,
    }


def from_settings(settings: AgentSettings) -> AgentDefinition:
    """The agent that these settings mean. Its usage is counted as `agent`, whatever the settings' default is."""
    chosen = settings.tools if settings.tools is not None else [ToolChoice(name=name) for name in DEFAULT_TOOLS]
    llm = settings.llm if settings.llm.usage_id != "default" else settings.llm.model_copy(update={"usage_id": "agent"})
    context = settings.agent_context
    if context.current_datetime is not None:  # settings may have been stored long ago
        context = context.model_copy(update={"current_datetime": AgentContext().current_datetime})
    return AgentDefinition(
        llm=llm,
        tools=chosen,
        mcp_config=settings.mcp_config,
        agent_context=context,
        condenser=condenser_of(settings.condenser, llm),
        tool_concurrency_limit=settings.tool_concurrency_limit,
        persona=settings.persona,
    )


def modules_of(agent: AgentDefinition) -> dict[str, str]:
    """The client's modules of the agent's tools, as far as we have them."""
    return {tool.name: TOOL_MODULES[tool.name] for tool in agent.tools if tool.name in TOOL_MODULES}
