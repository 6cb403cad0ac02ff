"""Who uses what: requests and open sockets, gathered in memory and written to the store in batches.

The proxy calls `touch` for each request, so it costs a set entry and never a write. Another replica sees it one period
later, which is why no idle time may be shorter than a few periods.
"""

from collections.abc import Callable, Iterable

import anyio
import structlog

from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state.base import Conversations
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
Used = tuple[TenantId, ConversationId]
Written = Callable[[ConversationId, int], None]


def _nobody(_conversation: ConversationId, _version: int) -> None:
    """Nobody is told."""


class Activity:
    """Of one replica. `in_use` answers what has a request or a socket open now. `written` is told which version the
    record of a conversation has whose use was written."""

    def __init__(
        self,
        conversations: Conversations,
        *,
        period: float = 4.5,
        written: Written = lambda conversation, version: None,
    ) -> None:
        self._conversations = conversations
        self._period = period
        self._written = written
        self._seen: set[Used] = set()
        self._in_use: Callable[[], Iterable[Used]] = tuple

    def watch(self, in_use: Callable[[], Iterable[Used]]) -> None:
        """From now on `in_use` is asked as well."""
        self._in_use = in_use

    def touch(self, tenant: TenantId, conversation: ConversationId) -> None:
        """Somebody uses it now."""
        self._seen.add((tenant, conversation))

    def is_used(self, tenant: TenantId, conversation: ConversationId) -> bool:
        """Whether somebody used it since the last batch, or uses it now, here."""
        used = (tenant, conversation)
        return used in self._seen or used in self._in_use()

    async def run(self) -> None:
        """Until cancelled: a pause, then a batch."""
        while True:
            await anyio.sleep(self._period)
            try:
                with metrics.ticking("activity"):
                    await self.flush()
            except StoreUnavailable as exc:
                log.warning("activity.not_written", problem=exc.message)

    async def flush(self) -> None:
        """Write what was seen. Raises `StoreUnavailable`; what was not written then is written with the next batch."""
        self._seen.update(self._in_use())
        for used in list(self._seen):
            version = await self._conversations.touch(*used)
            self._written(used[1], version)
            self._seen.discard(used)
