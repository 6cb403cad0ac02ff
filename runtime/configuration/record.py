"""The settings record, as the contract's clients see it and as it is stored.

Names and defaults are the wire's; every secret field is a SecretStr. The settings routes, the store and the
conversations use these models; what a field does is up to the agent. Unknown fields are dropped, because newer
clients send some.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, computed_field, model_validator

from runtime.store.exposure import Exposure, OptionalSecret, SecretMap, is_stored, render

__all__ = [
    "AgentContext",
    "AgentSettings",
    "CondenserSettings",
    "ContextSecret",
    "ConversationSettings",
    "Exposure",
    "LlmSettings",
    "McpAuth",
    "McpServer",
    "OlderSettings",
    "SettingsRecord",
    "ToolChoice",
    "VerificationSettings",
    "render",
]

#: numbers that no clock, no sum and no other program can take are refused where they are given
_MOST = 1_000_000_000
NotNegative = Annotated[float, Field(ge=0, le=_MOST)]
Count = Annotated[int, Field(ge=0, le=_MOST)]
Positive = Annotated[int, Field(ge=1, le=_MOST)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


def _address(value: str | None, info: ValidationInfo) -> str | None:
    if value is None or is_stored(info) or not value.strip():
        return value
    try:
        parts = urlsplit(value.strip())
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("must be an address such as https://host/v1")
    return value


#: where a model is asked; with a wrong one every call would fail, and say so only then
Address = Annotated[str | None, AfterValidator(_address)]


class Record(BaseModel):
    """Base of every settings model: drops unknown fields, and no error ever prints what was sent."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, protected_namespaces=())
    #: fields that are left out of an answer when they are null; all others answer null
    omitted_when_null: ClassVar[frozenset[str]] = frozenset()


class LlmSettings(Record):
    """One model and how to call it. Times are seconds, costs are US dollars a token."""

    model: Annotated[str, Field(min_length=1)] = "gpt-5.6"
    api_key: OptionalSecret = None
    provider_connection_id: str | None = None
    auth_type: Literal["api_key", "subscription"] = "api_key"
    subscription_vendor: Literal["openai"] | None = None
    base_url: Address = None
    api_version: str | None = None
    aws_access_key_id: OptionalSecret = None
    aws_secret_access_key: OptionalSecret = None
    aws_session_token: OptionalSecret = None
    aws_region_name: str | None = None
    aws_profile_name: str | None = None
    aws_role_name: str | None = None
    aws_session_name: str | None = None
    aws_bedrock_runtime_endpoint: str | None = None
    openrouter_site_url: str = "https://docs.all-hands.dev/"
    openrouter_app_name: str = "OpenHands"
    num_retries: Count = 5
    retry_multiplier: NotNegative = 8.0
    retry_min_wait: Count = 8
    retry_max_wait: Count = 64
    timeout: Count | None = 300
    stream_idle_timeout: NotNegative | None = 300.0
    max_message_chars: Positive = 30000
    temperature: NotNegative | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: NotNegative | None = None
    max_input_tokens: Positive | None = None
    max_output_tokens: Positive | None = None
    model_canonical_name: str | None = None
    api_mode: Literal["auto", "chat", "responses"] = "auto"
    capability_overrides: dict[str, bool | str] = {}
    #: secret values, although the wire calls them plain text: an Authorization header is what people put here
    extra_headers: SecretMap | None = None
    input_cost_per_token: NotNegative | None = None
    output_cost_per_token: NotNegative | None = None
    ollama_base_url: Address = None
    stream: bool = False
    drop_params: bool = True
    disable_vision: bool | None = None
    disable_stop_word: bool | None = False
    caching_prompt: bool = True
    log_completions: bool = False
    log_completions_folder: str = "logs/completions"
    custom_tokenizer: str | None = None
    native_tool_calling: bool = True
    force_string_serializer: bool | None = None
    inline_image_urls: bool | None = None
    reasoning_effort: Literal["low", "medium", "high", "xhigh", "none"] | None = "high"
    reasoning_summary: Literal["auto", "concise", "detailed"] | None = None
    enable_encrypted_reasoning: bool = True
    prompt_cache_retention: str | None = "24h"
    extended_thinking_budget: int | None = 200000
    seed: int | None = None
    usage_id: str = "default"
    litellm_extra_body: dict[str, Any] = {}

    @computed_field  # type: ignore[prop-decorator]  # mypy cannot see through a decorated property
    @property
    def is_subscription(self) -> bool:
        return self.auth_type == "subscription"


class McpAuth(Record):
    """How to sign in to an MCP server; which fields count depends on the strategy."""

    omitted_when_null = frozenset({"value", "header_name", "username", "password", "headers"})

    strategy: Literal["none", "api_key", "bearer", "basic", "header"]
    value: OptionalSecret = None
    header_name: str | None = None
    username: str | None = None
    password: OptionalSecret = None
    headers: SecretMap | None = None


class McpServer(Record):
    """One MCP server: a url to call or a command to start. One that is not enabled need have neither."""

    omitted_when_null = frozenset(
        {"url", "transport", "command", "args", "env", "cwd", "description", "icon", "timeout", "sse_read_timeout"}
        | {"keep_alive", "headers", "auth"}
    )

    url: Annotated[str, Field(min_length=1)] | None = None
    transport: Literal["stdio", "http", "streamable-http", "sse"] | None = None
    command: Annotated[str, Field(min_length=1)] | None = None
    args: list[str] | None = None
    env: SecretMap | None = None
    cwd: str | None = None
    description: str | None = None
    icon: str | None = None
    timeout: float | None = None
    sse_read_timeout: float | None = None
    keep_alive: bool | None = None
    headers: SecretMap | None = None
    auth: McpAuth | None = None
    enabled: bool = True

    @model_validator(mode="after")
    def _can_be_had(self, info: ValidationInfo) -> Self:
        if self.enabled and self.url is None and self.command is None and not is_stored(info):
            raise ValueError("a server needs a `url` to call or a `command` to start")
        return self


