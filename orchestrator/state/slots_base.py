"""What the stores promise about slots: the right of a conversation to have a runtime that runs (`domain/admission.py`).

A slot is given in the same step in which a start is written (`Conversations.create` and `request`), so that no burst
can pass a limit. It comes back when the record says that the runtime is paused or stopped, when the record is removed,
and by `release`. Places on the host are counted apart, since they span tenants: held for a while first, confirmed when
the tenant has said yes; what a crash leaves behind ends by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.domain.admission import Ask, Meter, Standing, Verdict
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state.lease import Lease

NOBODY = Standing(Verdict.NONE)
Place = tuple[TenantId, ConversationId]


@dataclass(frozen=True)
class Next:
    """Whose turn it is in a queue of `waiting`: `first` may have a slot, or `standing` says what refuses it."""

    waiting: int
    first: ConversationId | None = None
    standing: Standing = NOBODY


class Slots(Protocol):
    """Of all tenants. Times are the store's own clock."""

    async def standing(self, tenant: TenantId, id: ConversationId) -> Standing:
        """Whether it has a slot, or where in the queue it is."""
        ...

    async def meters(self, tenant: TenantId, ask: Ask) -> tuple[Sequence[Meter], int]:
        """How the rules of `ask` stand, and how many wait whom its budgets do not keep. Changes nothing."""
        ...

    async def take(self, lease: Lease, ask: Ask) -> Standing:
        """For a runtime that is about to run: the slot it was given, or one now, or as `ask` says. Raises
        `LeaseLost`."""
        ...

    async def release(self, lease: Lease, *, asked: bool = False) -> bool:
        """Give up the slot or the place in the queue; False when there was none. A start that a caller asked for and
        no worker has taken up is kept, unless `asked`. Raises `LeaseLost`."""
        ...

    async def queues(self, *, limit: int) -> Sequence[TenantId]:
        """Tenants in whose queue somebody waits, the one that was served longest ago first."""
        ...

    async def served(self, tenant: TenantId) -> None:
        """It goes behind the others."""
        ...

    async def leave(self, tenant: TenantId) -> None:
        """Nobody waits there. Wrong by now: it stays in line."""
        ...

    async def next_waiting(self, tenant: TenantId, ask: Ask) -> Next:
        """The first of the queue whose rules have room; else the first that no budget keeps, or else the first, with
        what refuses it. The user and key of `ask` are each one's own."""
        ...

    async def admit(self, tenant: TenantId, id: ConversationId, ask: Ask) -> Standing:
        """A slot for one that waits, if there still is room; it is due now."""
        ...

    async def oldest(self, tenant: TenantId, *, limit: int) -> Sequence[ConversationId]:
        """Those with a slot, the one that was unused for longest first."""
        ...

    async def evict(self, tenant: TenantId, id: ConversationId, *, hold_ms: int) -> bool:
        """Ask a ready one to make room; False when it is not ready, not wanted to run, or asked already."""
        ...

    async def spare(self, tenant: TenantId, id: ConversationId) -> None:
        """It cannot make room."""
        ...

    async def evictions(self, tenant: TenantId) -> Sequence[ConversationId]:
        """Those that are asked to make room now."""
        ...

    async def hold_host(self, place: Place, *, limit: int, rate: int, window_ms: int, hold_ms: int) -> Standing:
        """A place on the host for `hold_ms`. `HELD`: it had one."""
        ...

    async def confirm_host(self, place: Place, *, ms: int) -> None:
        """It is used, and counts for `ms` unless it is confirmed again."""
        ...

    async def free_host(self, place: Place, *, uncount: bool = False) -> None:
        """Give it back; with `uncount` the start did not happen either."""
        ...
