"""How the state server and the journal do, asked again and again: what `/health` says besides "the process listens".

An operator may change a running server (another eviction policy, no append-only file), a failover may turn it into a
replica, a disk may fill up. Used by `server.py` for as long as requests are served.
"""

from collections.abc import Callable, Sequence

import anyio
import structlog

from orchestrator.domain.errors import Misconfigured, StoreUnavailable
from orchestrator.state.redis_store import RedisStore

log = structlog.get_logger(__name__)
_PERIOD_SECONDS = 2.0


class StateHealth:
    """`problems` are those of the last look; empty when all is well."""

    def __init__(self, store: RedisStore, others: Sequence[Callable[[], str | None]]) -> None:
        """`others` answer a problem of their own, or None."""
        self._store = store
        self._others = others
        self._found: str | None = None

    def also(self, problem: Callable[[], str | None]) -> None:
        """One more that answers a problem of its own, or None."""
        self._others = [*self._others, problem]

    def problems(self) -> list[str]:
        """In words that may be shown."""
        return [problem for problem in (self._found, *(other() for other in self._others)) if problem is not None]

    def unready(self) -> str | None:
        """What keeps requests from being served. The journal alone does not: where the state server has changes on its
        disk they are taken without it, else each of them says no by itself."""
        return self._found

    async def look(self) -> None:
        """Ask once. What durable writes wait for is chosen anew, should the server have become less durable."""
        try:
            await self._store.probe()
            await self._store.check()
            found = None
        except (StoreUnavailable, Misconfigured) as exc:
            found = exc.message
        if found != self._found:
            log.error("state_server.trouble", problem=found) if found else log.warning("state_server.well_again")
        self._found = found

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await anyio.sleep(_PERIOD_SECONDS)
