"""Routes of claims: what the holder of an API key may reach as an agent server, looked up and kept for a moment.

Stands before the cache of routes, with the same calls. A claim that was found to hold is believed for less than a
second, so that a revoked key is refused within one; what is open by a claim is looked at as often (`watch`).
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

import anyio

from orchestrator.domain.errors import TransientError
from orchestrator.domain.ids import RuntimeId
from orchestrator.proxy import answers
from orchestrator.proxy.admission import Refused
from orchestrator.proxy.pool import RouteUser
from orchestrator.proxy.route import Found, Invalidate, Known, Resolve, Route, Unavailable, Wake
from orchestrator.proxy.single_origin import Claim
from orchestrator.proxy.tunnel import Tunnel
from orchestrator.proxy.upstream import UpstreamConnection

#: The runtime of a claim; `Unavailable` while there is none that could be asked; None: nothing of the caller's. Raises
#: `Refused` for who may not ask.
Look = Callable[[Claim], Awaitable[RuntimeId | Unavailable | None]]
#: The same, after what is missing was made, within so many seconds.
Prepare = Callable[[Claim, float], Awaitable[RuntimeId | Unavailable | None]]


@dataclass(slots=True)
class _Entry:
    """One claim that holds. `opened` is the route of `route`, with the claim's key in the place of the session key."""

    runtime: RuntimeId
    until: float
    route: Route | None = None
    opened: Route | None = None

    def open(self, route: Route, claim: Claim) -> Route:
        """The route as the holder of the claim may use it; the same object while the route is."""
        if self.opened is None or self.route is not route:
            self.route = route
            self.opened = replace(
                route, session_key_hash=claim.digest, own_key_hash=route.session_key_hash, claim=claim
            )
        return self.opened


class ClaimRoutes:
    """Times in seconds. Whatever is no claim goes through to `known`, `resolve`, `invalidate` and `wake`. While the
    store does not answer, a claim that held up to `stale` ago goes on holding, each use counting anew."""

    def __init__(
        self,
        known: Known,
        resolve: Resolve,
        invalidate: Invalidate,
        wake: Wake,
        *,
        look: Look,
        prepare: Prepare,
        ttl: float = 0.7,
        stale: float = 5.0,
        limit: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known = known
        self._resolve = resolve
        self._invalidate = invalidate
        self._wake = wake
        self._look = look
        self._prepare = prepare
        self._ttl = ttl
        self._stale = stale
        self._limit = limit
        self._clock = clock
        self._entries: dict[Claim, _Entry] = {}

    def known(self, runtime: RuntimeId) -> Route | None:
        """As `RouteCache.known`."""
        if not isinstance(runtime, Claim):
            return self._known(runtime)
        entry = self._entries.get(runtime)
        if entry is None or entry.until <= self._clock():
            return None
        route = self._known(entry.runtime)
        return None if route is None else entry.open(route, runtime)

    async def resolve(self, runtime: RuntimeId) -> Found:
        """As `RouteCache.resolve`. Raises `Refused` too."""
        if not isinstance(runtime, Claim):
            return await self._resolve(runtime)
        entry = self._entries.get(runtime)
        if entry is None or entry.until <= self._clock():
            try:
                found = await self._look(runtime)
            except (TransientError, TimeoutError):
                if entry is None or entry.until + self._stale <= self._clock():
                    raise
                found = entry.runtime  # nothing can be revoked either while nobody can be asked
            if found is None:  # not an unknown runtime, which would count as a guess: whoever asks showed a good key
                raise Refused(answers.NOT_FOUND)
            if isinstance(found, Unavailable):
                return found
            entry = self._keep(runtime, found)
        return self._opened(entry, runtime, await self._resolve(entry.runtime))

    async def wake(self, runtime: RuntimeId, seconds: float) -> Found:
        """As `Wake`. Raises `Refused` too."""
        if not isinstance(runtime, Claim):
            return await self._wake(runtime, seconds)
        began = self._clock()
        found = await self._prepare(runtime, seconds)
        if found is None or isinstance(found, Unavailable):
            return found
        left = max(0.0, seconds - (self._clock() - began))
        return self._opened(self._keep(runtime, found), runtime, await self._wake(found, left))

    def invalidate(self, runtime: RuntimeId) -> None:
        """Forget what is known of it."""
        if not isinstance(runtime, Claim):
            self._invalidate(runtime)
        elif (entry := self._entries.pop(runtime, None)) is not None:
            self._invalidate(entry.runtime)

    async def watch(self, users: Callable[[], Iterable[RouteUser]]) -> None:
        """Until cancelled: end sockets and answers whose claim does not hold any more. `users` is all that is open."""
        while True:
            await anyio.sleep(self._ttl)
            await self.look_again(users())

    async def look_again(self, users: Iterable[RouteUser]) -> None:
        """One round, which ends where nobody can be asked: the next one asks again."""
        by_claim: dict[Claim, list[RouteUser]] = {}
        for user in users:
            carries = isinstance(user, Tunnel) or (isinstance(user, UpstreamConnection) and user.asker is not None)
            if carries and isinstance(user.route.claim, Claim):
                by_claim.setdefault(user.route.claim, []).append(user)
        for claim, opened in by_claim.items():
            try:
                found = await self._look(claim)
            except Refused:
                found = None
            except (TransientError, TimeoutError):
                return
            if found is None:
                self._entries.pop(claim, None)
                for user in opened:
                    if user.route.claim == claim:  # a connection may carry somebody else's request by now
                        user.revoke()

    def _keep(self, claim: Claim, runtime: RuntimeId) -> _Entry:
        present = self._entries.pop(claim, None)  # so that it becomes the youngest
        entry = present if present is not None and present.runtime == runtime else _Entry(runtime, 0.0)
        entry.until = self._clock() + self._ttl
        self._entries[claim] = entry
        if len(self._entries) > self._limit:
            del self._entries[next(iter(self._entries))]
        return entry

    def _opened(self, entry: _Entry, claim: Claim, found: Found) -> Found:
        if isinstance(found, Route):
            return entry.open(found, claim)
        if isinstance(found, Unavailable) and found.session_key_hash is not None:
            return replace(found, session_key_hash=claim.digest)
        return found
