"""The reconciler: compare what the engine runs with what the records want, and remove what nobody owns.

It never starts anything: a record whose runtime is gone is found by its own round (`tending.py`). It removes only what
carries this installation's label, only after having seen it unowned twice, and only when the engine answered. A spare
of the warm pool has no owner in its labels: whose it is, is asked of the pool's state, before it is called unowned.
"""

from contextlib import suppress
from dataclasses import replace

import anyio
import structlog

from orchestrator.domain.conversation import LIVE_PHASES, Conversation, Phase
from orchestrator.domain.errors import NestorError, Unreadable
from orchestrator.drivers.base import Driver, Walled
from orchestrator.drivers.errors import ClaimTaken
from orchestrator.drivers.values import Handle, OwnerLabels, is_spare
from orchestrator.services.shares import Shares
from orchestrator.services.start import Expose, runtime_name
from orchestrator.state.base import Conversations, Spares
from orchestrator.state.spares_base import SpareState
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
#: Above every fence that a lease can have: what no record knows, no lease can protect.
UNOWNED_FENCE = 2**53
#: A paused runtime keeps its address: who uses it there wakes it.
_LISTENING = frozenset({Phase.READY, Phase.PAUSING, Phase.PAUSED, Phase.RESUMING})


class Reconciler:
    """One `tick` looks once at each runtime that is this replica's share. The engine's list, and what the driver set on
    this machine, are looked at by each replica."""

    def __init__(
        self,
        installation: str,
        driver: Driver,
        conversations: Conversations,
        spares: Spares,
        expose: Expose,
        shares: Shares,
        *,
        period: float = 10.0,
    ) -> None:
        self._spares = spares
        self._shares = shares
        self._installation = installation
        self._driver = driver
        self._conversations = conversations
        self._expose = expose
        self._period = period
        self._suspects: set[str] = set()
        self.problem: str | None = None  #: with the rules that keep runtimes apart, as of the last tick

    async def run(self) -> None:
        """Until cancelled: a tick, then a pause."""
        while True:
            try:
                with metrics.ticking("reconciler"):
                    await self.tick()
            except NestorError as exc:  # also an engine that refuses: it is nothing to end for
                log.warning("reconciler.skipped", problem=exc.message)
            await anyio.sleep(self._period)

    async def tick(self) -> int:
        """Answers how many runtimes it removed. A second tick with nothing changed makes no mutating engine call."""
        await self._shares.renew()
        await self._mend()
        suspects: set[str] = set()
        unclaimed = await self._conversations.unclaimed()
        removed = 0
        for handle in await self._driver.list(self._installation):
            if not self._shares.is_mine(handle.name):
                continue
            labels = await labels_of(handle, self._spares)
            if labels is None:
                continue  # the pool's own
            try:
                record = await self._conversations.get(labels.tenant, labels.conversation)
            except Unreadable as exc:  # whoever can read it owns what runs for it
                log.error("record.unreadable", conversation=labels.conversation, problem=exc.message)
                continue
            if _owned(handle.name, labels, record):
                if record is not None and record.phase in _LISTENING:
                    self._expose(record)
            elif handle.name in unclaimed:
                continue  # found after a loss, when nobody could say whose it is: an operator decides
            elif handle.name in self._suspects:
                if await self._shares.may_remove(handle.name):
                    removed += await self._remove(handle, record)
            else:
                suspects.add(handle.name)
        self._suspects = suspects
        return removed

    async def _mend(self) -> None:
        """What the driver set on this machine, should somebody have changed it."""
        if not isinstance(self._driver, Walled):
            return
        try:
            for words in await self._driver.mend():
                log.warning("wall.mended", what=words)
            self.problem = None
        except NestorError as exc:
            log.error("wall.not_mended", problem=exc.message, hint=exc.hint)
            self.problem = f"runtimes may not be kept apart: {exc.message}"

    async def _remove(self, handle: Handle, record: Conversation | None) -> int:
        try:
            await self._driver.destroy(handle, fence=UNOWNED_FENCE)
            if is_spare(handle.labels):
                await self._remove_spare(handle, record)
        except NestorError as exc:
            log.warning("orphan.not_removed", name=handle.name, problem=exc.message)
            return 0
        metrics.ORPHANS.inc()
        log.warning("orphan.removed", name=handle.name, tenant=handle.labels.tenant)
        return 1

    async def _remove_spare(self, handle: Handle, record: Conversation | None) -> None:
        """What else there is of one. Its storage stays where it has become a conversation's."""
        used = record is not None and record.runtime is not None and record.runtime.volume == handle.labels.storage
        if not used:
            with suppress(ClaimTaken):
                await self._driver.remove_volume(handle.labels, fence=UNOWNED_FENCE)
        await self._spares.forget(handle.name)


async def labels_of(handle: Handle, spares: Spares) -> OwnerLabels | None:
    """Whose runtime it is: by its labels, or for a bound spare as the pool's state has it. A spare that the state does
    not know is nobody's; None for one that is the pool's."""
    if not is_spare(handle.labels):
        return handle.labels
    spare = await spares.get(handle.name)
    if spare is None:
        return handle.labels
    if spare.state is not SpareState.BOUND:
        return None
    bound = replace(handle.labels, generation=spare.generation)
    return replace(bound, tenant=spare.tenant, conversation=spare.conversation)


def _owned(name: str, labels: OwnerLabels, record: Conversation | None) -> bool:
    """Whether the record still wants this runtime. A start under way owns what it has claimed: its phase says so."""
    if record is None or record.runtime is None:
        return False
    if record.phase in (Phase.PENDING, Phase.PROVISIONING, Phase.CONFIGURING):
        return labels.generation >= record.runtime.generation
    return record.phase in LIVE_PHASES and name == runtime_name(record, record.runtime.generation)
