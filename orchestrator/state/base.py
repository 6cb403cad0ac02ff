"""What the stores promise. Services call these and know no Redis; `memory/` passes the same conformance suite.

Everything of a tenant is kept under keys that start with the tenant, so that one script can check limits and write
records together. Times are the store's own clock in milliseconds where leases are concerned. All methods raise
`StoreUnavailable` when the state server does not answer in time; a write that answered is durable (`Durability`).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from orchestrator.domain.admission import Ask
from orchestrator.domain.audit import AuditEntry
from orchestrator.domain.conversation import Conversation, Kind, Why
from orchestrator.domain.ids import ConversationId, KeyId, OperationId, RuntimeId, TenantId, UserId
from orchestrator.domain.operation import Operation, OperationState, Stage
from orchestrator.domain.rates import Rate, Taken
from orchestrator.domain.tenancy import ApiKey, Tenant, User
from orchestrator.state.audit import Telling
from orchestrator.state.hooks_base import Hooks
from orchestrator.state.lease import Lease
from orchestrator.state.slots_base import Slots
from orchestrator.state.spares_base import Spares

__all__ = ["Hooks", "Lease", "Slots", "Spares"]  # kept in files of their own, and part of what the stores promise
T = TypeVar("T")
Sealed = str  #: text of `security/envelope.py`, never a value in the clear
OPERATION_TTL_MS = 24 * 3600 * 1000  #: how long an operation can be read after it ended


@dataclass(frozen=True)
class Page(Generic[T]):
    items: Sequence[T]
    next_cursor: str | None


@dataclass(frozen=True)
class StoredSecret:
    name: str
    description: str | None
    sealed: Sealed
    version: int


@dataclass(frozen=True)
class StoredProvider:
    name: str
    host: str | None
    user_id: str | None
    sealed: Sealed
    version: int


@dataclass(frozen=True)
class Message:
    """One entry of a conversation's inbox. `sequence` counts from 1 in the inbox."""

    sequence: int
    client_id: str
    content: str  #: JSON text
    delivered: bool  #: the runtime has it on its disk
    accepted: int | None = None  #: the number that it has in the event log, once it is there
    undeliverable: bool = False  #: its conversation was archived before it could be delivered


#: How the id of the mark of a gap begins. With its space it can be no runtime's event.
GAP = "gap "


@dataclass(frozen=True)
class StoredEvent:
    """One event of the conversation: `sequence` = 1 + its index in the runtime's own log; `payload` is JSON text. Or
    the mark of a gap, which stands for the numbers from `first` to `sequence` that will never come; for an event
    they are the same."""

    sequence: int
    id: str
    payload: str
    is_message: bool = field(default=False, compare=False)  #: of the user; said when it is appended, and not kept
    first: int = 0  #: filled in

    def __post_init__(self) -> None:
        if not self.first:
            object.__setattr__(self, "first", self.sequence)

    @property
    def is_gap(self) -> bool:
        return self.first < self.sequence or self.id.startswith(GAP)


@dataclass(frozen=True)
class HeldEvents:
    """How much of a log the state server holds: the end of it, without a hole; nothing, where all is archived."""

    events: int
    size: int  #: bytes of their payloads
    last: int  #: the last sequence of the log, 0 for none
    archived: int | None  #: up to where the archive reached when this server last heard; None when it never did


@dataclass(frozen=True)
class Replay:
    """The stored answer of an earlier request with the same idempotency key."""

    request_digest: str
    status: int
    body: str  #: JSON text; empty while the first request is still being served


class Tenants(Protocol):
    """Tenants, users, and API keys. A key is found by its id on every replica at once."""

    async def add_tenant(self, tenant: Tenant) -> Tenant:
        """Idempotent by id: a tenant that is there is answered instead."""
        ...

    async def change_tenant(self, tenant: Tenant) -> bool:
        """Replace the stored one, whoever else changes it; False when there is none of this id."""
        ...

    async def tenant(self, id: TenantId) -> Tenant | None: ...
    async def list_tenants(self, *, cursor: str | None, limit: int) -> Page[Tenant]: ...
    async def add_user(self, user: User) -> User:
        """Idempotent by id and by `external_id`: an existing user with the same one is answered instead."""
        ...

    async def user(self, tenant: TenantId, id: UserId) -> User | None: ...
    async def list_users(self, tenant: TenantId, *, cursor: str | None, limit: int) -> Page[User]: ...
    async def add_key(self, key: ApiKey) -> None: ...
    async def key(self, id: KeyId) -> ApiKey | None: ...
    async def list_keys(self, tenant: TenantId) -> Sequence[ApiKey]: ...
    async def replace_key(self, present: ApiKey, key: ApiKey) -> bool:
        """Write `key` over `present`, which has its id and tenant; False when that is not what is stored any more."""
        ...

    async def revoke_key(self, tenant: TenantId, id: KeyId) -> bool:
        """Idempotent; False when the tenant has no such key."""
        ...


