"""What every connection of the front shares: the callables that `app.py` gives, the limits, and what is open now."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field

from orchestrator.domain.ids import RuntimeId
from orchestrator.proxy.limits import FrontLimits
from orchestrator.proxy.pool import Upstreams
from orchestrator.proxy.route import Found, Invalidate, Known, Resolve, Route, Touch, Wake


def nothing_known(_runtime: RuntimeId) -> Route | None:
    """The `known` of a front without a cache: always ask `resolve`."""
    return None


@dataclass
class FrontContext:
    """One per process. `recheck` is to be subscribed to the route cache, `close` called when the server has ended."""

    resolve: Resolve
    touch: Touch
    invalidate: Invalidate
    domain: str | None = None
    limits: FrontLimits = field(default_factory=FrontLimits)
    known: Known = nothing_known
    wake: Wake | None = None  #: None: `resolve` is all there is

    def __post_init__(self) -> None:
        self.upstreams = Upstreams(self.limits)
        self.waiting_sockets: Counter[str] = Counter()  #: by client address: sockets that have not yet sent their key
        self._connections: Counter[str] = Counter()  # by client address
        self._open = 0  # connections that have an address
        self._unknown: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()
        self._unknown_second = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, runtime: RuntimeId) -> Found:
        """`resolve` with its deadline. Raises TimeoutError, and what `resolve` raises."""
        async with asyncio.timeout(self.limits.resolve_seconds):
            return await self.resolve(runtime)

    async def rouse(self, runtime: RuntimeId) -> Found:
        """Wake a runtime for a request whose key was right, and wait for it. Raises as `find`."""
        if self.wake is None:
            return await self.find(runtime)
        seconds = self.limits.wake_seconds
        async with asyncio.timeout(seconds + self.limits.resolve_seconds):
            return await self.wake(runtime, seconds)

    def may_guess(self, address: str) -> bool:
        """Whether `address` may ask for another runtime that is not cached; it may until it has missed too often."""
        self._turn()
        return self._unknown[address] < self.limits.unknown_per_second

    def missed(self, address: str) -> None:
        """`address` asked for a runtime that does not exist."""
        self._turn()
        self._unknown[address] += 1

    def wrong_key(self, address: str) -> bool:
        """`address` has shown a key that opens nothing; whether it may go on to be told just that."""
        self._turn()
        self._wrong[address] += 1
        return self._wrong[address] <= self.limits.wrong_keys_per_second

    def enter(self, address: str) -> bool:
        """Count a connection of `address`; False, and nothing is counted, if it has as many as one may have, or all
        together do. Those that come over a socket file have no address and are not counted."""
        each, all_of_them = self.limits.connections_per_address, self.limits.connections
        if address:
            if (each and self._connections[address] >= each) or (all_of_them and self._open >= all_of_them):
                return False
            self._open += 1
        self._connections[address] += 1
        return True

    @property
    def problem(self) -> str | None:
        """In words that may be shown; None while a new client would be served."""
        most = self.limits.connections
        if not most or self._open < most:
            return None
        return f"{most} clients are connected, and no more are taken: raise the limit of open files, or add a replica"

    def leave(self, address: str) -> None:
        """A counted connection is over."""
        if address:
            self._open -= 1
        self._connections[address] -= 1
        if not self._connections[address]:
            del self._connections[address]

    def recheck(self, runtime: RuntimeId) -> None:
        """The route of `runtime` may have changed: drop unused connections now, and end what is open if it has.

        Answers at once; the look-up happens in a task that `close` ends.
        """
        self.upstreams.close_idle(runtime)
        if self.upstreams.open_for(runtime):
            self._own(self._recheck(runtime))

    async def close(self) -> None:
        """Close every connection to every runtime and end what waits. May be called twice."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.upstreams.close()

    async def _recheck(self, runtime: RuntimeId) -> None:
        try:
            found = await self.find(runtime)
        except Exception:  # noqa: BLE001 - the edge of a task; without an answer nothing is known to be wrong
            return
        for user in self.upstreams.open_for(runtime):
            route = user.route
            if not isinstance(found, Route) or not found.leads_to(route):
                user.revoke()

    def _turn(self) -> None:
        second = int(asyncio.get_running_loop().time())
        if second != self._unknown_second:
            self._unknown_second = second
            self._unknown.clear()
            self._wrong.clear()

    def _own(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
