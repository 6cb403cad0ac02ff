"""The bodies that the native API takes, parsed with unknown fields refused. What it answers: `rendering.py`."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, RootModel, StringConstraints, model_validator

from orchestrator.api import known_settings
from orchestrator.api.json_values import NO_TRUTH, check_json
from orchestrator.domain.admission import TENANT_ONLY, Policy
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.restarts import RestartPolicy
from orchestrator.domain.spending import MICROS, MOST, THRESHOLDS, Budget, WhenReached
from orchestrator.domain.tenancy import Scope

Name = Annotated[
    str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True, pattern=r"^[^\x00-\x1f]*$")
]
LabelName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$")]
LATEST = datetime(9999, 1, 1, tzinfo=UTC)  #: beyond it a moment has no form in every time zone
LabelValue = Annotated[str, StringConstraints(max_length=256)]


class Body(BaseModel):
    """A request body. A field that is not known is a mistake of the caller's, and is named."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _can_be_kept(cls, value: Any) -> Any:
        return check_json(value)


class TenantBody(Body):
    name: Name


class UserBody(Body):
    name: Name
    external_id: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None


class KeyBody(Body):
    name: Name
    scopes: list[Scope] | None = None
    user: str | None = None
    expires_at: Annotated[AwareDatetime, Field(lt=LATEST)] | None = None


class LlmBody(BaseModel):
    """The model. Known fields beyond the typed ones go to the runtime as they are."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return known_settings.only(known_settings.LLM, value)

    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    api_key: str | None = None
    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$")] | None = None
    temperature: Annotated[float, Field(ge=0, le=2), NO_TRUTH] | None = None
    timeout: Annotated[float, Field(gt=0), NO_TRUTH] | None = None
    num_retries: Annotated[int, Field(ge=0, le=20), NO_TRUTH] | None = None
    max_output_tokens: Annotated[int, Field(ge=1), NO_TRUTH] | None = None
    stream: bool | None = None


class AgentSettingsBody(BaseModel):
    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return known_settings.only(known_settings.AGENT, value)

    agent: str | None = None
    llm: LlmBody | None = None
    mcp_config: dict[str, Any] | None = None


class ConversationSettingsBody(BaseModel):
    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return known_settings.only(known_settings.CONVERSATION, value)

    max_iterations: Annotated[int, Field(ge=1, le=100_000), NO_TRUTH] | None = None
    confirmation_mode: bool | None = None
    security_analyzer: str | None = None


Seconds = Annotated[float, Field(ge=0, le=315_360_000, allow_inf_nan=False), NO_TRUTH]
Number = Annotated[int, Field(ge=0, le=1_000_000), NO_TRUTH]


class LimitsBody(Body):
    """Times, 0 for never, each below the operator's cap: unused for so long, a runtime is paused; lived or paused for
    so long, it is stopped; at rest for so long, a conversation is archived or deleted. `restart`: whether a runtime
    that died starts again by itself, within the operator's number.

    The others are a tenant's own, below the operator's: how many runtimes may run at once and how many starts a minute
    may bring (0: as many as the operator allows), and what becomes of a start that is one too many."""

    idle_pause_seconds: Seconds | None = None
    max_life_seconds: Seconds | None = None
    stop_paused_seconds: Seconds | None = None
    archive_seconds: Seconds | None = None
    delete_seconds: Seconds | None = None
    max_runtimes: Number | None = None
    max_runtimes_per_user: Number | None = None
    max_runtimes_per_key: Number | None = None
    starts_per_minute: Number | None = None
    starts_per_minute_per_user: Number | None = None
    starts_per_minute_per_key: Number | None = None
    when_full: Policy | None = None
    restart: RestartPolicy | None = None
    restart_max: Annotated[int, Field(ge=0, le=10), NO_TRUTH] | None = None
    restart_window_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False), NO_TRUTH] | None = None

    def refuse_tenants_own(self, where: str) -> None:
        """Raises `InvalidRequest` for a limit that only the tenant's own settings may have."""
        for name in sorted(self.model_fields_set & TENANT_ONLY):
            raise InvalidRequest(
                f"limits.{name} belongs to the tenant's settings, not to {where}",
                field=f"limits.{name}",
                hint="PATCH /api/v2/settings with the tenant's key",
            )


class AllowanceBody(Body):
    """What the operator allows one tenant: 0 for no limit, null for what all are allowed; what is left out stays."""

    max_runtimes: Number | None = None
    max_runtimes_per_user: Number | None = None
    max_runtimes_per_key: Number | None = None
    starts_per_minute: Number | None = None
    starts_per_minute_per_user: Number | None = None
    starts_per_minute_per_key: Number | None = None


Dollars = Annotated[float, Field(ge=0.000001, le=MOST / MICROS, allow_inf_nan=False), NO_TRUTH]
Tokens = Annotated[int, Field(ge=1, le=MOST), NO_TRUTH]
Percent = Annotated[int, Field(ge=1, le=1000), NO_TRUTH]