class Configuration(Protocol):
    """Settings, secrets and git providers by layer. `user` None is the tenant's own layer."""

    async def settings(self, tenant: TenantId, user: UserId | None) -> tuple[Sealed | None, int]:
        """The sealed settings document of the layer and its version (0 when none)."""
        ...

    async def put_settings(
        self, tenant: TenantId, user: UserId | None, sealed: Sealed, *, expected_version: int, review: bool = False
    ) -> bool:
        """Compare-and-set; False when the version differs. `review`: whoever rests and is of this layer is looked at
        again (`Reviews`)."""
        ...

    async def generation(self, tenant: TenantId, user: UserId | None) -> str:
        """Of what a runtime of this user is configured with: another text after every change of the tenant's or the
        user's layer. To be compared, and for nothing else."""
        ...

    async def secret(self, tenant: TenantId, user: UserId | None, name: str) -> StoredSecret | None: ...
    async def secrets(self, tenant: TenantId, user: UserId | None) -> Sequence[StoredSecret]:
        """In the order in which the names first came."""
        ...

    async def put_secret(
        self, tenant: TenantId, user: UserId | None, secret: StoredSecret, *, expected_version: int
    ) -> bool:
        """Compare-and-set on the version of this name (0: must not exist). `secret.version` is the new one."""
        ...

    async def delete_secret(self, tenant: TenantId, user: UserId | None, name: str) -> bool: ...
    async def providers(self, tenant: TenantId, user: UserId | None) -> Sequence[StoredProvider]: ...
    async def put_provider(
        self, tenant: TenantId, user: UserId | None, provider: StoredProvider, *, expected_version: int
    ) -> bool: ...
    async def delete_provider(self, tenant: TenantId, user: UserId | None, name: str) -> bool: ...
    async def data_key(self, tenant: TenantId, version: int) -> str | None:
        """The tenant's wrapped data key of that version (`security/envelope.py`)."""
        ...

    async def add_data_key(self, tenant: TenantId, version: int, wrapped: str) -> str:
        """Store it unless one is there; answers the one that is stored."""
        ...


