"""The store in this process's memory, for unit tests: the twin of `redis_store.py`, held to the same conformance suite.

Time comes from the `Clock` given, so that tests choose when a lease ends. Every method runs without giving way, so
each is as atomic as one script. Nothing survives the object.
"""

from collections.abc import Mapping, Sequence

from orchestrator.domain.clock import Clock
from orchestrator.domain.ids import TenantId, new_uuid
from orchestrator.state.journal.entry import Entry
from orchestrator.state.memory.audit import MemoryAuditLog
from orchestrator.state.memory.changes import MemoryChanges
from orchestrator.state.memory.configuration import MemoryConfiguration
from orchestrator.state.memory.conversations import MemoryConversations
from orchestrator.state.memory.events import MemoryEvents
from orchestrator.state.memory.hooks import MemoryHooks
from orchestrator.state.memory.idempotency import MemoryIdempotency
from orchestrator.state.memory.inbox import MemoryInbox
from orchestrator.state.memory.operations import MemoryOperations
from orchestrator.state.memory.presence import MemoryPresence
from orchestrator.state.memory.rates import MemoryBuckets
from orchestrator.state.memory.reviews import MemoryReviews
from orchestrator.state.memory.saga_log import MemorySagaLog
from orchestrator.state.memory.shelf import Shelf
from orchestrator.state.memory.slots import MemorySlots
from orchestrator.state.memory.spares import MemorySpares
from orchestrator.state.memory.spending import MemorySpending
from orchestrator.state.memory.tenants import MemoryTenants


class MemoryStore:
    """See `base.Store`. Several may not share anything: give the same object to both replicas of a test."""

    def __init__(self, clock: Clock) -> None:
        self._shelf = Shelf(clock)
        self._installation = new_uuid()
        self._master_check: str | None = None
        self.tenants = MemoryTenants(self._shelf)
        self.configuration = MemoryConfiguration(self._shelf)
        self.conversations = MemoryConversations(self._shelf)
        self.reviews = MemoryReviews(self._shelf)
        self.slots = MemorySlots(self._shelf)
        self.spares = MemorySpares(self._shelf)
        self.presence = MemoryPresence(self._shelf)
        self.buckets = MemoryBuckets(self._shelf)
        self.saga = MemorySagaLog(self._shelf)
        self.operations = MemoryOperations(self._shelf)
        self.inbox = MemoryInbox(self._shelf)
        self.events = MemoryEvents(self._shelf)
        self.spending = MemorySpending(self._shelf)
        self.hooks = MemoryHooks(self._shelf)
        self.changes = MemoryChanges(self._shelf)
        self.idempotency = MemoryIdempotency(self._shelf)
        self.audit = MemoryAuditLog(self._shelf)

    async def check(self) -> Mapping[str, str]:
        return {"server": "memory", "version": "", "durability": "everything is lost with this process"}

    async def ping(self) -> None:
        return None

    async def installation(self) -> str:
        return self._installation

    async def master_check(self, value: str) -> str:
        if self._master_check is None:
            self._master_check = value
        return self._master_check

    async def close(self) -> None:
        return None

    def journal(self, tenant: TenantId) -> Sequence[Entry]:
        """What was noted of a tenant, as the scripts of the Redis store note it."""
        return [entry for owner, entry in self._shelf.journal if owner == tenant]

    def size(self) -> int:
        """How many conversations, operations and answers are kept; a test sees by it that nothing was left behind."""
        return self._shelf.size()