class BudgetBody(Body):
    """What a tenant, and each of its users, may use of models in a calendar month of UTC: US dollars, and tokens of
    prompts and answers together. Null: as much as it likes; one of the four is to be given. Webhooks are told of each
    of the `thresholds`, in percent, that is reached. At 100 percent starts are refused; `when_reached` says whether
    conversations that run are paused as well."""

    monthly_usd: Dollars | None = None
    monthly_tokens: Tokens | None = None
    monthly_usd_per_user: Dollars | None = None
    monthly_tokens_per_user: Tokens | None = None
    thresholds: Annotated[list[Percent], Field(min_length=1, max_length=10)] = Field(default=list(THRESHOLDS))
    when_reached: WhenReached = WhenReached.REFUSE_STARTS

    def budget(self) -> Budget:
        """Raises `InvalidRequest` for one that limits nothing."""
        found = Budget(
            usd=round((self.monthly_usd or 0) * MICROS),
            tokens=self.monthly_tokens or 0,
            usd_per_user=round((self.monthly_usd_per_user or 0) * MICROS),
            tokens_per_user=self.monthly_tokens_per_user or 0,
            thresholds=tuple(sorted(set(self.thresholds))),
            when_reached=self.when_reached,
        )
        if not (found.usd or found.tokens or found.usd_per_user or found.tokens_per_user):
            hint = "give monthly_usd, monthly_tokens or one of them per user, or null for no budget"
            raise InvalidRequest("the budget limits nothing", field="budget", hint=hint)
        return found


ImageName = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@-]*$")]


class TenantPatchBody(Body):
    """What is left out stays. `sizes` are those that the tenant's conversations may have, the first for those that name
    none; null, or none: as all. `images` are those that its new conversations may use, each kept with what it stands
    for now; the first is for requests that name none, unless the installation's own is among them; null: as all. A
    `budget` takes the place of the one before; null: none."""

    limits: AllowanceBody = Field(default_factory=AllowanceBody)
    sizes: Annotated[list[Annotated[int, NO_TRUTH]], Field(max_length=10)] | None = None
    images: Annotated[list[ImageName], Field(min_length=1, max_length=100)] | None = None
    budget: BudgetBody | None = None


class UpgradeBody(Body):
    """Without `image`: what a new conversation would get."""

    image: ImageName | None = None


class SettingsBody(Body):
    """A merge patch: what is absent stays, null removes."""

    agent_settings: AgentSettingsBody | None = None
    conversation_settings: ConversationSettingsBody | None = None
    limits: LimitsBody | None = None

    def change(self) -> dict[str, Any]:
        """The patch as plain data, with exactly the fields that were sent."""
        return self.model_dump(mode="json", exclude_unset=True)


class SecretBody(Body):
    value: str
    description: Annotated[str, StringConstraints(max_length=1000)] | None = None


class ProviderBody(Body):
    token: str | None = None
    host: str | None = None
    user_id: Annotated[str, StringConstraints(max_length=200)] | None = None


class ConversationBody(Body):
    id: str | None = None
    title: Name | None = None
    repository: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None
    branch: Annotated[str, StringConstraints(min_length=1, max_length=250)] | None = None
    git_provider: str | None = None
    initial_message: Annotated[str, StringConstraints(min_length=1, max_length=1_000_000)] | None = None
    settings: SettingsBody | None = None
    secrets: dict[str, str] | None = None
    image: ImageName | None = None
    size: Annotated[int, NO_TRUTH] | None = None
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=64)


class LabelsBody(Body):
    """What is absent stays; null removes one."""

    labels: dict[LabelName, LabelValue | None] = Field(default_factory=dict, max_length=64)


class AllLabelsBody(RootModel[Annotated[dict[LabelName, LabelValue], Field(max_length=64)]]):
    """Labels by name, all that there are to be."""

    model_config = ConfigDict(hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _can_be_kept(cls, value: Any) -> Any:
        return check_json(value)


class DescriptionBody(LabelsBody):
    """A title of null removes it."""

    title: Name | None = None


class ForkBody(Body):
    """`at`: the number of the last event that the fork takes; left out: of all that are there now. `snapshot`: the one
    whose log and workspace it takes."""

    id: str | None = None
    title: Name | None = None
    at: Annotated[int, Field(ge=0, lt=2**63), NO_TRUTH] | None = None
    snapshot: str | None = None
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=64)


class BareRuntimeBody(Body):
    """`environment` is for the shell of the runtime: its values are kept sealed and reach it with its keys."""

    name: Name | None = None
    environment: dict[str, str] | None = None
    image: ImageName | None = None
    size: Annotated[int, NO_TRUTH] | None = None
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=64)
