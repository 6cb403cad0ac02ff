"""When the record of a conversation is written to disk: now, or soon.

What the log can restore need not wait for a write of the whole record: `soon` writes it a moment later, once for all
that happened meanwhile, and `runtime.conversations.recovery` catches up from the log when a crash came first. What the
log does not have is written by `now` before anybody is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from runtime.conversations.folder import Folders
from runtime.conversations.record import ConversationRecord
from runtime.events.log import EventLog

log = structlog.get_logger()

SOON_SECONDS = 1.0


class Saving:
    """Writes one conversation's record, one write at a time. Single event loop."""

    def __init__(
        self,
        record: Callable[[], ConversationRecord],
        *,
        folders: Folders,
        events: EventLog,
        may_write: Callable[[], None],
    ) -> None:
        self._record = record
        self._may_write = may_write
        self._folders = folders
        self._events = events
        self._lock = asyncio.Lock()
        self._writing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._later: asyncio.Task[None] | None = None
        self._ended = False

    async def now(self) -> None:
        """Write the record as it is now. Raises OSError."""
        async with self._lock:
            self._forget_timer()
            self._may_write()
            if self._ended:
                raise OSError("nothing is written of a conversation that was removed")
            record = self._record()
            record.log_events, record.log_bytes = len(self._events), self._events.index.end
            record.touch()
            copy = record.model_copy(deep=True)
            # A cancelled run must not leave a thread that writes into a folder being removed: `close` waits for it.
            self._writing = asyncio.ensure_future(asyncio.to_thread(self._folders.write, copy))
            await asyncio.shield(self._writing)

    def soon(self) -> None:
        """Write the record within a second. For changes that the log has already."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SOON_SECONDS, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._later = asyncio.create_task(self._write_later())

    async def _write_later(self) -> None:
        try:
            await self.now()
        except OSError as error:
            log.warning("record.not_written", error=error.strerror, effect="made up from the log when opened next")

    async def close(self, *, write: bool) -> None:
        """Write what `soon` still owes when asked to, else forget it, and refuse what still comes. Idempotent."""
        owed = self._timer is not None
        self._ended = not write
        self._forget_timer()
        if self._later is not None:
            await asyncio.gather(self._later, return_exceptions=True)
        if self._writing is not None:
            await asyncio.wait({self._writing})
        if owed and write:
            await self._write_later()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
