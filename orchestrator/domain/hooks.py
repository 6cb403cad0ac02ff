"""Webhooks of a tenant: who is told of what, and what is told. Values and rules, no I/O.

What is told is small: ids and state; a receiver reads the rest. It never holds a secret, nor a runtime's own words but
for a failure's message and hint, from which what the runtime was told has been taken out (`services/discretion.py`).
"""

import enum
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.domain import tracing
from orchestrator.domain.clock import rfc3339
from orchestrator.domain.conversation import STATUS_OF, Conversation, Kind, Phase, Why, last_lines
from orchestrator.domain.ids import ConversationId, HookId, TenantId, message_event_id, new_uuid

VERSION = 1  #: of the body's form; raised when a field changes its meaning or goes
TENANT_LANE = "-"  #: of what belongs to no conversation
ENDPOINTS_MAXIMUM = 20
ATTEMPTS_KEPT = 200
_UUID_LENGTH = 36


class HookEvent(enum.StrEnum):
    """What an endpoint can be told of. The list is public."""

    CREATED = "conversation.created"
    STATUS_CHANGED = "conversation.status_changed"
    RUNTIME_CREATED = "runtime.created"  #: this and the next are of bare runtimes alone
    RUNTIME_STATUS_CHANGED = "runtime.status_changed"
    RUNTIME_READY = "runtime.ready"
    RUNTIME_FAILED = "runtime.failed"
    MESSAGE_DELIVERED = "message.delivered"  #: it is on the runtime's disk
    MESSAGE_ACCEPTED = "message.accepted"  #: it is in the event log
    QUOTA_EXCEEDED = "quota.exceeded"
    BUDGET_REACHED = "budget.threshold_reached"
    ENDPOINT_DISABLED = "endpoint.disabled"


DROPPED = "events.dropped"  #: told to every endpoint that it concerns: events before this one are missing, and why
TEST = "webhook.test"  #: told when somebody asks for it


class Gap(enum.StrEnum):
    """Why events are missing."""

    FULL = "full"  #: more waited than the endpoint's queue may hold
    DISABLED = "disabled"  #: the endpoint was disabled
    GIVEN_UP = "given_up"  #: the endpoint refused an event for days while it took others
    LOST = "lost"  #: the state server lost what waited


@dataclass(frozen=True)
class HookSecret:
    """One of at most two that sign. `number` grows with each rotation and is part of the seal."""

    number: int
    sealed: str
    expires_at: datetime | None = None


@dataclass(frozen=True)
class HookEndpoint:
    """Where a tenant wants to be told. The address is sealed like the secrets: some hold a key in their path."""

    id: HookId
    tenant: TenantId
    url_sealed: str
    events: tuple[HookEvent, ...]  #: empty: all, also those of later versions
    description: str
    secrets: tuple[HookSecret, ...]  #: the newest first
    created_at: datetime
    updated_at: datetime
    enabled: bool = True
    disabled_reason: str = ""  #: `requested`, `gone`, `failing`; empty while enabled
    version: int = 1

    def signing(self, now: datetime) -> Sequence[HookSecret]:
        """Those that sign now."""
        return [secret for secret in self.secrets if secret.expires_at is None or secret.expires_at > now]


@dataclass(frozen=True)
class Draft:
    """Something to be told, before it has its number."""

    type: str
    text: str  #: JSON of the body without `sequence`


def draft(type: str, tenant: TenantId, at: datetime, data: Mapping[str, Any]) -> Draft:
    """With an id of its own, by which a receiver knows a repeat."""
    body = {
        "id": f"evt_{new_uuid()}",
        "type": type,
        "version": VERSION,
        "timestamp": rfc3339(at),
        "tenant_id": tenant,
        "data": data,
    }
    if trace := tracing.text():
        body["trace"] = trace  # for the headers of what is sent, and taken out of its body
    return Draft(type, json.dumps(body, separators=(",", ":")))


def threshold_frame(tenant: TenantId, at: datetime) -> tuple[str, str, str]:
    """A `budget.threshold_reached` around its id and its data, which the store fills in: only the step that counts
    knows whether and what there is to tell."""
    head, _, rest = draft(HookEvent.BUDGET_REACHED, tenant, at, {}).text.partition("evt_")
    neck, _, tail = rest[_UUID_LENGTH:].partition("{}")
    return head, neck, tail


def drafts_text(drafts: Sequence[Draft]) -> str:
    """As scripts take them."""
    return json.dumps([[one.type, one.text] for one in drafts], separators=(",", ":"))


def created(conversation: Conversation) -> list[Draft]:
    """A conversation, or a bare runtime, was asked for."""
    type = HookEvent.CREATED if conversation.kind is Kind.CONVERSATION else HookEvent.RUNTIME_CREATED
    data = _place(conversation) | {"phase": conversation.phase, "status": STATUS_OF[conversation.phase]}
    return [draft(type, conversation.tenant, conversation.created_at, data)]


