"""Ends runtimes whose storage has grown over the operator's limit, where no engine bounds it.

A watcher is late by what can be written between two looks; it is the second best. One that starts with too much has ten
minutes in which its user can clear up, unless it goes on growing. One whose storage cannot be counted in time again and
again has more files than its share allows, and is over the limit too: else that would be the way to be left alone. Run
by `server.py`; the conversation fails with `disk_full` when its own round sees the end.
"""

import anyio
import structlog

from orchestrator.domain.errors import NestorError, RuntimeNotFound
from orchestrator.drivers.base import Driver, Measurable
from orchestrator.drivers.values import DiskUse, Handle
from orchestrator.services.shares import Shares

log = structlog.get_logger(__name__)
_PERIOD_SECONDS = 10.0
_GRACE_SECONDS = 600.0
_GRACE_SHARE = 1.5
_AT_ONCE = 4  #: so that one whose files take long to be counted holds up no other
_UNCOUNTED = 3  #: looks in a row


class DiskWatch:
    """One `tick` looks once at each runtime that is this replica's share."""

    def __init__(self, installation: str, driver: Driver, shares: Shares, *, limit_bytes: int) -> None:
        """`limit_bytes` of workspace and state together, for a runtime of size 1; 0 for no limit."""
        self._shares = shares
        self._installation = installation
        self._driver = driver
        self._limit = limit_bytes
        self._uncounted: dict[str, int] = {}  #: looks in a row in which there was too much to be counted

    async def run(self) -> None:
        """Until cancelled; at once over where there is nothing to watch."""
        while self._limit and isinstance(self._driver, Measurable):
            try:
                await self.tick()
            except NestorError as exc:
                log.warning("disk_watch.skipped", problem=exc.message)
            await anyio.sleep(_PERIOD_SECONDS)

    async def tick(self) -> int:
        """Answers how many it ended."""
        if not self._limit or not isinstance(self._driver, Measurable):
            return 0
        mine = [handle for handle in await self._driver.list(self._installation) if self._shares.is_mine(handle.name)]
        self._uncounted = {handle.name: self._uncounted.get(handle.name, 0) for handle in mine}
        ended: list[str] = []
        places = anyio.Semaphore(_AT_ONCE)
        async with anyio.create_task_group() as looks:
            for handle in mine:
                looks.start_soon(self._look, self._driver, handle, places, ended)
        return len(ended)

    async def _look(self, driver: Measurable, handle: Handle, places: anyio.Semaphore, ended: list[str]) -> None:
        async with places:
            try:
                if await self._ended(driver, handle):
                    ended.append(handle.name)
            except RuntimeNotFound:
                pass  # it does not run, so it does not write
            except NestorError as exc:
                log.warning("disk_watch.skipped", name=handle.name, problem=exc.message)

    async def _ended(self, driver: Measurable, handle: Handle) -> bool:
        used = await driver.disk(handle)
        if used is None:
            return False
        if used.bytes is None:
            self._uncounted[handle.name] += 1
            if self._uncounted[handle.name] < _UNCOUNTED:
                log.warning("disk_watch.uncounted", name=handle.name)
                return False
        elif not self._over(used, used.bytes, self._limit * used.size):
            self._uncounted[handle.name] = 0
            return False
        log.warning("runtime.disk_full", name=handle.name, bytes=used.bytes, limit=self._limit * used.size)
        await driver.end_full(handle)
        return True

    @staticmethod
    def _over(used: DiskUse, taken: int, limit: int) -> bool:
        if used.running_seconds < _GRACE_SECONDS:
            return taken > _GRACE_SHARE * limit
        return taken > limit
