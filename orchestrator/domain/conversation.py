"""A conversation: its phase, why it is in it, and the one function that changes it.

Docs: `docs/states.md`. Only `advance` makes a new phase; only a compare-and-set on version and fence stores it.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from orchestrator.domain.drift import Drift, Seen
from orchestrator.domain.errors import IllegalTransition, PermanentError
from orchestrator.domain.ids import ConversationId, KeyId, OperationId, RuntimeId, TenantId, UserId
from orchestrator.domain.images import Pin
from orchestrator.domain.links import Link
from orchestrator.domain.snapshots import SnapshotId


class Phase(enum.StrEnum):
    """Where a conversation is."""

    PENDING = "pending"  #: admitted; nothing exists outside the store
    PROVISIONING = "provisioning"  #: the driver is making the runtime
    CONFIGURING = "configuring"  #: alive; settings, providers, secrets are being pushed
    READY = "ready"  #: routable
    PAUSING = "pausing"  #: the runtime is being frozen or stopped in place
    PAUSED = "paused"  #: the runtime is kept and does not run
    RESUMING = "resuming"  #: a paused or stopped one is coming back
    STOPPING = "stopping"  #: the runtime is being removed
    STOPPED = "stopped"  #: no runtime; workspace and log are kept
    DELETING = "deleting"  #: nothing runs any more; what is kept goes too, unless it is undeleted in time
    FAILED = "failed"  #: nothing runs; `reason` says why


class Kind(enum.StrEnum):
    """What a record is of. Both live by the same phases, steps and clocks."""

    CONVERSATION = "conversation"
    RUNTIME = "runtime"  #: bare: without a conversation, a repository, an inbox or an event log of its own


TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    Phase.PENDING: frozenset({Phase.PROVISIONING, Phase.STOPPING, Phase.DELETING, Phase.FAILED}),
    Phase.PROVISIONING: frozenset({Phase.CONFIGURING, Phase.PENDING, Phase.STOPPING, Phase.DELETING, Phase.FAILED}),
    Phase.CONFIGURING: frozenset({Phase.READY, Phase.PENDING, Phase.STOPPING, Phase.DELETING, Phase.FAILED}),
    Phase.READY: frozenset({Phase.PENDING, Phase.PAUSING, Phase.STOPPING, Phase.DELETING, Phase.FAILED}),
    Phase.PAUSING: frozenset({Phase.PAUSED, Phase.READY, Phase.STOPPING, Phase.DELETING, Phase.FAILED}),
    Phase.PAUSED: frozenset({Phase.RESUMING, Phase.STOPPING, Phase.DELETING, Phase.FAILED}),
    Phase.RESUMING: frozenset({Phase.READY, Phase.PENDING, Phase.STOPPING, Phase.DELETING, Phase.FAILED}),
    Phase.STOPPING: frozenset({Phase.STOPPED, Phase.DELETING}),
    Phase.STOPPED: frozenset({Phase.PENDING, Phase.DELETING}),
    Phase.DELETING: frozenset({Phase.STOPPED}),
    Phase.FAILED: frozenset({Phase.PENDING, Phase.DELETING}),
}

#: A runtime may exist in these phases; in the others nothing of ours may run.
LIVE_PHASES = frozenset(
    {Phase.PROVISIONING, Phase.CONFIGURING, Phase.READY, Phase.PAUSING, Phase.PAUSED, Phase.RESUMING, Phase.STOPPING}
)


#: The public status: the phase collapsed (outer-api.md 7).
STATUS_OF: Mapping[Phase, str] = {
    Phase.PENDING: "starting",
    Phase.PROVISIONING: "starting",
    Phase.CONFIGURING: "starting",
    Phase.RESUMING: "starting",
    Phase.READY: "running",
    Phase.PAUSING: "paused",
    Phase.PAUSED: "paused",
    Phase.STOPPING: "stopped",
    Phase.STOPPED: "stopped",
    Phase.DELETING: "stopped",
    Phase.FAILED: "failed",
}


def slot_of(phase: Phase) -> str:
    """What becomes of the slot (`domain/admission.py`) of a conversation that enters `phase`: `hold` where its runtime
    runs, `free` where it does not, empty where that is not said by the phase alone."""
    if phase in (Phase.PROVISIONING, Phase.CONFIGURING, Phase.READY, Phase.PAUSING, Phase.RESUMING):
        return "hold"
    return "free" if phase in (Phase.PAUSED, Phase.STOPPED) else ""


class Desired(enum.StrEnum):
    """What should be; the workers and the reconciler make it so."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DELETED = "deleted"


