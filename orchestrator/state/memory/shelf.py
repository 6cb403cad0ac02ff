"""What the parts of the memory store share: the conversations with everything that goes when they go, and the time."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from anyio import BrokenResourceError, WouldBlock
from anyio.streams.memory import MemoryObjectSendStream

from orchestrator.domain.audit import head_of, tail_of
from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import Conversation, Why
from orchestrator.domain.hooks import Draft
from orchestrator.domain.ids import ConversationId, OperationId, TenantId, UserId
from orchestrator.domain.operation import Operation, OperationState
from orchestrator.domain.spending import NOTHING, Spent
from orchestrator.domain.tenancy import Tenant
from orchestrator.state import records
from orchestrator.state.audit import Telling, carried_to, current
from orchestrator.state.base import OPERATION_TTL_MS, Lease, Message, Replay, StoredEvent
from orchestrator.state.journal.entry import Entry
from orchestrator.state.memory.ledger import Slot, Start
from orchestrator.state.memory.outbox import Outbox
from orchestrator.state.memory.spending import Ledger
from orchestrator.state.refusals import lease_lost, no_conversation

_UNTOLD = frozenset({"operation", "data_key", "delivered", "used", "spent"})  #: as in `journal.lua`


@dataclass
class Place:
    """One conversation with its lease, due time, slot, saga, inbox and events."""

    conversation: Conversation
    due_ms: int | None
    owner: str | None = None
    until_ms: int = 0
    poked: bool = False
    used_ms: int | None = None
    slot: Slot = field(default_factory=Slot)
    saga: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    events: list[StoredEvent] = field(default_factory=list)
    archived: int | None = None  #: up to where the archive of events reaches
    running_operations: set[OperationId] = field(default_factory=set)
    used: Spent = NOTHING  #: what its runtimes say that it has used

    def holds(self, lease: Lease) -> bool:
        return self.owner == lease.owner and self.conversation.fence == lease.fence

    def poke(self, now_ms: int) -> None:
        """Due now; under a lease, remembered for its end as well."""
        if self.owner is not None:
            self.poked = True
        if self.until_ms <= now_ms:
            self.due_ms = now_ms


class Shelf:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.places: dict[tuple[TenantId, ConversationId], Place] = {}
        #: With the time at which each goes, None while it runs.
        self.operations: dict[tuple[TenantId, OperationId], tuple[Operation, int | None]] = {}
        self.starts: dict[TenantId, list[Start]] = {}
        #: what is kept, who holds or held it, until when
        self.answers: dict[tuple[str, str], tuple[Replay, str, int]] = {}
        #: What the scripts of the Redis store note in the tenant's stream: (tenant, entry).
        self.journal: list[tuple[TenantId, Entry]] = []
        #: Whose conversations at rest are to be looked at again, in order.
        self.reviews: dict[tuple[TenantId, UserId | None], None] = {}
        #: Entries by their members of the index.
        self.audits: dict[TenantId | None, dict[str, str]] = {}
        self.outboxes: dict[TenantId, Outbox] = {}
        self.tenants: dict[TenantId, Tenant] = {}
        #: By tenant, user (None: all of the tenant's) and name of the month.
        self.ledgers: dict[tuple[TenantId, UserId | None, str], Ledger] = {}
        self.listeners: set[MemoryObjectSendStream[ConversationId]] = set()

    def tell(self, id: ConversationId) -> None:
        """It changed."""
        for listener in self.listeners:
            with suppress(WouldBlock, BrokenResourceError):  # a hint
                listener.send_nowait(id)

    def publish(self, tenant: TenantId, lane: str, drafts: Sequence[Draft]) -> None:
        """Told to the tenant's webhooks, if it has any."""
        if tenant in self.outboxes:
            self.outboxes[tenant].publish(lane, drafts, self.now_ms())

    def note(self, tenant: TenantId, kind: str, id: str, body: str | None) -> None:
        """A change of one object, or its removal (None), and in the same step whose request it was."""
        self.journal.append((tenant, Entry(kind, id, body)))
        if kind not in _UNTOLD and carried_to(tenant) and (told := current()) is not None:
            self.tell_of(tenant, told, tail_of(kind, id))

    def tell_of(self, tenant: TenantId | None, told: Telling, tail: str, *, again: bool = False) -> None:
        """As `audit.lua`."""
        kept = self.audits.setdefault(tenant, {})
        if told.member in kept and not again:
            return
        kept[told.member] = head_of(told.entry) + tail
        if tenant is not None:
            self.journal.append((tenant, Entry("audit", told.entry.id, kept[told.member])))
        surplus = len(kept) - told.keep.entries
        for place, member in enumerate(sorted(kept)[:4], start=1):
            if place <= surplus or member < told.oldest:
                del kept[member]
                if tenant is not None:
                    self.journal.append((tenant, Entry("audit", member[14:], None)))

    def note_conversation(self, conversation: Conversation) -> None:
        """The whole of it."""
        parts = records.conversation_parts(conversation)
        self.note(conversation.tenant, "conversation", conversation.id, json.dumps([parts[p] for p in records.PARTS]))

    def now(self) -> datetime:
        return self._clock.now()

    def now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    def end_operation(self, tenant: TenantId, id: OperationId, state: OperationState, failure: Why | None) -> None:
        """End one that runs; it is kept for its time from now on."""
        operation, _ = self.operations.get((tenant, id), (None, None))
        if operation is None or operation.state is not OperationState.RUNNING:
            return
        updated = datetime.fromtimestamp(self.now_ms() / 1000, UTC)
        ended = replace(operation, state=state, failure=failure, updated_at=updated)
        self.operations[tenant, id] = (ended, self.now_ms() + OPERATION_TTL_MS)
        self.note(tenant, "operation", id, None)
        place = self.places.get((tenant, operation.conversation))
        if place is not None:
            place.running_operations.discard(id)

    def place(self, tenant: TenantId, id: ConversationId) -> Place:
        """Raises `NotFound`."""
        found = self.places.get((tenant, id))
        if found is None:
            raise no_conversation()
        return found

    def held(self, lease: Lease) -> Place:
        """The place of a lease that is not lost. Raises `LeaseLost`."""
        found = self.places.get((lease.tenant, lease.conversation))
        if found is None or not found.holds(lease):
            raise lease_lost(lease)
        return found

    def sweep(self) -> None:
        """Let go of what had its time."""
        now = self.now_ms()
        self.operations = {key: kept for key, kept in self.operations.items() if kept[1] is None or kept[1] > now}
        self.answers = {key: kept for key, kept in self.answers.items() if kept[2] > now}

    def size(self) -> int:
        self.sweep()
        return len(self.places) + len(self.operations) + len(self.answers)
