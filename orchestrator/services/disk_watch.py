"""Ends runtimes whose storage has grown over the operator's limit, where no engine bounds it.

A watcher is late by what can be written between two looks; it is the second best. One that starts with too much has ten
minutes in which its user can clear up, unless it goes on growing. Run by `server.py`; the conversation fails with
`disk_full` when its own round sees the end.
"""

import anyio
import structlog

from orchestrator.domain.errors import NestorError, RuntimeNotFound
from orchestrator.drivers.base import Driver, Measurable
from orchestrator.drivers.values import Handle
from orchestrator.services.shares import Shares

log = structlog.get_logger(__name__)
_PERIOD_SECONDS = 10.0
_GRACE_SECONDS = 600.0
_GRACE_SHARE = 1.5


class DiskWatch:
    """One `tick` looks once at each runtime that is this replica's share."""

    def __init__(self, installation: str, driver: Driver, shares: Shares, *, limit_bytes: int) -> None:
        """`limit_bytes` of workspace and state together, for a runtime of size 1; 0 for no limit."""
        self._shares = shares
        self._installation = installation
        self._driver = driver
        self._limit = limit_bytes

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
        ended = 0
        if not self._limit or not isinstance(self._driver, Measurable):
            return 0
        for handle in await self._driver.list(self._installation):
            if not self._shares.is_mine(handle.name):
                continue
            try:
                ended += await self._look(self._driver, handle)
            except RuntimeNotFound:
                continue  # it does not run, so it does not write
        return ended

    async def _look(self, driver: Measurable, handle: Handle) -> bool:
        used = await driver.disk(handle)
        if used is None or used.bytes <= (limit := self._limit * used.size):
            return False
        if used.running_seconds < _GRACE_SECONDS and used.bytes <= _GRACE_SHARE * limit:
            return False
        log.warning("runtime.disk_full", name=handle.name, bytes=used.bytes, limit=limit)
        await driver.end_full(handle)
        return True