class Reason(enum.StrEnum):
    """Why a conversation is in its phase. The list is closed and public."""

    CAPACITY = "capacity"
    LIMIT = "limit"
    IMAGE_PULL = "image_pull"
    IMAGE_REFUSED = "image_refused"
    IMAGE_START = "image_start"
    REPOSITORY_UNAVAILABLE = "repository_unavailable"
    CREDENTIAL_REJECTED = "credential_rejected"
    OOM = "oom"
    DISK_FULL = "disk_full"
    HEALTH_TIMEOUT = "health_timeout"
    DEADLINE = "deadline"
    CONFIG_REJECTED = "config_rejected"
    VERSION_SKEW = "version_skew"
    ENGINE_ERROR = "engine_error"
    STORE_UNAVAILABLE = "store_unavailable"
    RUNTIME_LOST = "runtime_lost"
    EVICTED = "evicted"
    IDLE = "idle"
    EXPIRED = "expired"
    REQUESTED = "requested"


@dataclass(frozen=True)
class Why:
    """The reason with all that a person needs to act on it."""

    reason: Reason
    message: str
    hint: str = ""
    retryable: bool = False
    step: str = ""  #: the provisioning step that failed, empty when none did
    log_tail: tuple[str, ...] = ()  #: the runtime's last log lines, redacted


def cause_of(why: Why) -> dict[str, Any]:
    """Why a runtime is not there, as problem documents and records tell it."""
    return {
        "reason": why.reason,
        "message": why.message,
        "hint": why.hint,
        "retryable": why.retryable,
        "step": why.step or None,
        "log_tail": list(last_lines(why)),
    }


class StartFailed(PermanentError):
    """A step of provisioning failed in a way that another try now would not mend; `why` is what is told."""

    code = "start_failed"

    def __init__(self, why: Why) -> None:
        super().__init__(why.message, hint=why.hint)
        self.why = why


REQUESTED = Why(Reason.REQUESTED, "asked for by a caller")


FAILURES_KEPT = 10  #: the last ones of a conversation
_KEPT_LINES, _KEPT_CHARACTERS = 20, 500


@dataclass(frozen=True)
class Failure:
    """One failure of a conversation's past, kept when its runtime is gone and when it started again."""

    at: datetime
    why: Why
    generation: int
    attempt: int
    restarted: bool = False  #: it started again by itself


@dataclass(frozen=True)
class ForkOf:
    """Of which conversation of the tenant a fork goes on, and how many events of its log it takes; of which snapshot,
    or (None) with the workspace that its runtime kept of that event, or as it is when it is copied."""

    conversation: ConversationId
    events: int
    snapshot: SnapshotId | None = None
    of_event: bool = False  #: the workspace is the one that the runtime kept


@dataclass(frozen=True)
class StartRequest:
    """What the caller asked for; stored with the record, so that any replica can start it. Secrets travel sealed."""

    repository: str | None = None
    branch: str | None = None
    git_provider: str | None = None
    initial_message: str | None = None
    image: str | None = None
    size: int = 1  #: of `spares.SIZES`
    sealed_overrides: str = ""  #: what this request alone brings (`services/overrides.py`), sealed; empty: nothing
    has_start_body: bool = False  #: among it the agent server's own body, from a client that knows that API
    fork_of: ForkOf | None = None  #: what its first start copies; the repository is in the workspace then


@dataclass(frozen=True)
class Held:
    """The configuration that a runtime took: by its generation in the store and a digest under the runtime's own key.
    Empty: not known, so that it is pushed again."""

    generation: str
    digest: str
    at: datetime
    secrets: tuple[str, ...] = ()  #: names that were put there by us, so that a removed one can be removed
    providers: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()  #: JSON pointers into the runtime's settings
    seen: Seen | None = None  #: what the runtime said of it then; None: not known


@dataclass(frozen=True)
class PushTrouble:
    """Why the wanted configuration is not in the runtime yet."""

    problem: str
    tries: int
    retry_at: datetime


@dataclass(frozen=True)
class RuntimeRecord:
    """What is stored about the runtime of a conversation. Keys are sealed text (`security/envelope.py`)."""

    id: RuntimeId
    generation: int
    handle: str = ""  #: the driver's serialised reference, empty until `create` answered
    address: str = ""  #: host:port where the runtime listens, empty until started
    session_key_hash: str = ""  #: SHA-256 hex, for the proxy's look-up
    session_key_sealed: str = ""
    inner_key_sealed: str = ""
    state_key_sealed: str = ""  #: the key under which the runtime keeps its own state, the same for every generation
    started_at: datetime | None = None  #: when the present generation became ready
    held: Held | None = None  #: None until its first configuration
    public_port: int = 0  #: this runtime's own listener on the orchestrator, 0 for none
    spare: str = ""  #: the name of the spare that the present generation is, empty for one that was made for it
    volume: RuntimeId | None = (
        None  #: under which id its storage is filed: that of the spare it began as; None: its own
    )