class Conversations(Protocol):
    """Records, the due index, and the fenced lease.

    A fresh record is due at once; a claimed one is due when its lease ends; `settle` says when it is due next.
    """

    async def create(self, conversation: Conversation, *, ask: Ask | None = None) -> Conversation:
        """Write the record, the list index, the start intent and, with `ask`, its slot or place in the queue in one
        step. An id that exists answers the stored record; a name that its user has given already, to one that is not
        deleted, answers that one's. Raises `LimitReached` as `ask` says; then nothing is
        written. Without `ask` a record whose runtime runs is counted and never refused."""
        ...

    async def get(self, tenant: TenantId, id: ConversationId) -> Conversation | None: ...
    async def list(
        self,
        tenant: TenantId,
        *,
        user: UserId | None,
        cursor: str | None,
        limit: int,
        kind: Kind | None = None,
    ) -> Page[Conversation]:
        """Newest first by creation; of one kind, or of all (None). A page of conversations is short where bare runtimes
        were made among them."""
        ...

    async def named(self, tenant: TenantId, user: UserId | None, name: str) -> Conversation | None:
        """The bare runtime that has this name of this user, or had it last."""
        ...

    async def request(
        self,
        conversation: Conversation,
        *,
        expected_version: int,
        ask: Ask | None = None,
        replaces: OperationId | None = None,
    ) -> bool:
        """Store a caller's change (desired state, labels, title) without a lease and make it due now. Compare-and-set
        on the version; phase, runtime and fence are never written. The stored version is the expected one + 1. With
        `ask`, for a start, as `create`; a desired state other than running takes back a start not begun. `replaces`:
        the operation which the conversation had; where it has not ended it fails, in the same step. Raises `Conflict`
        for one that is not to be deleted any more and whose name another one has."""
        ...

    async def claim_due(self, owner: str, *, lease_ms: int, limit: int) -> Sequence[tuple[Lease, Conversation]]:
        """Take the lease of conversations that are due and not leased, each with a fence higher than ever before."""
        ...

    async def claim(
        self, tenant: TenantId, id: ConversationId, owner: str, *, lease_ms: int
    ) -> tuple[Lease, Conversation] | None:
        """The same for one conversation, due or not; None while anybody holds it (this owner too) or it is gone."""
        ...

    async def renew(self, lease: Lease, *, lease_ms: int) -> bool:
        """False when the lease is lost."""
        ...

    async def save(self, lease: Lease, conversation: Conversation, *, expected_version: int) -> Conversation:
        """Store the record if the lease's fence is still the highest and the version matches. Desired state, labels and
        title are the stored ones, never overwritten. Answers what is stored. Raises `LeaseLost`; a version mismatch
        under a live lease raises `PreconditionFailed`: `get` and try again. The stored version is the expected + 1."""
        ...

    async def settle(self, lease: Lease, *, due_in_ms: int | None) -> None:
        """Give the lease back; due again in `due_in_ms`, or not until asked (None). A request that arrived meanwhile
        keeps the record due now. A lost lease is fine."""
        ...

    async def remove(self, lease: Lease) -> None:
        """Remove the record and everything of it (inbox, events, saga). Raises `LeaseLost`. Its operations can be read
        for their 24 hours."""
        ...

    async def poke(self, tenant: TenantId, id: ConversationId) -> None:
        """Make it due now: something of it changed outside. One that is gone is fine."""
        ...

    async def next_due_ms(self) -> int | None:
        """Milliseconds until something is due (0: now), None when nothing is. May be early."""
        ...

    async def touch(self, tenant: TenantId, id: ConversationId) -> int:
        """Note that it is in use now (store clock). Not a change of the record: version and due time stay. Answers the
        record's version, 0 for one that is gone."""
        ...

    async def unused_ms(self, tenant: TenantId, id: ConversationId) -> int | None:
        """Milliseconds since the last `touch`; None when there was none, or it is gone."""
        ...

    async def put_route(
        self, runtime: RuntimeId, tenant: TenantId, conversation: ConversationId, *, ttl_ms: int | None = None
    ) -> None:
        """Runtime id -> conversation, outside of the tenant's slot. Written before the record and for `ttl_ms`, since
        the record may never come; by its worker for good (None)."""
        ...

    async def route(self, runtime: RuntimeId) -> tuple[TenantId, ConversationId] | None: ...
    async def drop_route(self, runtime: RuntimeId) -> None: ...
    async def add_sleeper(self, runtime: RuntimeId) -> None:
        """Remember that a use of this runtime's own port wakes its conversation, whose runtime is being removed."""
        ...

    async def sleepers(self) -> Sequence[RuntimeId]:
        """All that were added. Some may have been woken since: their records say so."""
        ...

    async def drop_sleeper(self, runtime: RuntimeId) -> None:
        """Added never or dropped already: fine. `drop_route` does it too."""
        ...

    async def unclaimed(self) -> frozenset[str]:
        """Names of runtimes that were found after a loss and belong to no record that could be rebuilt."""
        ...


class Presence(Protocol):
    """Which replicas are there. A hint for sharing work, and no right to anything."""

    async def renew(self, replica: str, *, ttl_ms: int) -> Sequence[str]:
        """This one is there for the next `ttl_ms`. Answers all that are, itself included."""
        ...

    async def leave(self, replica: str) -> None:
        """It is not there any more. Unknown: fine."""
        ...

    async def take(self, what: str, *, ttl_ms: int) -> bool:
        """Whether the caller is the first within `ttl_ms` who wants to do this: then it does, and others let it be."""
        ...


