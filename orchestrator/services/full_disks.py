"""Whether a ready conversation's disk is full: told in its record, with the reason `disk_full`, for as long as it is.

The runtime itself is asked, so that it is known with every driver and for disks that nobody here sees. It goes on: it
answers, and can be read; with space it works again by itself. Called from a round (`tending.py`), under its lease.
"""

from dataclasses import replace

import anyio
import structlog

from orchestrator.domain.conversation import REQUESTED, Conversation, Reason, Why
from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.domain.ids import ConversationId
from orchestrator.nested.refusals import Refused
from orchestrator.services.start import Surroundings, made, save
from orchestrator.state.base import Lease

log = structlog.get_logger(__name__)
_EACH_SECONDS = 15.0  # with rounds of ten: every other one
_ASK_SECONDS = 5.0
_HINT = "remove what is not needed from the workspace, or have its disk enlarged; nothing has to be started again"


class FullDisks:
    """Of one replica."""

    def __init__(self, house: Surroundings, *, each_seconds: float = _EACH_SECONDS) -> None:
        self._house = house
        self._each = each_seconds
        self._asked: dict[ConversationId, float] = {}

    async def look(self, lease: Lease, conversation: Conversation) -> Conversation:
        """The record as it is afterwards. A runtime that cannot be asked now, or does not know, changes nothing. Raises
        `LeaseLost`, `StoreUnavailable`."""
        told = conversation.why.reason is Reason.DISK_FULL
        if not told and not self._is_due(conversation.id):
            return conversation
        runtime, key = made(conversation.runtime), await self._house.keys.inner_key(conversation)
        if key is None or not runtime.address:
            return conversation
        try:
            with anyio.fail_after(_ASK_SECONDS):
                async with self._house.clients.open(f"http://{runtime.address}", key) as client:
                    full = await client.full_disks()
        except (RuntimeUnreachable, Refused, TimeoutError):
            return conversation
        if bool(full) == told:
            return conversation
        log.warning("runtime.disk_full" if full else "runtime.disk_has_space", conversation=conversation.id, full=full)
        why = Why(Reason.DISK_FULL, f"no space is left for {' and '.join(full)}", _HINT, retryable=True)
        return await save(self._house.conversations, lease, replace(conversation, why=why if full else REQUESTED))

    def _is_due(self, id: ConversationId) -> bool:
        """Whether it is; then it counts as asked."""
        now = self._house.clock.monotonic()
        if now - self._asked.get(id, now - self._each) < self._each:
            return False
        self._asked.pop(id, None)  # so that it becomes the youngest
        self._asked[id] = now
        while now - self._asked[oldest := next(iter(self._asked))] > 2 * self._each:
            del self._asked[oldest]
        return True
