"""The bodies of the native API: parsed with unknown fields refused, rendered from domain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from orchestrator.api import known_settings
from orchestrator.api.json_values import check_json
from orchestrator.domain.admission import TENANT_ONLY, Decision, Meter, Policy, Report, Standing, Use, Verdict
from orchestrator.domain.clock import rfc3339
from orchestrator.domain.conversation import STATUS_OF, Conversation, Kind, Phase, Why
from orchestrator.domain.drift import Drift
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.operation import Operation
from orchestrator.domain.restarts import RestartPolicy
from orchestrator.domain.secrets import SecretText, deep_redact
from orchestrator.domain.tenancy import ApiKey, Scope, Tenant, User
from orchestrator.services.holding import Outlook
from orchestrator.services.idleness import Rest

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
    temperature: float | None = Field(default=None, ge=0, le=2)
    timeout: float | None = Field(default=None, gt=0)
    num_retries: int | None = Field(default=None, ge=0, le=20)
    max_output_tokens: int | None = Field(default=None, ge=1)
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

    max_iterations: int | None = Field(default=None, ge=1, le=100_000)
    confirmation_mode: bool | None = None
    security_analyzer: str | None = None


Seconds = Annotated[float, Field(ge=0, le=315_360_000, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=0, le=1_000_000)]


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
    restart_max: int | None = Field(default=None, ge=0, le=10)
    restart_window_seconds: float | None = Field(default=None, gt=0, le=86_400, allow_inf_nan=False)

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


ImageName = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@-]*$")]


class TenantPatchBody(Body):
    """What is left out stays. `sizes` are those that the tenant's conversations may have, the first for those that name
    none; null, or none: as all. `images` are those that its new conversations may use, each kept with what it stands
    for now; the first is for requests that name none, unless the installation's own is among them; null: as all."""

    limits: AllowanceBody = Field(default_factory=AllowanceBody)
    sizes: Annotated[list[int], Field(max_length=10)] | None = None
    images: Annotated[list[ImageName], Field(min_length=1, max_length=100)] | None = None


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


#: the phases in which a conversation's runtime has an address and a session key
ADDRESSED = frozenset({Phase.READY, Phase.PAUSING, Phase.PAUSED, Phase.RESUMING})


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
    size: int | None = None
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=64)


class ForkBody(Body):
    """`at`: the number of the last event that the fork takes; left out: of all that are there now."""

    id: str | None = None
    title: Name | None = None
    at: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=64)


class BareRuntimeBody(Body):
    """`environment` is for the shell of the runtime: its values are kept sealed and reach it with its keys."""

    name: Name | None = None
    environment: dict[str, str] | None = None
    image: ImageName | None = None
    size: int | None = None
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=64)


def tenant_out(tenant: Tenant) -> dict[str, Any]:
    return {
        "id": tenant.id,
        "name": tenant.name,
        "limits": dict(tenant.limits),
        "sizes": list(tenant.sizes),
        "images": None if tenant.images is None else [{"name": name, "id": id} for name, id in tenant.images.items()],
        "created_at": rfc3339(tenant.created_at),
    }


def user_out(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "name": user.name,
        "external_id": user.external_id,
        "tenant": user.tenant,
        "created_at": rfc3339(user.created_at),
    }


def key_out(key: ApiKey, text: SecretText | None = None) -> dict[str, Any]:
    """`text` is shown in the answer that makes the key, and nowhere else."""
    return {
        "id": key.id,
        "name": key.name,
        "kind": key.kind,
        "user": key.user,
        "scopes": sorted(key.scopes),
        "created_at": rfc3339(key.created_at),
        "expires_at": rfc3339(key.expires_at) if key.expires_at else None,
        "revoked": key.revoked,
        **({"key": text.open()} if text is not None else {}),
    }


def settings_out(document: Mapping[str, Any], origin: Mapping[str, str] | None = None) -> dict[str, Any]:
    shown = {
        name: deep_redact(document.get(name, {})) for name in ("agent_settings", "conversation_settings", "limits")
    }
    llm = document.get("agent_settings", {}).get("llm", {})
    shown["llm_api_key_is_set"] = bool(llm.get("api_key"))
    if origin is not None:
        shown["origin"] = dict(origin)
    return shown


