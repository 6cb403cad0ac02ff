"""The leases of this replica, renewed from a thread of its own: what keeps the event loop busy does not lose them.

Used by `workers.py`, which holds a lease here for as long as somebody acts under it. The thread has a loop and a
connection of its own; of the workers' loop it only asks for a sign of life, and tells it what became of a lease. A
process that is frozen renews nothing. A loop that gives no sign for `PATIENCE` leases is taken for dead, and others are
to have what it holds. See ADR 21.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import PurePath
from typing import NoReturn, Protocol

import anyio
import anyio.to_thread
import structlog

from orchestrator.domain.clock import Clock
from orchestrator.domain.errors import LeaseLost, NestorError
from orchestrator.state.lease import Lease

log = structlog.get_logger(__name__)
PATIENCE = 3  #: leases that a loop may be silent for: a stall is to be ridden out, and a dead one has to end
_ROUNDS = 3  # a lease
_END_SECONDS = 5.0
_FRAMES_SHOWN = 5


class Renewing(Protocol):
    """What the thread needs of the conversations (`state/conversations_base.py`)."""

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> Sequence[bool | None]: ...


class Held:
    """A lease that is kept until it is released, or lost."""

    def __init__(self, lease: Lease, until: float) -> None:
        self.lease = lease
        self.until = until  #: it is sure until then, by the keeper's clock; nobody but the thread looks at it
        self._lost = anyio.Event()
        self._problem = ""

    def lose(self, problem: str) -> None:
        """In the loop of the workers."""
        self._problem = problem
        self._lost.set()

    async def lost(self) -> NoReturn:
        """Raises `LeaseLost` when it is."""
        await self._lost.wait()
        raise LeaseLost(self._problem)


class LeaseKeeper:
    """Of one replica. `hold` and `release` are for its loop alone."""

    def __init__(
        self, leases: Callable[[], AbstractAsyncContextManager[Renewing]], clock: Clock, *, lease_seconds: float
    ) -> None:
        """`leases` is opened, used and closed in the thread."""
        self._open = leases
        self._clock = clock
        self._lease_ms = int(lease_seconds * 1000)
        self._lock = threading.Lock()
        self._held: dict[Lease, Held] = {}
        self._unanswered = 0  # rounds for which the workers' loop has given no sign

    def now(self) -> float:
        """To be asked for before a lease is."""
        return self._clock.monotonic()

    def hold(self, lease: Lease, asked: float) -> Held:
        """From now on it is renewed, while the keeper runs. It was given after `asked`, which is a time of `now`."""
        held = Held(lease, asked + self._lease_ms / 1000)
        with self._lock:
            self._held[lease] = held
        return held

    def release(self, held: Held) -> None:
        """No renewal of it begins any more; the store refuses one that is on its way once the lease is given back.
        Idempotent."""
        with self._lock:
            self._held.pop(held.lease, None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Renew meanwhile. The thread has ended when the block has."""
        own, ending = asyncio.new_event_loop(), asyncio.Event()
        keeping = self._keep(asyncio.get_running_loop(), threading.get_ident(), ending)
        # A daemon: a look-up of a name may hang in it, and must not keep the process.
        thread = threading.Thread(target=own.run_until_complete, args=(keeping,), name="leases", daemon=True)
        thread.start()
        try:
            yield
        finally:
            own.call_soon_threadsafe(ending.set)
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(thread.join, _END_SECONDS)
            if not thread.is_alive():
                own.close()

    async def _keep(self, workers: asyncio.AbstractEventLoop, workers_thread: int, ending: asyncio.Event) -> None:
        async with self._open() as leases, anyio.create_task_group() as tasks:
            tasks.start_soon(self._rounds, leases, workers, workers_thread)
            await ending.wait()
            tasks.cancel_scope.cancel()

    async def _rounds(self, leases: Renewing, workers: asyncio.AbstractEventLoop, workers_thread: int) -> None:
        period = self._lease_ms / 1000 / _ROUNDS
        while True:
            began = time.monotonic()
            self._unanswered += 1
            workers.call_soon_threadsafe(self._sign)
            # Counted and not timed: a process that was frozen for long has missed one round, and not many.
            if self._unanswered <= PATIENCE * _ROUNDS:
                await self._round(leases, workers)
            elif self._unanswered == PATIENCE * _ROUNDS + 1:
                log.error(
                    "leases.let_go",
                    leases=len(self._held),
                    at=_where(workers_thread),
                    hint="the event loop is kept busy, or hangs, at that place; other replicas take over what it holds",
                )
            # Of a server that is slow the next answer is asked at once.
            await anyio.sleep(max(0.0, period - (time.monotonic() - began)))

    def _sign(self) -> None:
        """In the loop of the workers: it lives."""
        self._unanswered = 0

    async def _round(self, leases: Renewing, workers: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            held = list(self._held.values())
        renewed_until = self._clock.monotonic() + self._lease_ms / 1000  # before it is asked: not later than the store
        for one, renewed in zip(held, await self._renewed(leases, held), strict=True):
            if renewed:
                one.until = renewed_until
            elif renewed is False:
                self._lose(one, "another replica holds the conversation", workers)
            elif self._clock.monotonic() >= one.until:
                self._lose(one, "the lease could not be renewed in time", workers)

    async def _renewed(self, leases: Renewing, held: Sequence[Held]) -> Sequence[bool | None]:
        try:
            return await leases.renew([one.lease for one in held], lease_ms=self._lease_ms)
        except NestorError:  # the store counts it
            pass
        except Exception as exc:  # the edge of a loop tick: a thread that ended would lose every lease
            log.error("leases.not_renewed", exc_info=exc)
        return [None] * len(held)

    def _lose(self, held: Held, problem: str, workers: asyncio.AbstractEventLoop) -> None:
        self.release(held)
        workers.call_soon_threadsafe(held.lose, problem)


def _where(thread: int) -> list[str]:
    """The innermost lines that it is at: places in files, no values."""
    frame = sys._current_frames().get(thread)
    shown = traceback.extract_stack(frame, limit=_FRAMES_SHOWN) if frame is not None else []
    return [f"{PurePath(one.filename).name}:{one.lineno} {one.name}" for one in shown]
