"""When versions of a conversation's workspace are taken, and for which of its events each is good.

The workspace at an event is what was there after the last act that had ended by then. So one version is taken as a run
begins, since what people changed between two runs belongs to what follows, and one after each act that may have changed
files: while the model is asked, so that neither waits for the other. The next act waits until it is there, for some
seconds at most; what comes after an act whose version was not there in time has none until the next run begins.
Single event loop; the work is done in a thread (`runtime.machine.versions`). Imported with the first run.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import structlog

from runtime.machine.files import BadPath
from runtime.machine.versions import FolderVersions, NoVersion

log = structlog.get_logger()

ACT_SECONDS = 5.0  #: that an act waits
END_SECONDS = 1.0  #: that the end of a run waits: somebody may look at it
_CLOSE_SECONDS = 5.0


class Versions:
    """Of one conversation. `count`: how many events its log has now; `name`: its id, for the log."""

    def __init__(self, folder: FolderVersions, *, count: Callable[[], int], name: str) -> None:
        self._folder = folder
        self._count = count
        self._name = name
        self._taking: asyncio.Task[None] | None = None
        self._ended = threading.Event()
        self._given_up = False  #: until the next run
        self._stands = False  #: the last version is of the last act that has ended
        self._untouched = False  #: and nothing has acted since

    async def begin_run(self, since: int) -> None:
        """Nothing acts yet; events from this number on belong to what is there now. One of the run before is waited
        for: it has not seen what people have changed."""
        await self._wait(END_SECONDS)
        self._given_up = False
        self._begin(since)

    def acted(self) -> None:
        """What an act has done is in the log by now."""
        self._begin(self._count())

    async def before_act(self) -> None:
        """The workspace may be changed when this returns."""
        await self._wait(ACT_SECONDS)
        if self._untouched:
            self._untouched = False
            await self._extend(self._count())

    async def resting(self) -> None:
        """Nothing acts any more in this run; what an act that was broken off has left belongs to what follows."""
        if not self._untouched and self._taking is None:
            self._begin(self._count() + 1)
        await self._wait(END_SECONDS)

    async def rested(self, until: int) -> None:
        """The run is over, and this is its last event."""
        await self._wait(END_SECONDS)
        if self._untouched:
            await self._extend(until)

    async def close(self) -> None:
        """Nothing is written when this returns. Idempotent."""
        self._given_up = True
        if self._taking is not None:
            self._folder.end(self._ended)
            await asyncio.wait([self._taking], timeout=_CLOSE_SECONDS)

    def _begin(self, since: int) -> None:
        if self._given_up or self._taking is not None:  # one that is under way has seen all that was done
            return
        closes, self._stands, self._untouched = self._stands, False, False
        self._ended = threading.Event()
        self._taking = asyncio.create_task(self._take(since, closes, self._ended), name=f"version {self._name}")

    async def _take(self, since: int, closes: bool, ended: threading.Event) -> None:
        try:
            await asyncio.to_thread(self._folder.take, since, closes=closes, ended=ended)
            self._stands = self._untouched = not ended.is_set()
        except NoVersion as reason:
            self._none(str(reason))
        except (BadPath, OSError, RecursionError) as problem:
            self._none(type(problem).__name__)
        finally:
            self._taking = None

    async def _wait(self, seconds: float) -> None:
        if (taking := self._taking) is None:
            return
        done, _ = await asyncio.wait([taking], timeout=seconds)
        if not done:
            self._folder.end(self._ended)
            self._none("it takes too long")

    async def _extend(self, until: int) -> None:
        try:
            await asyncio.to_thread(self._folder.extend, until)
        except OSError as problem:
            self._none(type(problem).__name__)

    def _none(self, reason: str) -> None:
        if not self._given_up:
            log.info("version.not_taken", conversation=self._name, reason=reason, until="the next run")
        self._given_up, self._stands, self._untouched = True, False, False