def record_out(record: Conversation, *, url: str | None, session_key: SecretText | None) -> dict[str, Any]:
    """The native record of either kind."""
    out = conversation_out(record, url=url, session_key=session_key)
    return out if record.kind is Kind.CONVERSATION else _runtime_out(record, out)


def _runtime_out(record: Conversation, out: Mapping[str, Any]) -> dict[str, Any]:
    """A bare runtime: what a conversation's record has of its runtime is its own."""
    own = out["runtime"] or {"generation": 0, "url": None, "session_key": None}
    kept = {name: value for name, value in out.items() if name not in _OF_CONVERSATIONS}
    return {"id": record.id, "name": record.name or None, **own, **kept}


_OF_CONVERSATIONS = frozenset({"id", "title", "repository", "branch", "git_provider", "fork_of", "runtime"})


def conversation_out(conversation: Conversation, *, url: str | None, session_key: SecretText | None) -> dict[str, Any]:
    """The native record. The runtime's address and key are there while it is ready or paused."""
    ready = conversation.phase in ADDRESSED
    runtime = conversation.runtime
    why = conversation.why
    return {
        "id": conversation.id,
        "user": conversation.user,
        "title": conversation.title,
        "labels": dict(conversation.labels),
        "phase": conversation.phase,
        "status": STATUS_OF[conversation.phase],
        "desired": conversation.desired,
        **why_out(why),
        "attempt": conversation.attempt,
        "restart_at": rfc3339(conversation.restart_at) if conversation.restart_at else None,
        "version": conversation.version,
        "fence": conversation.fence,
        "image": None if conversation.image is None else asdict(conversation.image),
        "size": conversation.request.size,
        "repository": conversation.request.repository,
        "branch": conversation.request.branch,
        "git_provider": conversation.request.git_provider,
        "fork_of": None
        if (source := conversation.request.fork_of) is None
        else {"conversation": source.conversation, "at": source.events},
        "runtime": None
        if runtime is None
        else {
            "id": runtime.id,
            "generation": runtime.generation,
            "url": url if ready else None,
            "session_key": session_key.open() if ready and session_key is not None else None,
        },
        "operation": conversation.operation,
        "archived_at": rfc3339(conversation.archived_at) if conversation.archived_at else None,
        "purge_at": rfc3339(conversation.purge_at) if conversation.purge_at else None,
        "created_at": rfc3339(conversation.created_at),
        "updated_at": rfc3339(conversation.updated_at),
        "phase_since": rfc3339(conversation.phase_since),
    }


def idle_out(rest: Rest | None) -> dict[str, Any] | None:
    """When a ready conversation will be paused unless it is used; null in every other phase."""
    if rest is None:
        return None
    return {
        "pause_after_seconds": rest.after_seconds or None,
        "unused_since": rfc3339(rest.since),
        "pauses_at": rfc3339(rest.pauses_at) if rest.pauses_at else None,
    }


def outlook_out(outlook: Outlook) -> dict[str, Any]:
    """What holds it now, and what the clock will do to it if nothing changes."""
    return {
        "holds": list(outlook.holds),
        "schedule": [
            {"act": planned.act, "at": rfc3339(planned.at), "reason": planned.reason} for planned in outlook.schedule
        ],
    }


def stuck_out(steps: Sequence[tuple[str, str, str | None]]) -> list[dict[str, str]]:
    """What could not be undone yet, the last first; it is tried again every few seconds."""
    return [{"step": step, "problem": problem} for step, _, problem in reversed(steps) if problem is not None]


def queue_out(standing: Standing) -> dict[str, Any] | None:
    """Where in the tenant's queue a start waits; null when it does not."""
    if standing.verdict is not Verdict.QUEUED:
        return None
    until = datetime.fromtimestamp(standing.until_ms / 1000, UTC)
    return {"place": standing.place, "until": rfc3339(until)}


