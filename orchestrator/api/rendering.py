"""Domain values as the native API answers them: each function makes what one of `answers/` declares."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from orchestrator.domain.admission import Decision, Meter, Report, Standing, Use, Verdict, shown
from orchestrator.domain.audit import AuditEntry
from orchestrator.domain.clock import rfc3339
from orchestrator.domain.conversation import STATUS_OF, Conversation, Kind, Phase, Why
from orchestrator.domain.drift import Drift
from orchestrator.domain.operation import Operation
from orchestrator.domain.retention import Act, Planned
from orchestrator.domain.secrets import SecretText, deep_redact
from orchestrator.domain.spending import Budget, Month, Spent, Unit, amount
from orchestrator.domain.tenancy import ApiKey, Tenant, User
from orchestrator.services.holding import Outlook
from orchestrator.services.idleness import Rest
from orchestrator.services.layers import SecretEntry
from orchestrator.state.base import StoredProvider

#: the phases in which a conversation's runtime has an address and a session key
ADDRESSED = frozenset({Phase.READY, Phase.PAUSING, Phase.PAUSED, Phase.RESUMING})


def tenant_out(tenant: Tenant) -> dict[str, Any]:
    return {
        "id": tenant.id,
        "name": tenant.name,
        "limits": dict(tenant.limits),
        "sizes": list(tenant.sizes),
        "images": None if tenant.images is None else [{"name": name, "id": id} for name, id in tenant.images.items()],
        "budget": None if tenant.budget is None else _budget(tenant.budget),
        "version": tenant.version,
        "created_at": rfc3339(tenant.created_at),
    }


def _budget(budget: Budget) -> dict[str, Any]:
    def dollars(micros: int) -> float | None:
        return amount(Unit.USD, micros) if micros else None

    return {
        "monthly_usd": dollars(budget.usd),
        "monthly_tokens": budget.tokens or None,
        "monthly_usd_per_user": dollars(budget.usd_per_user),
        "monthly_tokens_per_user": budget.tokens_per_user or None,
        "thresholds": list(budget.thresholds),
        "when_reached": budget.when_reached,
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


def audit_out(entry: AuditEntry) -> dict[str, Any]:
    actor, touched = entry.actor, entry.touched
    return {
        "id": entry.id,
        "at": rfc3339(entry.at),
        "actor": {
            "kind": actor.kind,
            "key": actor.key,
            "user": actor.user,
            "runtime": actor.runtime,
            "subject": actor.subject,
        },
        "address": entry.address,
        "verb": entry.verb,
        "resource": entry.resource,
        "object": None if touched is None else {"kind": touched.kind, "id": touched.id, "user": touched.user},
        "outcome": entry.outcome,
        "code": entry.code,
        "request_id": entry.request_id,
    }


def secret_out(entry: SecretEntry) -> dict[str, Any]:
    return {"name": entry.name, "description": entry.description, "version": entry.version}


def provider_out(entry: StoredProvider) -> dict[str, Any]:
    return {"provider": entry.name, "host": entry.host, "user_id": entry.user_id, "version": entry.version}


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
        else {
            "conversation": source.conversation,
            "at": source.events,
            "workspace": "snapshot" if source.snapshot else "event" if source.of_event else "current",
            "snapshot": source.snapshot or None,
        },
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
        "unused_since": _roughly(rest.since),
        "pauses_at": _roughly(rest.pauses_at) if rest.pauses_at else None,
    }


def outlook_out(outlook: Outlook) -> dict[str, Any]:
    """What holds it now, and what the clock will do to it if nothing changes."""
    return {
        "holds": list(outlook.holds),
        "schedule": [
            {"act": planned.act, "at": _planned_at(planned), "reason": planned.reason} for planned in outlook.schedule
        ],
    }


def _planned_at(planned: Planned) -> str:
    """A pause is reckoned from the last use; everything else from what the record holds."""
    return _roughly(planned.at) if planned.act is Act.PAUSE else rfc3339(planned.at)


def _roughly(moment: datetime) -> str:
    """Times that are told from an age which the state server counts differ by milliseconds at each read: a read would
    never be the same as the one before (`conditions.py`)."""
    return rfc3339(moment.replace(microsecond=moment.microsecond // 100_000 * 100_000))


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
        "limit": shown(stands.rule, stands.limit) if stands.rule else None,
        "current": shown(stands.rule, stands.current) if stands.rule else None,
        "retry_after": _retry_after(report),
        "place": stands.place or None,
        "would_pause": list(report.would_pause),
        "waiting": report.waiting,
        "limits": [_meter(meter) for meter in report.meters],
    }


def use_out(use: Use, spent: Spent, month: Month) -> dict[str, Any]:
    """What somebody has now, and spent in that month."""
    return {
        "spent": spent_out(spent, month),
        "runtimes": use.runtimes,
        "waiting": use.waiting,
        "when_full": use.policy,
        "limits": [_meter(meter) for meter in use.meters],
    }


def cost_out(spent: Spent) -> dict[str, Any]:
    """What was used of models."""
    return {"usd": spent.usd, "prompt_tokens": spent.prompt_tokens, "completion_tokens": spent.completion_tokens}


def spent_out(spent: Spent, month: Month) -> dict[str, Any]:
    """The same, in a month."""
    return {"month": month.name, "ends_at": rfc3339(month.ends), **cost_out(spent)}


def _retry_after(report: Report) -> float | None:
    """Where it would be refused, what the refusal's `Retry-After` would say; else when there may be room, if known."""
    stands = report.standing
    if report.decision is Decision.REJECT:
        return max(1, round(stands.retry_after))
    return round(stands.retry_after_ms / 1000, 1) if stands.retry_after_ms else None


def _meter(meter: Meter) -> dict[str, Any]:
    rule = meter.rule
    window = {"window_seconds": rule.window_ms // 1000} if rule.window_ms else {}
    month = {"month": rule.month} if rule.unit is not None else {}
    numbers = {"limit": shown(rule.name, rule.limit), "current": shown(rule.name, meter.current)}
    return {"rule": rule.name, **numbers, **window, **month}


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
