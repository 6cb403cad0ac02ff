"""The engine's hints: a runtime that ended is looked at now, not with its next round.

Nothing depends on it: a hint that is lost costs the time until the round.
"""

from collections.abc import Callable

import anyio
import structlog

from orchestrator.domain.errors import NestorError
from orchestrator.drivers.base import Driver
from orchestrator.drivers.values import is_spare
from orchestrator.services.reconciler import labels_of
from orchestrator.services.shares import Shares
from orchestrator.services.tending import problem_of
from orchestrator.state.base import Conversations, Spares

log = structlog.get_logger(__name__)
_PAUSE_SECONDS = 2.0  # after a stream that ended


class EngineWatch:
    """Of one replica."""

    def __init__(
        self,
        installation: str,
        driver: Driver,
        conversations: Conversations,
        spares: Spares,
        wake: Callable[[], None],
        shares: Shares,
    ) -> None:
        self._shares = shares
        self._spares = spares
        self._installation = installation
        self._driver = driver
        self._conversations = conversations
        self._wake = wake

    async def run(self) -> None:
        """Until cancelled: read the hints, again after a pause when their stream ends."""
        while True:
            try:
                async for event in self._driver.events():
                    await self._try(event.name)
            except NestorError as exc:
                log.warning("engine.events_ended", problem=problem_of(exc))
            await anyio.sleep(_PAUSE_SECONDS)

    async def _try(self, name: str) -> None:
        """One that cannot be followed costs that one alone: a stream that is opened anew begins behind the others."""
        try:
            await self.heard(name)
        except NestorError as exc:
            log.warning("engine.hint_lost", name=name, problem=problem_of(exc))

    async def heard(self, name: str) -> None:
        """Something happened to the runtime of that name. The replica whose share it is looks."""
        if not self._shares.is_mine(name):
            return
        handle = await self._driver.find(name)
        if handle is not None and handle.labels.installation == self._installation:
            labels = await labels_of(handle, self._spares)
            if labels is None or is_spare(labels):
                return  # nobody's: the pool looks after it
            await self._conversations.poke(labels.tenant, labels.conversation)
            self._wake()
