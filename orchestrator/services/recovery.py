"""A state server that came back empty: noticed, and written anew by one replica while the others wait.

At a start `at_start` comes before anything is read from the server, and `adopt` before anything is served; later
`run` does both when the store notices that the epoch is gone. Until the epoch is written again every call to the store
raises `StateLost`, so nothing is claimed, and the proxy goes on with the routes that it has.
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
    """The store, as far as it is told which epoch is the present one."""

    def guard(self, epoch: str, on_loss: Callable[[], None]) -> None: ...


class Recovery:
    """One replica's part in it."""

    def __init__(self, restoring: Restoring, store: Guarded, master: MasterKeys, clock: Clock, *, owner: str) -> None:
        self._restoring = restoring
        self._store = store
        self._master = master
        self._clock = clock
        self._owner = owner
        self._lost = anyio.Event()
        self._epoch = ""
        self._mine = False
        self._behind: Sequence[TenantId] = ()
        self.problem: str | None = None  #: why a rebuild does not get on; None while there is nothing to rebuild

    async def at_start(self, *, alone: bool = False) -> bool:
        """Before anything is read: whether the server was empty and this replica is the one to write it anew. The
        house is written then; everything else comes with `adopt`. Where this replica is `alone`, tenants of which the
        server lost the end are mended as well. Raises `DamagedArchive`, `StoreUnavailable`."""
        while await self._restoring.is_lost():
            if await self._restoring.begin(self._owner):
                log.warning("recovery.begun", problem="the state server is empty, and the journal is not")
                await self._restoring.house()
                self._mine = True
                return True
            await anyio.sleep(_WAIT_SECONDS)
        behind = await self._restoring.behind() if alone else []
        if behind:
            log.error("state_server.behind_its_journal", journals=behind, hint="they are written anew")
            if HOUSE in behind:
                await self._restoring.house()
            self._behind = [TenantId(home) for home in behind if home != HOUSE]
        return False

    async def adopt(self, driver: Driver, installation: str, clients: RuntimeClients) -> None:
        """Write what `at_start` has found to be missing, if anything, and let everybody go on."""
        if self._mine:
            await self._write(driver, installation, clients, await self._restoring.tenants())
        elif self._behind:
            await self._write(driver, installation, clients, self._behind)
        self._mine, self._behind = False, []
        self._go_on(await self._restoring.finish())

    async def run(self, driver: Driver, installation: str, clients: RuntimeClients) -> None:
        """Until cancelled: notice a loss, and mend it."""
        while True:
            with anyio.move_on_after(_LOOK_SECONDS):
                await self._lost.wait()
            try:
                epoch = await self._restoring.epoch()
                if epoch is None:
                    self.problem = "the state server has lost what it kept; it is written anew from the journal"
                    await self.at_start()
                    await self.adopt(driver, installation, clients)
                elif epoch != self._epoch:
                    self._go_on(epoch)  # another replica has done it
                self.problem = None
                self._lost = anyio.Event()
            except DamagedArchive as exc:
                self.problem = exc.message
                log.error("recovery.failed", problem=exc.message, hint=exc.hint)
                await anyio.sleep(_RETRY_SECONDS)
            except (StoreUnavailable, DriverUnavailable) as exc:
                log.warning("recovery.waits", problem=exc.message)
                await anyio.sleep(_WAIT_SECONDS)

    async def close(self) -> None:
        await self._restoring.close()

    async def _write(
        self, driver: Driver, installation: str, clients: RuntimeClients, tenants: Sequence[TenantId]
    ) -> None:
        began = time.monotonic()
        rebuild = Rebuild(driver, installation, clients, self._clock)
        runtimes = await rebuild.look()
        totals = Totals()
        unclaimed: list[str] = []
        for tenant in tenants:
            if self._mine and not await self._restoring.begin(self._owner):
                raise StoreUnavailable("another replica took the rebuild over")
            known = await self._restoring.read(tenant)
            for id in known.unreadable:
                log.error("record.unreadable", tenant=tenant, conversation=id, hint="a newer version wrote it")
            keys = KeyRing(Envelope(self._master, _KnownDataKeys(known.folded)))
            of_tenant = await rebuild.settle(tenant, known.conversations, known.unreadable, keys)
            await self._restoring.write(known, of_tenant.conversations, of_tenant.unwound, keep_events=not self._mine)
            totals.add(of_tenant)
            unclaimed += of_tenant.unclaimed
        if self._mine:  # else those that are left belong to tenants of whom nothing was lost
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
        self._store.guard(epoch, lambda: self._lost.set())


class _KnownDataKeys:
    """The wrapped data keys of one tenant from the journal: the store has none yet."""

    def __init__(self, folded: Folded) -> None:
        self._wrapped = dict(folded.of("data_key"))

    async def data_key(self, tenant: TenantId, version: int) -> str | None:
        return self._wrapped.get(str(version))

    async def add_data_key(self, tenant: TenantId, version: int, wrapped: str) -> str:
        raise AssertionError("nothing is sealed while records are rebuilt")