def moved(conversation: Conversation) -> list[Draft]:
    """A conversation, or a bare runtime, is in another phase than before."""
    is_bare = conversation.kind is Kind.RUNTIME
    type = HookEvent.RUNTIME_STATUS_CHANGED if is_bare else HookEvent.STATUS_CHANGED
    state = {"phase": conversation.phase, "status": STATUS_OF[conversation.phase], "attempt": conversation.attempt}
    place, at = _place(conversation), conversation.updated_at
    told = [draft(type, conversation.tenant, at, place | state | {"reason": conversation.why.reason})]
    if conversation.phase is Phase.READY:
        told.append(draft(HookEvent.RUNTIME_READY, conversation.tenant, at, place))
    if conversation.phase is Phase.FAILED or conversation.restart_at is not None:
        why = _why(conversation.why) | {"restarts": conversation.restart_at is not None}
        why["log_tail"] = list(last_lines(conversation.why))
        told.append(draft(HookEvent.RUNTIME_FAILED, conversation.tenant, at, place | why))
    return told


def accepted(
    tenant: TenantId, id: ConversationId, sequence: int, event: str, at: datetime, *, client_id: str | None
) -> Draft:
    """A message of the user is in the conversation's event log. `client_id` is that of the inbox; None for one that did
    not come through it: the first one of a conversation, or one that was sent to the runtime itself."""
    data = {"conversation_id": id, "event_sequence": sequence, "event_id": event, "client_id": client_id}
    return draft(HookEvent.MESSAGE_ACCEPTED, tenant, at, data)


def delivered(tenant: TenantId, id: ConversationId, message: int, at: datetime, *, client_id: str) -> Draft:
    """A message of the inbox is with the agent: it is told of once, whatever crashed in between."""
    data = {"conversation_id": id, "client_id": client_id, "message_sequence": message}
    return draft(HookEvent.MESSAGE_DELIVERED, tenant, at, data | {"event_id": message_event_id(id, client_id)})


@dataclass(frozen=True)
class Delivery:
    """The head of a lane (an endpoint and a conversation), claimed until `mark`. `entry` is it as stored."""

    tenant: TenantId
    endpoint: HookId
    lane: str
    mark: str
    tries: int
    entry: str

    def body(self) -> dict[str, Any]:
        """What is sent."""
        return body_of(self.tenant, self.endpoint, self.entry)


def body_of(tenant: TenantId, endpoint: HookId, entry: str) -> dict[str, Any]:
    """An entry is `<sequence>:<draft>`, or `gap:<first>:<last>:<count>:<reason>:<at ms>`."""
    head, _, rest = entry.partition(":")
    if head != "gap":
        body: dict[str, Any] = json.loads(rest)
        body.pop("trace", None)
        return {**body, "sequence": int(head)}
    first, last, count, reason, at_ms = rest.split(":")
    missing = {"reason": reason, "count": int(count) or None}
    numbers = {"first_sequence": int(first) or None, "last_sequence": int(last) or None}
    return {
        "id": f"gap_{endpoint}_{reason}_{at_ms}_{first}_{last}_{count}",
        "type": DROPPED,
        "version": VERSION,
        "timestamp": rfc3339(_moment(int(at_ms))),
        "tenant_id": tenant,
        "data": {"webhook_id": endpoint, **missing, **numbers},
        "sequence": int(last) or None,
    }


def trace_of(entry: str) -> tracing.Trace:
    """In which the event came about; a new one where nobody asked for it."""
    head, _, rest = entry.partition(":")
    told = None if head == "gap" else json.loads(rest).get("trace")
    return (tracing.kept(told) if isinstance(told, str) else None) or tracing.begun()


class Outcome(enum.StrEnum):
    """What became of an attempt."""

    DELIVERED = "delivered"
    FAILED = "failed"  #: it is tried again
    GIVEN_UP = "given_up"  #: it is not tried again by itself


@dataclass(frozen=True)
class Attempt:
    """One line of an endpoint's delivery log. `id` is given by the store."""

    event: str
    type: str
    sequence: int | None
    lane: str
    attempt: int
    outcome: Outcome
    status: int | None  #: of the receiver's answer, None when there was none
    problem: str  #: in our own words, empty when there is none
    milliseconds: int
    entry: str
    id: str = ""
    at: datetime | None = None


@dataclass(frozen=True)
class HookStanding:
    """How an endpoint does."""

    waiting: int = 0
    waiting_bytes: int = 0
    failures: int = 0  #: in a row
    failing_since_ms: int | None = None
    rests_until_ms: int | None = None


def backoff_ms(base_ms: int, failures: int, *, longest_ms: int, asked_ms: int = 0) -> int:
    """Twice as long after each failure, with jitter, so that what failed together is not tried together; never
    shorter than what the receiver asked for (at most a day)."""
    grown = min(longest_ms, base_ms * 2 ** min(failures - 1, 30))
    return max(int(grown * random.uniform(0.5, 1.0)), min(asked_ms, 24 * 3600 * 1000))  # noqa: S311 - no secret


def _place(conversation: Conversation) -> dict[str, Any]:
    runtime = conversation.runtime
    return {
        "conversation_id": conversation.id if conversation.kind is Kind.CONVERSATION else None,
        "user_id": conversation.user,
        "runtime_id": runtime.id if runtime is not None else None,
        "generation": runtime.generation if runtime is not None else None,
        "conversation_version": conversation.version,
    }


def _why(why: Why) -> dict[str, Any]:
    return {
        "reason": why.reason,
        "message": why.message[:500],
        "hint": why.hint[:500],
        "retryable": why.retryable,
        "step": why.step or None,
    }


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
