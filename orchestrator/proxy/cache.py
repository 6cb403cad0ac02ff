"""Routes as this process last saw them, so that no request costs a read of the store.

`app.py` gives it the function that reads the store, calls `invalidate` for what the store says has changed, and gives
`resolve` and `known` to the front. A store that does not answer leaves live routes in use: nothing can be revoked while
it is away either.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.domain.errors import TransientError
from orchestrator.domain.ids import ConversationId, RuntimeId
from orchestrator.proxy.route import Found, Resolve, Route

_OVERTAKEN_LIMIT = 3


@dataclass(slots=True)
class _Entry:
    found: Found
    until: float


class RouteCache:
    """Times in seconds. `ttl` holds for live routes, `negative_ttl` for what is unknown or cannot be reached. A request
    waits `patience` for a route to be read again. What `changed` was told is looked at once in `check`."""

    def __init__(
        self,
        load: Resolve,
        ttl: float = 5.0,
        negative_ttl: float = 1.0,
        limit: int = 10_000,
        *,
        deadline: float = 5.0,
        patience: float = 0.25,
        check: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._limit = limit
        self._deadline = deadline
        self._patience = patience
        self._check = check
        self._clock = clock
        self._routed: dict[ConversationId, RuntimeId] = {}  # of the entries that are live routes
        self._changed: set[RuntimeId] = set()
        self._checking: asyncio.Task[None] | None = None
        self._entries: dict[RuntimeId, _Entry] = {}
        self._loading: dict[RuntimeId, asyncio.Task[Found]] = {}
        self._tasks: set[asyncio.Task[Found]] = set()
        self._subscribers: list[Callable[[RuntimeId], None]] = []

    def known(self, runtime: RuntimeId) -> Route | None:
        """The live route if it is cached and fresh; never waits."""
        entry = self._entries.get(runtime)
        if entry is None or not isinstance(entry.found, Route) or entry.until <= self._clock():
            return None
        return entry.found

    async def resolve(self, runtime: RuntimeId) -> Found:
        """The route, from the cache or from one load that all who ask at once share.

        Raises what the load raises, and TimeoutError, unless an older route is still at hand.
        """
        for _ in range(_OVERTAKEN_LIMIT):
            entry = self._entries.get(runtime)
            if entry is not None and entry.until > self._clock():
                return entry.found
            task = self._loading.get(runtime)
            if task is None:
                task = self._begin(runtime)
            # A store that is slow costs no request more than a moment while an older route is at hand.
            stale = entry.found if entry is not None and isinstance(entry.found, Route) else None
            if stale is not None and not (await asyncio.wait({task}, timeout=self._patience))[0]:
                return stale
            found = await asyncio.shield(task)
            stored = self._entries.get(runtime)
            if stored is not None and stored.found is found:
                break
            # else `invalidate` came while it was being loaded: what was read may be what was changed
        return found

    def changed(self, conversation: ConversationId | None) -> None:
        """Something of `conversation` may have changed on any replica, or of any (None): its route is read again soon,
        and forgotten if it leads elsewhere. Requests go on meanwhile: most changes are none of a route."""
        if conversation is None:
            self._changed.update(self._routed.values())
        elif conversation in self._routed:
            self._changed.add(self._routed[conversation])
        if self._changed and self._checking is None:
            self._checking = asyncio.get_running_loop().create_task(self._check_changed())

    def confirm(self, conversation: ConversationId, version: int) -> None:
        """The record of `conversation` has this version now: a route that was read from it is as good as read again. A
        conversation in use is looked at anyway when its use is written, so its route costs no read of its own."""
        runtime = self._routed.get(conversation)
        entry = self._entries.get(runtime) if runtime is not None else None
        if entry is not None and isinstance(entry.found, Route) and 0 < version == entry.found.version:
            entry.until = self._clock() + self._ttl

    def invalidate(self, runtime: RuntimeId) -> None:
        """Forget what is known of `runtime`; a load under way counts for nothing. Subscribers are told."""
        self._drop(runtime)
        self._loading.pop(runtime, None)
        for subscriber in self._subscribers:
            subscriber(runtime)

    def clear(self) -> None:
        """Forget everything: changes may have been missed."""
        for runtime in {*self._entries, *self._loading}:
            self.invalidate(runtime)

    def subscribe(self, subscriber: Callable[[RuntimeId], None]) -> None:
        """Have `subscriber` called with every runtime that is invalidated."""
        self._subscribers.append(subscriber)

    async def close(self) -> None:
        """End the loads under way."""
        ending = [*self._tasks, *([self._checking] if self._checking is not None else [])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _check_changed(self) -> None:
        """One read for all that is told within a moment, as events of a running conversation are."""
        while self._changed:
            await asyncio.sleep(self._check)
            changed, self._changed = self._changed, set()
            await asyncio.gather(*map(self._check_route, changed))
        self._checking = None

    async def _check_route(self, runtime: RuntimeId) -> None:
        entry = self._entries.get(runtime)
        if entry is None or not isinstance(entry.found, Route):
            return
        try:
            async with asyncio.timeout(self._deadline):
                found = await self._load(runtime)
        except Exception:  # noqa: BLE001 - the edge of a task: what cannot be read now is read when the entry is old
            return
        same = isinstance(found, Route) and found.leads_to(entry.found) and found.links == entry.found.links
        if self._entries.get(runtime) is entry and not same:
            self.invalidate(runtime)

    def _drop(self, runtime: RuntimeId) -> None:
        entry = self._entries.pop(runtime, None)
        if entry is not None and isinstance(entry.found, Route):
            self._routed.pop(entry.found.conversation, None)

    def _begin(self, runtime: RuntimeId) -> asyncio.Task[Found]:
        task = asyncio.get_running_loop().create_task(self._fetch(runtime))
        self._loading[runtime] = task
        self._tasks.add(task)  # also those that `invalidate` has overtaken
        task.add_done_callback(lambda done: self._loaded(runtime, done))
        return task

    async def _fetch(self, runtime: RuntimeId) -> Found:
        stale = self._entries.get(runtime)
        try:
            async with asyncio.timeout(self._deadline):
                return await self._load(runtime)
        except (TransientError, TimeoutError):
            if stale is not None and isinstance(stale.found, Route):
                return stale.found
            raise

    def _loaded(self, runtime: RuntimeId, task: asyncio.Task[Found]) -> None:
        self._tasks.discard(task)
        failed = task.cancelled() or task.exception() is not None
        if self._loading.get(runtime) is not task:
            return
        del self._loading[runtime]
        if failed:
            return
        found = task.result()
        self._drop(runtime)  # so that it becomes the youngest
        ttl = self._ttl if isinstance(found, Route) else self._negative_ttl
        self._entries[runtime] = _Entry(found, self._clock() + ttl)
        if isinstance(found, Route):
            self._routed[found.conversation] = runtime
        if len(self._entries) > self._limit:
            self._drop(next(iter(self._entries)))
