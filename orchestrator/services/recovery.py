"""A state server that came back empty, or older than what was accepted: noticed, and mended by one replica while the
others wait.

At a start `at_start` comes before anything is read from the server, and `adopt` before anything is served; later `run`
does both when the store notices that the epoch is gone, or that a connection leads to another run of a server. Until it
is known that nothing is missing every call to the store raises `StateLost`, so nothing is claimed, and the proxy goes
on with the routes that it has.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import anyio
import structlog

from orchestrator.domain.clock import Clock
from orchestrator.domain.errors import DriverUnavailable, StoreUnavailable
from orchestrator.domain.ids import TenantId
from orchestrator.drivers.base import Driver
from orchestrator.nested.client import RuntimeClients
from orchestrator.security.envelope import Envelope, MasterKeys
from orchestrator.services.keys import KeyRing
from orchestrator.services.rebuild import Rebuild, Totals
from orchestrator.state.journal.archive import DamagedArchive
from orchestrator.state.journal.folded import Folded
from orchestrator.state.journal.restoring import Restoring
from orchestrator.state.keys import HOUSE

log = structlog.get_logger(__name__)
_LOOK_SECONDS = 1.0
_WAIT_SECONDS = 0.1
_RETRY_SECONDS = 2.0


class Guarded(Protocol):
    """The store, as far as it is told which epoch is the present one, and on which run of which server."""

    def guard(self, epoch: str, server: str, on_loss: Callable[[], None]) -> None: ...


class Recovery:
    """One replica's part in it."""

    def __init__(
        self,
        restoring: Restoring,
        store: Guarded,
        master: MasterKeys,
        clock: Clock,
        *,
        owner: str,
        alone: bool = False,
    ) -> None:
        """`alone`: nobody else uses the state server, so no lease outlives it."""
        self._restoring = restoring
        self._store = store
        self._master = master
        self._clock = clock
        self._owner = owner
        self._alone = alone
        self._lost = anyio.Event()
        self._epoch = ""
        self._server = ""
        self._mine = False
        self._behind: Sequence[TenantId] | None = None
        self.problem: str | None = None  #: why a rebuild does not get on; None while there is nothing to rebuild

    async def at_start(self, *, doubted: bool = False) -> bool:
        """Before anything is read: whether the server was empty, or lacked something, and this replica is the one to
        write that anew. The house is written then; everything else comes with `adopt`. `doubted`: this run of it was
        compared before, and may hold something else by now. Raises `DamagedArchive`, `StoreUnavailable`."""
        self._mine, self._behind = False, None
        while True:
            self._server = await self._restoring.server()
            if await self._restoring.is_lost():
                if await self._restoring.begin(self._owner):
                    await self._begin()
                    return True
                await anyio.sleep(_WAIT_SECONDS)
            elif not doubted and await self._restoring.is_compared(self._server):
                return False
            elif behind := await self._restoring.behind():
                log.error("state_server.behind_its_journal", journals=behind, hint="they are written anew")
                await self._restoring.set_back()
            else:
                await self._compared()
                return False

    async def adopt(self, driver: Driver, installation: str, clients: RuntimeClients) -> None:
        """Write what `at_start` has found to be missing, if anything, and let everybody go on."""
        if self._behind is not None:
            await self._write(driver, installation, clients, self._behind)
        elif self._mine:
            await self._write(driver, installation, clients, await self._restoring.tenants())
        if self._mine:
            await self._compared()
        self._mine, self._behind = False, None
        self._go_on(await self._restoring.finish())

    async def run(self, driver: Driver, installation: str, clients: RuntimeClients) -> None:
        """Until cancelled: notice a loss, and mend it."""
        while True:
            with anyio.move_on_after(_LOOK_SECONDS):
                await self._lost.wait()
            lost, self._lost = self._lost.is_set(), anyio.Event()
            try:
                epoch, server = await self._restoring.epoch(), await self._restoring.server()
                if epoch is None or server != self._server or lost:
                    self.problem = "the state server was set back or lost what it kept; the journal is compared with it"
                    await self.at_start(doubted=server == self._server)
                    await self.adopt(driver, installation, clients)
                elif epoch != self._epoch:
                    self._go_on(epoch)  # another replica has done it
                self.problem = None
            except DamagedArchive as exc:
                self.problem = exc.message
                log.error("recovery.failed", problem=exc.message, hint=exc.hint)
                await self._again(_RETRY_SECONDS)
            except (StoreUnavailable, DriverUnavailable) as exc:
                log.warning("recovery.waits", problem=exc.message)
                await self._again(_WAIT_SECONDS)

    async def close(self) -> None:
        await self._restoring.close()

    async def _again(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self._lost.set()

    async def _begin(self) -> None:
        """Everything, or what is missing: that is compared anew, another replica may have died at it."""
        self._mine, self._behind = True, None
        if not await self._restoring.lacks_ends_only():
            log.warning("recovery.begun", problem="the state server is empty, and the journal is not")
            await self._restoring.house(whole=True)
            return
        behind = await self._restoring.behind()
        log.warning("recovery.begun", problem="the state server lacks changes that the journal holds", journals=behind)
        if HOUSE in behind:
            await self._restoring.house(whole=False)
        self._behind = [TenantId(home) for home in behind if home != HOUSE]

    async def _compared(self) -> None:
        """This run of the server holds all that was accepted. Raises `StoreUnavailable` when it is another by now."""
        if await self._restoring.server() != self._server:
            raise StoreUnavailable("the state server was started again")
        await self._restoring.compared(self._server, leap=not self._alone)

    async def _write(
        self, driver: Driver, installation: str, clients: RuntimeClients, tenants: Sequence[TenantId]
    ) -> None:
        began = time.monotonic()
        whole = self._behind is None
        rebuild = Rebuild(driver, installation, clients, self._clock)
        runtimes = await rebuild.look()
        totals = Totals()
        unclaimed: list[str] = []
        for tenant in tenants:
            if not await self._restoring.begin(self._owner):
                raise StoreUnavailable("another replica took the rebuild over")
            known = await self._restoring.read(tenant)
            for id in known.unreadable:
                log.error("record.unreadable", tenant=tenant, conversation=id, hint="a newer version wrote it")
            keys = KeyRing(Envelope(self._master, _KnownDataKeys(known.folded)))
            of_tenant = await rebuild.settle(tenant, known.conversations, known.unreadable, keys)
            await self._restoring.write(known, of_tenant.conversations, of_tenant.unwound, keep_events=not whole)
            totals.add(of_tenant)
            unclaimed += of_tenant.unclaimed
        if whole:  # else those that are left belong to tenants of whom nothing was lost
            unclaimed += await rebuild.left()
            await self._restoring.unclaimed(unclaimed)
        for name in unclaimed:
            log.error(
                "runtime.unclaimed", name=name, hint="the journal knows no record for it; nestor doctor says more"
            )
        seconds = round(time.monotonic() - began, 3)
        log.warning("recovery.done", runtimes=runtimes, seconds=seconds, unclaimed=len(unclaimed), **vars(totals))

    def _go_on(self, epoch: str) -> None:
        self._epoch = epoch
        self._store.guard(epoch, self._server, lambda: self._lost.set())


class _KnownDataKeys:
    """The wrapped data keys of one tenant from the journal: the store has none yet."""

    def __init__(self, folded: Folded) -> None:
        self._wrapped = dict(folded.of("data_key"))

    async def data_key(self, tenant: TenantId, version: int) -> str | None:
        return self._wrapped.get(str(version))

    async def add_data_key(self, tenant: TenantId, version: int, wrapped: str) -> str:
        raise AssertionError("nothing is sealed while records are rebuilt")