class Buckets(Protocol):
    """How many calls of the API a key and a tenant have left. Nothing of it outlives the server."""

    async def take(self, tenant: TenantId, rates: Sequence[tuple[KeyId | None, Rate]], *, wanted: int) -> Taken:
        """Tokens out of all of these buckets at once, `wanted` at most: each of a key of this tenant, or (None) of all
        of its keys together. Every rate is above 0."""
        ...


@dataclass(frozen=True)
class Told:
    """What is told of a start in its operation along with an entry of its log. An operation that was forgotten, or that
    has no such stage, hears nothing."""

    operation: OperationId
    stages: Sequence[Stage]


class SagaLog(Protocol):
    """Which steps of the present start may have run. Written before the step runs; fenced. `told` goes with it in one
    call: each write waits for a disk."""

    async def started(self, lease: Lease, step: str, *, note: str = "", told: Told | None = None) -> None:
        """`note` is what undo needs and is known before the step runs, such as the name it will claim."""
        ...

    async def undone(self, lease: Lease, step: str) -> None: ...
    async def stuck(self, lease: Lease, step: str, message: str) -> None: ...
    async def attempted(self, tenant: TenantId, id: ConversationId) -> Sequence[tuple[str, str, str | None]]:
        """(step, note, stuck message) of steps not undone, in the order in which they began."""
        ...

    async def clear(self, lease: Lease, *, told: Told | None = None) -> None: ...


class Operations(Protocol):
    async def create(self, operation: Operation) -> None: ...
    async def get(self, tenant: TenantId, id: OperationId) -> Operation | None: ...
    async def stage(self, tenant: TenantId, id: OperationId, stage: Stage) -> None:
        """Replace the stage of that name. Raises `NotFound`, also for a stage that the operation was made without."""
        ...

    async def forget(self, tenant: TenantId, id: OperationId) -> None:
        """Remove one that came to nothing, such as that of a start that was refused. Gone already: fine."""
        ...

    async def finish(
        self, tenant: TenantId, id: OperationId, state: OperationState, *, failure: Why | None = None
    ) -> None:
        """Once (the first end counts); kept 24 hours after. Raises `NotFound`."""
        ...


class Inbox(Protocol):
    """Messages on their way to the agent, in order, each exactly once by `client_id`."""

    async def put(self, tenant: TenantId, id: ConversationId, *, client_id: str, content: str, limit: int) -> Message:
        """Append and make the conversation due now; a known `client_id` answers the stored message. Raises `NotFound`,
        and `LimitReached` when `limit` messages wait."""
        ...

    async def waiting(self, tenant: TenantId, id: ConversationId, *, limit: int) -> Sequence[Message]: ...
    async def page(self, tenant: TenantId, id: ConversationId, *, after: int, limit: int) -> Sequence[Message]:
        """Those above `after`, oldest first, whatever became of them."""
        ...

    async def find(self, tenant: TenantId, id: ConversationId, client_id: str) -> Message | None: ...
    async def delivered(self, lease: Lease, sequence: int) -> None: ...


class Events(Protocol):
    """The end of the conversation's event log, numbered as the runtime's own. What is before it is in the archive
    (`event_archive/`): nothing is taken out that is not there."""

    @property
    def confirmed(self) -> bool:
        """Whether what was appended survives what the store promises to survive. Where it does not, it has to be in the
        archive before somebody forgets it."""
        ...

    async def append(self, tenant: TenantId, id: ConversationId, events: Sequence[StoredEvent]) -> int:
        """Append those that come next, drop those already there, stop at a gap. Answers the last sequence kept.
        Raises `NotFound` when there is no such conversation: a late batch leaves nothing behind."""
        ...

    async def last(self, tenant: TenantId, id: ConversationId) -> StoredEvent | None:
        """The last event that is held."""
        ...

    async def read(self, tenant: TenantId, id: ConversationId, *, after: int, limit: int) -> Sequence[StoredEvent]:
        """Of what is held: the first may be far above `after`."""
        ...

    async def held(self, tenant: TenantId, id: ConversationId) -> HeldEvents: ...
    async def resume(self, tenant: TenantId, id: ConversationId, archived: StoredEvent | None) -> None:
        """The archive's last event is this one. Where nothing behind it is held, go on from it, which is held again.
        Raises `NotFound`."""
        ...

    async def trim(self, tenant: TenantId, id: ConversationId, *, archived: int, events: int, size: int) -> None:
        """The archive reaches to `archived`: let go of what it has, but for the last event and as many before it as are
        within both bounds; with `events` 0 of all that it has. Raises `NotFound`."""
        ...


