"""Looking again at conversations at rest when the times of the clock changed: a tenant's, a user's, the operator's.

At rest a conversation is due when something is to be done to it, and else never, so what rests costs nothing. A change
of those times goes through all of them, a page at a time and never faster than workers follow: of a million it takes
some hours.
"""

from collections.abc import Callable

import anyio
import structlog

from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.retention import Spans
from orchestrator.state.base import Reviews
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
_PACE_SECONDS = 1.0
_WHILE_NONE_SECONDS = 5.0


class Reviewing:
    """Of one replica."""

    def __init__(self, reviews: Reviews, wake: Callable[[], None], spans: Spans) -> None:
        self._reviews = reviews
        self._wake = wake
        self._reason = f"{spans.archive_seconds} {spans.delete_seconds}"

    async def run(self) -> None:
        """Until cancelled: ask for a review where the operator's times are others than those of the last one, then go
        through what is asked for."""
        begun = False
        while True:
            pause = _WHILE_NONE_SECONDS
            try:
                if not begun and await self._reviews.ask_all(self._reason):
                    log.info("review.asked", reason="the operator's times at rest are not those of the last review")
                begun = True
                with metrics.ticking("reviews"):
                    made = await self.tick()
                pause = _WHILE_NONE_SECONDS if made is None else _PACE_SECONDS
            except StoreUnavailable as exc:
                log.warning("review.skipped", problem=exc.message)
            await anyio.sleep(pause)

    async def tick(self) -> int | None:
        """One page. Answers how many were made due, None when nothing is asked for."""
        made = await self._reviews.step()
        if made:
            self._wake()
        return made