class ToolChoice(Record):
    """A tool that the agent gets, by name."""

    name: str
    params: dict[str, Any] = {}


class ContextSecret(Record):
    """A secret given by its source instead of its value (contract 4.2). Headers carry keys, so they are secret too."""

    omitted_when_null = frozenset({"url", "headers"})

    kind: Literal["StaticSecret", "LookupSecret"]
    value: OptionalSecret = None
    url: str | None = None
    headers: SecretMap | None = None
    description: str | None = None


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class AgentContext(Record):
    """What the agent is told beside the conversation itself."""

    omitted_when_null = frozenset({"memory_context"})

    skills: list[dict[str, Any]] = []
    system_message_suffix: str | None = None
    user_message_suffix: str | None = None
    load_user_skills: bool = False
    load_public_skills: bool = False
    marketplace_path: str | None = "marketplaces/default.json"
    registered_marketplaces: list[dict[str, Any]] = []
    load_project_skills: bool = False
    load_memory: bool = False
    memory_context: str | None = None
    disabled_skills: list[str] = []
    secrets: dict[str, OptionalSecret | ContextSecret] | None = None
    current_datetime: str | None = Field(default_factory=_now)


class CondenserSettings(Record):
    """When and how a long conversation is shortened for the model."""

    condenser_kind: Literal["llm_summarizing", "no_op"] = "llm_summarizing"
    enabled: bool = True
    max_size: Annotated[int, Field(ge=20)] = 240
    max_tokens: Positive | None = None
    keep_first: Count = 2
    minimum_progress: Fraction = 0.1
    hard_context_reset_max_retries: Positive = 5
    hard_context_reset_context_scaling: Fraction = 0.8


class VerificationSettings(Record):
    """Whether a second model judges the agent's work."""

    critic_enabled: bool = False
    critic_mode: Literal["finish_and_message", "all_actions"] = "finish_and_message"
    enable_iterative_refinement: bool = False
    critic_threshold: Annotated[float, Field(ge=0, le=1)] = 0.6
    max_refinement_iterations: Positive = 3
    critic_server_url: str | None = None
    critic_model_name: str | None = None
    critic_api_key: OptionalSecret = None


class AgentSettings(Record):
    """Which agent runs, with which model, tools and context."""

    schema_version: int = 9
    agent_kind: Literal["openhands", "llm"] = "openhands"
    agent: str = "CodeActAgent"
    llm: LlmSettings = Field(default_factory=LlmSettings)
    tools: list[ToolChoice] | None = None
    enable_classify_and_switch_llm_tool: bool = False
    active_meta_profile: str | None = None
    meta_profile: dict[str, Any] | None = None
    meta_profile_llms: dict[str, LlmSettings] = {}
    tool_concurrency_limit: Positive = 1
    mcp_config: dict[str, McpServer] = {}
    persona: str | None = None
    agent_context: AgentContext = Field(default_factory=AgentContext)
    condenser: CondenserSettings = Field(default_factory=CondenserSettings)
    verification: VerificationSettings = Field(default_factory=VerificationSettings)


class ConversationSettings(Record):
    """Defaults of a new conversation. An analyzer whose name nobody knows means none."""

    schema_version: int = 1
    max_iterations: Positive = 500
    confirmation_mode: bool = False
    security_analyzer: str | None = "llm"
    default_runtime: str = "local"
    worktree_base: Literal["default_branch", "head", "ref"] = "default_branch"
    worktree_base_ref: str | None = None
    worktree_branch_prefix: str = "openhands/"
    container_memory: str | None = None
    container_cpus: Annotated[float, Field(gt=0)] | None = None
    container_browser: bool = True


class OlderSettings(Record):
    """Fields of the older flat record that have no place in the newer one, and what its last POST asked for.

    The model, its key and its base url are not here: they live in `agent_settings.llm` alone.
    """

    language: str | None = None
    agent: str | None = None
    max_iterations: Positive | None = None
    security_analyzer: str | None = None
    confirmation_mode: bool | None = None
    remote_runtime_resource_factor: int | None = None
    enable_default_condenser: bool = True
    enable_sound_notifications: bool = False
    enable_proactive_conversation_starters: bool = True
    enable_solvability_analysis: bool = True
    user_consents_to_analytics: bool | None = None
    sandbox_base_container_image: str | None = None
    sandbox_runtime_container_image: str | None = None
    #: the JSON text of the older MCP record; sealed whole, because keys and environments are anywhere inside it
    mcp_config: OptionalSecret = None
    search_api_key: OptionalSecret = None
    sandbox_api_key: OptionalSecret = None
    max_budget_per_task: NotNegative | None = None
    condenser_max_size: int | None = None
    email: str | None = None
    email_verified: bool | None = None
    git_user_name: str | None = None
    git_user_email: str | None = None
    v1_enabled: bool | None = None


class SettingsRecord(Record):
    """All that is stored for this runtime's user."""

    agent_settings: AgentSettings = Field(default_factory=AgentSettings)
    conversation_settings: ConversationSettings = Field(default_factory=ConversationSettings)
    active_profile: str | None = None
    active_agent_profile_id: str | None = None
    active_meta_profile: str | None = None
    misc_settings: dict[str, Any] = {}
    #: what POST /api/settings stored; null until the first one
    older: OlderSettings | None = None
