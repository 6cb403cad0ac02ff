"""What is stored, as text: pure functions between domain values and what Redis keeps.

Used by the Redis store and by its journal. Every text carries the version of the schema that it was written by: one of
a newer version is refused (`Unreadable`) and nothing of it is changed, since fields that this version does not know may
be what matters. A conversation is kept in parts, because different writers own them: callers own the
intent (desired state, labels, title), the holder of the lease owns phase and runtime. Unknown fields are ignored on
reading, so that what a newer version adds without raising the schema can be read by an older replica.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import structlog
from pydantic import TypeAdapter

from orchestrator.domain.conversation import Conversation, Desired, Kind, Phase, Why
from orchestrator.domain.errors import Unreadable
from orchestrator.domain.hooks import HookEndpoint
from orchestrator.domain.operation import Operation, Stage
from orchestrator.domain.tenancy import ApiKey, Tenant, User
from orchestrator.state.values import Glance

log = structlog.get_logger(__name__)
T = TypeVar("T")
R = TypeVar("R")
#: Raised when an older version must not touch what this one writes.
SCHEMA = 6
_FIRST = 1  #: what every older version can read and write
_WITH_VOLUMES = (
    2  #: a version that does not know `volume` would write the record back without it, and lose the workspace
)

_WITH_KINDS = 3  #: an older version would make a conversation of a bare runtime
_WITH_FORKS = 4  #: an older version would start a fork without what it goes on from
_WITH_SNAPSHOTS = 5  #: an older version would give a fork of a snapshot the workspace of now
_WITH_VERSIONS = 6  #: an older version would do the same with one that has the workspace of its event

#: The parts of a conversation, in the order in which scripts answer them.
PARTS = ("intent", "phase", "runtime", "record", "version", "fence")
_INTENT = ("desired", "labels", "title", "links")

_conversation = TypeAdapter(Conversation)
_tenant = TypeAdapter(Tenant)
_user = TypeAdapter(User)
_api_key = TypeAdapter(ApiKey)
_hook = TypeAdapter(HookEndpoint)
_operation = TypeAdapter(Operation)
_stage = TypeAdapter(Stage)
_why = TypeAdapter(Why)


def conversation_parts(conversation: Conversation) -> dict[str, str]:
    """One text for each of `PARTS`."""
    fields: dict[str, Any] = _conversation.dump_python(conversation, mode="json")
    runtime = fields.pop("runtime")
    return {
        "intent": _text({name: fields.pop(name) for name in _INTENT}),
        "phase": fields.pop("phase"),
        "runtime": "" if runtime is None else _text(runtime),
        "version": str(fields.pop("version")),
        "fence": str(fields.pop("fence")),
        "record": _text({"schema": _schema_of(conversation), **fields}),
    }


def _schema_of(conversation: Conversation) -> int:
    if (fork := conversation.request.fork_of) is not None:
        if fork.of_event:
            return _WITH_VERSIONS
        return _WITH_SNAPSHOTS if fork.snapshot else _WITH_FORKS
    if conversation.kind is not Kind.CONVERSATION:
        return _WITH_KINDS
    runtime = conversation.runtime
    return _WITH_VOLUMES if runtime is not None and runtime.volume else _FIRST


def conversation_from(parts: Sequence[str]) -> Conversation:
    """The inverse; `parts` in the order of `PARTS`. Raises `Unreadable`."""
    intent, phase, runtime, record, version, fence = parts
    try:
        fields = {**_known(json.loads(record), "conversation"), **json.loads(intent)}
        fields |= {"phase": phase, "version": version, "fence": fence}
        fields["runtime"] = json.loads(runtime) if runtime else None
        return _conversation.validate_python(fields)
    except (ValueError, TypeError) as exc:
        raise _damaged("conversation") from exc


def glance_from(intent: str, phase: str) -> Glance:
    """Of two of its parts. Raises `Unreadable`."""
    try:
        fields = json.loads(intent)
        return Glance(Phase(phase), Desired(fields["desired"]), fields["title"], fields["labels"])
    except (ValueError, TypeError, KeyError) as exc:
        raise _damaged("conversation") from exc


def tenant_text(tenant: Tenant) -> str:
    return _dump(_tenant, tenant)


def tenant_from(text: str) -> Tenant:
    return _load(_tenant, text, "tenant")


def user_text(user: User) -> str:
    return _dump(_user, user)


def user_from(text: str) -> User:
    return _load(_user, text, "user")


def api_key_text(key: ApiKey) -> str:
    return _dump(_api_key, key)


def api_key_from(text: str) -> ApiKey:
    return _load(_api_key, text, "key")


def hook_text(endpoint: HookEndpoint) -> str:
    return _dump(_hook, endpoint)


def hook_from(text: str) -> HookEndpoint:
    return _load(_hook, text, "webhook")


def stage_text(stage: Stage) -> str:
    return _dump(_stage, stage)


def operation_text(operation: Operation) -> str:
    """Without the stages and the state, which are kept and changed apart; the names of the stages keep their order."""
    fields: dict[str, Any] = _operation.dump_python(operation, mode="json")
    fields["stages"] = [stage["name"] for stage in fields["stages"]]
    del fields["state"], fields["failure"]
    return _text(fields)


def why_text(why: Why | None) -> str:
    """Empty for None."""
    return "" if why is None else _dump(_why, why)


def operation_from(text: str, *, state: str, updated_ms: int, stages: dict[str, str], failure: str = "") -> Operation:
    """`stages` holds the text of each stage by its name, `failure` that of `why_text`."""
    try:
        fields = json.loads(text)
        fields["stages"] = [json.loads(stages[name]) for name in fields["stages"]]
        fields["failure"] = json.loads(failure) if failure else None
        return _operation.validate_python({**fields, "state": state, "updated_at": updated_ms / 1000})
    except (ValueError, TypeError, KeyError) as exc:
        raise _damaged("operation") from exc


def _dump(adapter: TypeAdapter[T], value: T) -> str:
    return _text({"schema": _FIRST, **adapter.dump_python(value, mode="json")})


def _load(adapter: TypeAdapter[T], text: str, what: str) -> T:
    try:
        return adapter.validate_python(_known(json.loads(text), what), strict=False)
    except (ValueError, TypeError) as exc:
        raise _damaged(what) from exc


def readable(read: Callable[[R], T], stored: Iterable[R]) -> list[T]:
    """What can be read of `stored`. The rest is named in the log, stays as it is, and keeps nobody from the others."""
    found = []
    for one in stored:
        try:
            found.append(read(one))
        except Unreadable as exc:
            log.error("record.unreadable", problem=exc.message, hint=exc.hint)
    return found


def _known(fields: Any, what: str) -> dict[str, Any]:
    """`fields` without the version of their schema. Raises `Unreadable` for a newer one."""
    if not isinstance(fields, dict):
        raise TypeError
    schema = fields.pop("schema", 1)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise Unreadable(
            f"a stored {what} was written by a newer version of Nestor (schema {str(schema)[:20]})",
            hint="upgrade this replica; nothing of it was changed",
        )
    return fields


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _damaged(what: str) -> Unreadable:
    return Unreadable(
        f"a stored {what} is damaged", hint="nestor journal restore --replace brings the last good one back"
    )
