"""How many runtimes one machine starts at once: as many as it has processors, the first that came first.

More at once are slower together: they wait for one another in the engine and in the kernel, push one another's code out
of the caches, and whatever else is asked of the machine waits behind them. A start is over when the runtime
answers, so it keeps its turn until somebody says so, and for a few seconds at most: one that never answers keeps nobody
waiting.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

_FEWEST: Final = 2
_LONGEST_SECONDS: Final = 5.0  #: five times what it takes where all processors are busy


class Turns:
    """Of one machine. All methods are for the thread of the event loop."""

    def __init__(self, at_once: int | None = None, *, longest_seconds: float = _LONGEST_SECONDS) -> None:
        self._limit = anyio.CapacityLimiter(at_once or max(_FEWEST, os.cpu_count() or 1))
        self._longest_seconds = longest_seconds
        self._kept: dict[str, tuple[object, asyncio.TimerHandle]] = {}

    @property
    def taken(self) -> int:
        """How many start now."""
        return self._limit.borrowed_tokens

    @asynccontextmanager
    async def taking(self, name: str) -> AsyncIterator[None]:
        """Start the runtime of this name in the block; it keeps its turn after it, until `over`, unless the block
        raises."""
        self.over(name)  # of an earlier try
        turn = object()
        await self._limit.acquire_on_behalf_of(turn)
        try:
            yield
        except BaseException:
            self._limit.release_on_behalf_of(turn)
            raise
        self.over(name)
        loop = asyncio.get_running_loop()
        self._kept[name] = turn, loop.call_later(self._longest_seconds, self.over, name)

    def over(self, name: str) -> None:
        """It answers, or it is gone. May be repeated, and said of one that has no turn."""
        turn, timer = self._kept.pop(name, (None, None))
        if timer is not None:
            timer.cancel()
            self._limit.release_on_behalf_of(turn)