@dataclass(frozen=True)
class Conversation:
    """The durable thing a user asks for; it survives its runtimes. A bare runtime has a record of the same form, whose
    id is that of its runtime."""

    id: ConversationId
    tenant: TenantId
    user: UserId | None
    request: StartRequest
    created_at: datetime
    updated_at: datetime
    phase_since: datetime
    phase: Phase = Phase.PENDING
    desired: Desired = Desired.RUNNING
    why: Why = REQUESTED
    title: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    runtime: RuntimeRecord | None = None
    image: Pin | None = None  #: None until it is known, and where runtimes have no images
    operation: OperationId | None = None
    attempt: int = 0
    failures: tuple[Failure, ...] = ()  #: the last ones, the latest last
    archived_at: datetime | None = None  #: its workspace is gone, its record and log are kept
    purge_at: datetime | None = None  #: deleted by then for good; until then it can be undone
    purging: bool = False  #: nothing brings it back any more
    restart_at: datetime | None = None  #: it died and starts again by itself then
    key: KeyId | None = None  #: the API key that asked for the present start, counted with it
    trace: str = ""  #: in which the present operation was asked for (`domain/tracing.py`), empty where nobody did
    trouble: PushTrouble | None = None  #: a change of its configuration could not be pushed so far
    drift: Drift | None = None  #: the last change of its configuration that somebody made in the runtime
    links: tuple[Link, ...] = ()  #: that its callers made to it, also those that expired
    was_ready: bool = False  #: it was ready once, so its volume holds work
    kind: Kind = Kind.CONVERSATION
    name: str = ""  #: of a bare runtime: the only one of its user that has it, unless deleted; empty: none
    version: int = 1
    fence: int = 0


def name_of(conversation: Conversation) -> str:
    """Under what its tenant knows its name, by user; empty where it has none."""
    return f"{conversation.user or ''}/{conversation.name}" if conversation.name else ""


def advance(conversation: Conversation, to: Phase, *, why: Why, now: datetime) -> Conversation:
    """The same conversation in phase `to`, one version on. Raises `IllegalTransition`."""
    if to not in TRANSITIONS[conversation.phase]:
        raise IllegalTransition(f"a conversation that is {conversation.phase} cannot become {to}")
    return replace(conversation, phase=to, why=why, phase_since=now, updated_at=now, version=conversation.version + 1)


def fail(conversation: Conversation, why: Why, *, now: datetime) -> Conversation:
    """The same conversation, failed, with the failure kept. Raises `IllegalTransition`."""
    return replace(advance(noted(conversation, why, now=now), Phase.FAILED, why=why, now=now), restart_at=None)


def last_lines(why: Why) -> tuple[str, ...]:
    """The last 20 lines of the runtime's log, of 500 characters at most: what is kept and told of them."""
    return tuple(line[:_KEPT_CHARACTERS] for line in why.log_tail[-_KEPT_LINES:])


def noted(conversation: Conversation, why: Why, *, now: datetime, restarted: bool = False) -> Conversation:
    """With `why` as its latest failure, of which a runtime cannot make more than a few lines."""
    generation = conversation.runtime.generation if conversation.runtime is not None else 0
    failure = Failure(now, replace(why, log_tail=last_lines(why)), generation, conversation.attempt, restarted)
    return replace(conversation, failures=(*conversation.failures, failure)[-FAILURES_KEPT:])


#: Reasons for which policy puts a conversation to rest that nobody uses: who comes in the last moment keeps it.
UNUSED = frozenset({Reason.IDLE, Reason.EVICTED})
#: Reasons for which policy puts a conversation to rest; its next use brings it back.
BY_POLICY = UNUSED | {Reason.LIMIT}


def put_to_rest(conversation: Conversation) -> bool:
    """Whether policy gave the reason that stands in its record, and nobody asked for anything else since."""
    wanted = conversation.desired is Desired.RUNNING and conversation.archived_at is None
    if conversation.phase is Phase.FAILED:  # a start that a limit kept from its place
        return False
    return wanted and conversation.why.reason in BY_POLICY
