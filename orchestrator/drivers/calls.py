"""Calls to an engine that the caller can walk away from: each has a bound of time, all of them one of number.

A thread cannot be interrupted, nor can what an engine has begun. A call whose caller is cancelled, or whose time is
over, is abandoned: it goes on to its end, nobody waits for it, and it gives its place at once to another one. The next
call of the same thing (a runtime's name, a volume) waits for it first: so an undo finds what came late, and nothing
that was abandoned works on a thing beside its successor. All drivers bring their verbs through here.
"""

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import structlog

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
T = TypeVar("T")

AT_ONCE = 16  #: calls of one driver at work at once; each may wait for a process to end
MOST_ABANDONED = 64  #: beside those; then nothing more is asked, until one of them ends
CALL_SECONDS = 120.0  #: more than a verb waits for its lock and then for the engine, each of which has its own limit
TURN_SECONDS = 15.0  #: for which a call waits for an abandoned one of the same thing


class Calls:
    """Of one driver. For use from one event loop. `engine` is what it calls, for people."""

    def __init__(
        self,
        engine: str,
        *,
        at_once: int = AT_ONCE,
        most_abandoned: int = MOST_ABANDONED,
        seconds: float = CALL_SECONDS,
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        self._engine = engine
        self._limiter = anyio.CapacityLimiter(at_once)
        self._most = most_abandoned
        self._seconds = seconds
        self._turn_seconds = turn_seconds
        self._abandoned: dict[asyncio.Future[Any], str] = {}

    @property
    def abandoned(self) -> int:
        """How many go on without anybody waiting for them."""
        return len(self._abandoned)

    async def settled(self, seconds: float) -> None:
        """When no abandoned call is under way any more, or after that time."""
        if self._abandoned:
            await asyncio.wait(set(self._abandoned), timeout=seconds)

    async def in_thread(self, work: Callable[[], T], *, of: str = "", seconds: float | None = None) -> T:
        """`work` in a thread of its own; see `run`."""
        return await self.run(lambda: _begin_thread(work), of=of, seconds=seconds)

    async def run(self, begin: Callable[[], Awaitable[T]], *, of: str = "", seconds: float | None = None) -> T:
        """What `begin` answers, within `seconds` (by default as the driver was made). `of` names what is changed or
        looked for; empty for a look that may come at any moment. Raises `DriverUnavailable` when it takes too long,
        when too many are abandoned, and while an abandoned one of the same thing does not end."""
        if len(self._abandoned) >= self._most:
            raise DriverUnavailable(
                f"{self._engine} does not answer: {self._most} calls of it hang, and no more are made until one ends",
                hint="look at the engine; restart Nestor where calls do not end although the engine is well again",
            )
        limit = self._seconds if seconds is None else seconds
        with anyio.move_on_after(limit):
            if of:
                await self._turn(of)
            async with self._limiter:
                return await self._waited(asyncio.ensure_future(begin()), of)
        raise DriverUnavailable(f"{self._engine} did not answer within {limit:g} seconds", hint="look at the engine")

    async def _turn(self, of: str) -> None:
        """Until no abandoned call of this thing is under way."""
        with anyio.move_on_after(self._turn_seconds):
            while earlier := [future for future, thing in self._abandoned.items() if thing == of]:
                await asyncio.wait(earlier)
            return
        raise DriverUnavailable(
            f"an earlier call of {self._engine} for {of} has not ended", hint="it is tried again; look at the engine"
        )

    async def _waited(self, future: asyncio.Future[T], of: str) -> T:
        try:
            await asyncio.wait({future})
        finally:
            if not future.done():
                self._abandon(future, of)
            elif not future.cancelled():
                future.exception()  # asked for: whoever waited may be cancelled in this very moment, and asks no more
        return future.result()

    def _abandon(self, future: asyncio.Future[Any], of: str) -> None:
        self._abandoned[future] = of
        metrics.CALLS_HANGING.inc()
        log.info("driver.call_abandoned", engine=self._engine, of=of, abandoned=len(self._abandoned))
        future.add_done_callback(self._ended_late)

    def _ended_late(self, future: asyncio.Future[Any]) -> None:
        of = self._abandoned.pop(future, "")
        metrics.CALLS_HANGING.dec()
        failure = None if future.cancelled() else future.exception()  # asked for, since nobody else does
        log.info("driver.call_ended_late", engine=self._engine, of=of, failure=failure and type(failure).__name__)


def _begin_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """A daemon: one that hangs must not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def tell(answer: T | None, failure: BaseException | None) -> None:
        if future.done():
            return
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(answer)  # type: ignore[arg-type] # None only where T is

    def body() -> None:
        answer: T | None = None
        failure: BaseException | None = None
        try:
            answer = context.run(work)
        except StopIteration as exc:  # no future takes one
            failure = RuntimeError(f"StopIteration: {exc}")
        except BaseException as exc:  # noqa: BLE001 - raised to whoever waits
            failure = exc
        with suppress(RuntimeError):  # the loop has ended, and all who waited with it
            loop.call_soon_threadsafe(tell, answer, failure)

    threading.Thread(target=body, name="driver", daemon=True).start()
    return future