class Changes(Protocol):
    """Which conversations changed, on whatever replica. Hints: some may be lost, so whoever waits also looks again."""

    def listen(self) -> AsyncIterator[ConversationId]:
        """For as long as it is read. Raises `StoreUnavailable` when the connection ends."""
        ...


class Idempotency(Protocol):
    """Answers kept under (tenant or operator, method, path, key). Who serves a request holds its key under a name of
    its own, for as long as it renews it: so a holder that died is followed by the next repeat, and one that slept too
    long changes nothing of its follower's."""

    async def begin(self, scope: str, key: str, digest: str, *, holder: str, ttl_ms: int) -> Replay | None:
        """None: the caller is first, and holds the key for `ttl_ms`. Otherwise what is stored."""
        ...

    async def renew(self, scope: str, key: str, *, holder: str, ttl_ms: int) -> None:
        """For so long again, from now. Held by nobody or by another: nothing."""
        ...

    async def finish(
        self, scope: str, key: str, digest: str, *, holder: str, status: int, body: str, ttl_ms: int
    ) -> None:
        """Keep the answer for `ttl_ms`. Can be repeated. Held by another meanwhile: nothing."""
        ...

    async def abandon(self, scope: str, key: str, *, holder: str) -> None:
        """Let a repeat be served anew. An answer that is kept stays, and what another holds."""
        ...


class Reviews(Protocol):
    """Looking again at all conversations at rest of a tenant or user, because the times of the clock changed."""

    async def ask(self, tenant: TenantId, user: UserId | None) -> None:
        """From the beginning; one under way begins anew. `user` None: all of the tenant's."""
        ...

    async def ask_all(self, reason: str) -> bool:
        """Of every tenant; False, and nothing is done, when it was asked for this `reason` last."""
        ...

    async def step(self) -> int | None:
        """Make due whoever rests on the next page; answers how many. None when nothing is asked for, or others are at
        it."""
        ...


class AuditLog(Protocol):
    """What was asked for, and by whom. Changes carry their entry along themselves (`state/audit.py`)."""

    async def put(self, tenant: TenantId | None, told: Telling, *, again: bool = False, durable: bool = False) -> None:
        """Write the entry of a request unless it is there; `again`: in the place of the one that is there. `tenant`
        None: of what belongs to no tenant. Can be repeated."""
        ...

    async def page(
        self,
        tenant: TenantId | None,
        *,
        cursor: str | None,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Page[AuditEntry]:
        """Newest first; `since` included, `until` not. A page may hold fewer than there are members in it."""
        ...


class Store(Protocol):
    """All of it, as `app.py` makes it once."""

    @property
    def tenants(self) -> Tenants: ...
    @property
    def configuration(self) -> Configuration: ...
    @property
    def conversations(self) -> Conversations: ...
    @property
    def reviews(self) -> Reviews: ...
    @property
    def slots(self) -> Slots: ...
    @property
    def spares(self) -> Spares: ...
    @property
    def presence(self) -> Presence: ...
    @property
    def buckets(self) -> Buckets: ...
    @property
    def saga(self) -> SagaLog: ...
    @property
    def operations(self) -> Operations: ...
    @property
    def inbox(self) -> Inbox: ...
    @property
    def events(self) -> Events: ...
    @property
    def hooks(self) -> Hooks: ...
    @property
    def changes(self) -> Changes: ...
    @property
    def idempotency(self) -> Idempotency: ...
    @property
    def audit(self) -> AuditLog: ...

    async def check(self) -> Mapping[str, str]:
        """Ask the server what it is; raises `Misconfigured` where it cannot keep what it accepts (eviction policy,
        replica), `StoreUnavailable` when it does not answer. The mapping is for the start-up report: server, version,
        durability."""
        ...

    async def ping(self) -> None: ...
    async def installation(self) -> str:
        """This installation's id, made once."""
        ...

    async def master_check(self, value: str) -> str:
        """Store the check value of the master key unless one is there; answers the stored one."""
        ...

    async def close(self) -> None: ...