def report_out(report: Report) -> dict[str, Any]:
    """The answer to a dry run."""
    stands = report.standing
    return {
        "decision": report.decision,
        "when_full": report.policy,
        "rule": stands.rule or None,
        "limit": stands.limit if stands.rule else None,
        "current": stands.current if stands.rule else None,
        "retry_after": _retry_after(report),
        "place": stands.place or None,
        "would_pause": list(report.would_pause),
        "waiting": report.waiting,
        "limits": [_meter(meter) for meter in report.meters],
    }


def use_out(use: Use) -> dict[str, Any]:
    """What somebody has now."""
    return {
        "runtimes": use.runtimes,
        "waiting": use.waiting,
        "when_full": use.policy,
        "limits": [_meter(meter) for meter in use.meters],
    }


def _retry_after(report: Report) -> float | None:
    """Where it would be refused, what the refusal's `Retry-After` would say; else when there may be room, if known."""
    stands = report.standing
    if report.decision is Decision.REJECT:
        return max(1, round(stands.retry_after))
    return round(stands.retry_after_ms / 1000, 1) if stands.retry_after_ms else None


def _meter(meter: Meter) -> dict[str, Any]:
    rule = meter.rule
    window = {"window_seconds": rule.window_ms // 1000} if rule.window_ms else {}
    return {"rule": rule.name, "limit": rule.limit, "current": meter.current, **window}


def why_out(why: Why) -> dict[str, Any]:
    return {
        "reason": why.reason,
        "message": why.message,
        "hint": why.hint,
        "retryable": why.retryable,
        "step": why.step or None,
        "log_tail": list(why.log_tail),
    }


def configuration_out(conversation: Conversation, wanted: str) -> dict[str, Any] | None:
    """What the runtime holds beside what is wanted; null while there is none that was configured."""
    runtime = conversation.runtime
    if conversation.phase not in ADDRESSED or runtime is None or runtime.held is None:
        return None
    held, trouble = runtime.held, conversation.trouble
    drifted = [] if conversation.drift is None or conversation.drift.repaired_at else list(conversation.drift.parts)
    return {
        "held": held.generation or None,
        "digest": held.digest or None,
        "wanted": wanted,
        "current": held.generation == wanted and trouble is None and not drifted,
        "names": {
            "settings": list(held.settings),
            "git_providers": list(held.providers),
            "secrets": list(held.secrets),
        },
        "pushed_at": rfc3339(held.at),
        "compared": None if held.seen is None else "values" if held.seen.values else "names",
        "drifted": drifted,
        "drift": None if conversation.drift is None else _drift(conversation.drift),
        "trouble": None
        if trouble is None
        else {"problem": trouble.problem, "tries": trouble.tries, "retry_at": rfc3339(trouble.retry_at)},
    }


def _drift(drift: Drift) -> dict[str, Any]:
    """The last one; `repair_at` is when this one, or else the next one, may be repaired."""
    return {
        "parts": list(drift.parts),
        "seen_at": rfc3339(drift.seen_at),
        "repaired_at": rfc3339(drift.repaired_at) if drift.repaired_at else None,
        "repair_at": rfc3339(drift.repair_at),
        "repairs": drift.repairs,
    }


def failures_out(conversation: Conversation) -> list[dict[str, Any]]:
    """The last failures, the latest first."""
    return [
        {
            "at": rfc3339(failure.at),
            "generation": failure.generation,
            "attempt": failure.attempt,
            "restarted": failure.restarted,
            **why_out(failure.why),
        }
        for failure in reversed(conversation.failures)
    ]


def operation_out(operation: Operation) -> dict[str, Any]:
    return {
        "id": operation.id,
        "kind": operation.kind,
        "state": operation.state,
        operation.subject: operation.conversation,
        "failure": why_out(operation.failure) if operation.failure is not None else None,
        "stages": [
            {
                "name": stage.name,
                "state": stage.state,
                "started_at": rfc3339(stage.started_at) if stage.started_at else None,
                "seconds": stage.seconds,
                **({"message": stage.message} if stage.message else {}),
            }
            for stage in operation.stages
        ],
        "created_at": rfc3339(operation.created_at),
        "updated_at": rfc3339(operation.updated_at),
    }
