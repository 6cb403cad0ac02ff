"""What the stores promise about the warm pool: which spares there are, and whose those are that were bound.

A spare is nobody's until `claim` gives it to one conversation; it never becomes anybody else's. Nothing here is under a
tenant's keys, so no script can look at a conversation's lease as well: whoever claims holds that lease, writes the
binding into the record under its fence, and sends nothing to the spare before that is stored.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state.lease import Lease

_NO_TENANT, _NO_CONVERSATION = TenantId(""), ConversationId("")


class SpareState(enum.StrEnum):
    """What a spare is to the pool."""

    MAKING = "making"  #: reserved; somebody starts it
    READY = "ready"  #: it answers, dormant
    BOUND = "bound"  #: it is a conversation's
    LEAVING = "leaving"  #: it is to be removed, and was nobody's
    STRANGE = "strange"  #: it had been told keys that the pool does not know of: left to an operator


@dataclass(frozen=True)
class Spare:
    """One spare as it is stored."""

    name: str
    kind: str
    state: SpareState
    reference: str = ""  #: the engine's own id
    address: str = ""  #: host:port
    tenant: TenantId = _NO_TENANT  #: whose it is, if it is bound
    conversation: ConversationId = _NO_CONVERSATION
    generation: int = 0


@dataclass(frozen=True)
class Claimed:
    """A spare that is a conversation's from now on. `sealed`: its init key, kept nowhere any more."""

    name: str
    reference: str
    address: str
    sealed: str


@dataclass(frozen=True)
class PoolCounts:
    """How the pool stands."""

    making: int
    ready: int
    leaving: int
    bound: int
    hits: int
    misses: int


class Spares(Protocol):
    """Each method is one script or one read."""

    async def reserve(
        self, name: str, kind: str, *, minimum: int, maximum: int, at_once: int, hold_ms: int, pace_ms: int
    ) -> bool:
        """Whether this replica is to make one more: fewer than `minimum` of the kind are there or being made, fewer
        than `maximum` of it exist that are nobody's, those included that leave, fewer than `at_once` are being made,
        and the last one was reserved `pace_ms` ago. It must be ready within `hold_ms`."""
        ...

    async def ready(self, name: str, kind: str, *, reference: str, address: str, sealed: str) -> bool:
        """It can be claimed from now on; False when it took too long and is to be removed."""
        ...

    async def claim(self, lease: Lease, kind: str) -> Claimed | str | None:
        """The spare of that kind which has been ready for longest, bound to the lease's conversation; None when there
        is none. The name of the one that the conversation has already, if it has one: that has to go first."""
        ...

    async def get(self, name: str) -> Spare | None: ...
    async def bound_to(self, tenant: TenantId, conversation: ConversationId) -> Spare | None: ...
    async def kinds(self) -> Sequence[str]:
        """Kinds of which there may be spares that are nobody's."""
        ...

    async def waiting(self, kind: str) -> Sequence[str]:
        """Names of the ready ones, the oldest first."""
        ...

    async def retire(self, kind: str, *, keep: int, made_too: bool = False) -> int:
        """Have those removed that were not ready in time, and of the ready ones all but `keep`; with `made_too` also
        those that are being made. Answers how many."""
        ...

    async def drop(self, name: str, kind: str) -> bool:
        """Have one removed; False when it is nobody's no more."""
        ...

    async def leaving(self) -> Sequence[str]: ...
    async def forget(self, name: str) -> None:
        """It is gone, whatever it was. Idempotent."""
        ...

    async def set_aside(self, name: str) -> None:
        """It is not to be used, and nobody knows enough of it to remove it."""
        ...

    async def counts(self) -> PoolCounts: ...
