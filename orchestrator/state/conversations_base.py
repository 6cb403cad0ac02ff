"""What the stores promise of conversations and bare runtimes: records, lists, the due index, leases and routes."""

from collections.abc import Callable, Sequence
from typing import Protocol

from orchestrator.domain.admission import Ask
from orchestrator.domain.conversation import Conversation, Kind
from orchestrator.domain.ids import ConversationId, OperationId, RuntimeId, TenantId, UserId
from orchestrator.state.lease import Lease
from orchestrator.state.values import EVER, Glance, Page, Span


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
        span: Span = EVER,
        oldest_first: bool = False,
        where: Callable[[Glance], bool] | None = None,
    ) -> Page[Conversation]:
        """Newest first by creation; of one kind, or of all (None). `limit` entries of the list are looked at, so a page
        is short where bare runtimes were made among conversations, and by those that are not `where`."""
        ...

    async def many(self, tenant: TenantId, ids: Sequence[ConversationId]) -> Sequence[Conversation | None]:
        """In that order; None for one that is not there, or cannot be read."""
        ...

    async def glances(
        self,
        tenant: TenantId,
        *,
        user: UserId | None,
        cursor: str | None,
        limit: int,
        kind: Kind,
        span: Span = EVER,
    ) -> Page[Glance]:
        """As `list`, newest first, for counting."""
        ...

    async def size(self, tenant: TenantId, *, user: UserId | None, kind: Kind, span: Span = EVER) -> int:
        """How many `list` would answer in all, at the same cost however many they are."""
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

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> Sequence[bool | None]:
        """Of each, in their order: True when it runs from now again, False when it is lost, None where the store
        refused that one alone, as a damaged record: it may be tried again, and costs the others nothing. For none
        of them it only sees to it that there is a connection: on a slow server that takes longer than a renewal."""
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
