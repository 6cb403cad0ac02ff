"""The audit log of a tenant: who asked for what, when, and what became of it. Values and their text; no secrets."""

import enum
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.domain.ids import KeyId, RuntimeId, UserId

LONGEST_RESOURCE = 512  #: characters of a path that are kept
#: Times are kept in whole milliseconds. Half of one is added on reading, so that no rounding makes another one of it.
_EPOCH = datetime.fromtimestamp(0, UTC)
_LAYERED = frozenset({"settings", "secret", "provider"})  #: kinds whose ids begin with `<user or ''>`


class ActorKind(enum.StrEnum):
    """What the actor showed: an API key of that kind, or a token that speaks for the same; or the session key of a
    runtime."""

    OPERATOR = "operator"
    TENANT = "tenant"
    USER = "user"
    RUNTIME = "runtime"


class Outcome(enum.StrEnum):
    """What became of a request."""

    ACCEPTED = "accepted"  #: done, or under way
    REFUSED = "refused"  #: nothing was changed; `code` says why
    FAILED = "failed"  #: it broke off here: what it asked for may be done or not


@dataclass(frozen=True)
class Actor:
    """Who asked. `user` is the user that the key speaks for, or for whom a tenant's key acts."""

    kind: ActorKind
    key: KeyId | None = None
    user: UserId | None = None
    runtime: RuntimeId | None = None
    subject: str | None = None  #: of the token that was shown in the place of a key


@dataclass(frozen=True)
class Touched:
    """The first thing that was changed. `user`: whose layer it is in, where it is in one."""

    kind: str
    id: str | None
    user: UserId | None = None


@dataclass(frozen=True)
class AuditEntry:
    id: str
    at: datetime  #: when the request came
    actor: Actor
    address: str | None  #: of the peer that sent it
    verb: str  #: the method
    resource: str  #: the path, without its query
    request_id: str | None
    outcome: Outcome
    code: str | None = None  #: of the problem that it was answered with
    touched: Touched | None = None  #: None also where nothing that is kept here was changed


@dataclass(frozen=True)
class Keep:
    """How much of a log is kept: so many entries, none older than that."""

    entries: int
    age: timedelta


def head_of(entry: AuditEntry) -> str:
    """Its text up to what was touched, which the script that makes the change adds itself."""
    actor = [entry.actor.kind, entry.actor.key, entry.actor.user, entry.actor.runtime]
    fields = [
        1,
        entry.id,
        int(entry.at.timestamp() * 1000),
        actor if entry.actor.subject is None else [*actor, entry.actor.subject],
        entry.address,
        entry.verb,
        entry.resource[:LONGEST_RESOURCE],
        entry.request_id,
        entry.outcome,
        entry.code,
    ]
    return json.dumps(fields, separators=(",", ":"))[:-1]


def tail_of(kind: str | None, id: str | None) -> str:
    """The rest, as the scripts add it."""
    return f",{json.dumps(kind)},{json.dumps(id)}]"


def entry_from(text: str) -> AuditEntry:
    """The inverse of both. Raises ValueError."""
    _version, id, at, actor, address, verb, resource, request_id, outcome, code, kind, touched, *_ = json.loads(text)
    return AuditEntry(
        id=id,
        at=_EPOCH + timedelta(milliseconds=at, microseconds=500),
        actor=_actor(actor),
        address=address,
        verb=verb,
        resource=resource,
        request_id=request_id,
        outcome=Outcome(outcome),
        code=code,
        touched=None if kind is None else _touched(kind, touched),
    )


def refused(entry: AuditEntry, status: int, code: str | None) -> AuditEntry:
    """The same entry of a request that was answered with this status, which is one of failure."""
    return replace(entry, outcome=Outcome.FAILED if status >= 500 and status != 501 else Outcome.REFUSED, code=code)


def _actor(fields: Any) -> Actor:
    kind, key, user, runtime, *subject = fields
    return Actor(ActorKind(kind), key, user, runtime, subject[0] if subject else None)


def _touched(kind: str, id: str) -> Touched:
    if kind in _LAYERED:
        user, _, name = id.partition("|")
        return Touched(kind, name or None, UserId(user) if user else None)
    return Touched(kind, id.partition("|")[0])
