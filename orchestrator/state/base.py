"""What the stores promise. Services call these and know no Redis; `memory/` passes the same conformance suite.

Everything of a tenant is kept under keys that start with the tenant, so that one script can check limits and write
records together. Times are the store's own clock in milliseconds where leases are concerned. All methods raise
`StoreUnavailable` when the state server does not answer in time; a write that answered is durable (`Durability`).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchestrator.domain.audit import AuditEntry
from orchestrator.domain.conversation import Why
from orchestrator.domain.ids import ConversationId, KeyId, OperationId, TenantId, UserId
from orchestrator.domain.operation import Operation, OperationState, Stage
from orchestrator.domain.rates import Rate, Taken
from orchestrator.domain.spending import Month, Spent
from orchestrator.state.audit import Telling
from orchestrator.state.conversations_base import Conversations
from orchestrator.state.hooks_base import Hooks
from orchestrator.state.lease import Lease
from orchestrator.state.slots_base import Slots
from orchestrator.state.spares_base import Spares
from orchestrator.state.tenancy_base import Configuration, Tenants
from orchestrator.state.values import (
    EVER,
    GAP,
    OPERATION_TTL_MS,
    Glance,
    HeldEvents,
    Message,
    Page,
    Replay,
    Sealed,
    Span,
    StoredEvent,
    StoredProvider,
    StoredSecret,
)

# Kept in files of their own, and part of what the stores promise.
__all__ = [
    "EVER",
    "GAP",
    "OPERATION_TTL_MS",
    "Configuration",
    "Conversations",
    "Glance",
    "HeldEvents",
    "Hooks",
    "Lease",
    "Message",
    "Page",
    "Replay",
    "Sealed",
    "Slots",
    "Span",
    "Spares",
    "StoredEvent",
    "StoredProvider",
    "StoredSecret",
    "Tenants",
]


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

    async def many(self, tenant: TenantId, id: ConversationId, client_ids: Sequence[str]) -> Sequence[Message | None]:
        """Those, in that order; None for what never came."""
        ...

    async def count(self, tenant: TenantId, id: ConversationId) -> int:
        """How many ever came."""
        ...

    async def find(self, tenant: TenantId, id: ConversationId, client_id: str) -> Message | None: ...
    async def delivered(self, lease: Lease, sequence: int, *, client_id: str | None = None) -> None:
        """It is with the agent. Told to webhooks in the same step, once, if its `client_id` is given. Raises
        `LeaseLost`."""
        ...


class Events(Protocol):
    """The end of the conversation's event log, numbered as the runtime's own. What is before it is in the archive
    (`event_archive/`): nothing is taken out that is not there."""

    @property
    def confirmed(self) -> bool:
        """Whether what was appended survives what the store promises to survive. Where it does not, it has to be in the
        archive before somebody forgets it."""
        ...

    async def append(
        self, tenant: TenantId, id: ConversationId, events: Sequence[StoredEvent], *, at: datetime | None = None
    ) -> int:
        """Append those that come next, drop those already there, stop at a gap. Answers the last sequence kept. What
        those that are kept say of the conversation's use is spent in the month of `at` (None: now), as by
        `Spending.report`.
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


class Spending(Protocol):
    """What conversations used of models, and what their tenants and users spent by that, in each month
    (`domain/spending.py`). Counted in the step in which it is told (`Events.append`, `report`), once."""

    async def report(self, tenant: TenantId, id: ConversationId, spent: Spent, *, at: datetime) -> None:
        """The conversation has used so much in all, as its runtime says beside its log. Less than is known changes
        nothing; more is spent in the month of `at`, and thresholds that it reaches are told to webhooks in the same
        step. Raises `NotFound`."""
        ...

    async def of_conversation(self, tenant: TenantId, id: ConversationId) -> Spent:
        """In all its life; nothing, where there is none."""
        ...

    async def of(self, tenant: TenantId, user: UserId | None, month: Month) -> Spent:
        """By all of the tenant's conversations, or that user's, also those that are gone."""
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

    async def many(self, tenant: TenantId | None, ids: Sequence[str]) -> Mapping[str, AuditEntry]:
        """Those of `ids` that are kept, by their ids."""
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
    def spending(self) -> Spending: ...
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
