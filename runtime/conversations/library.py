"""Which conversations there are, and which of them are in memory.

Records are read at the start; a conversation is opened when somebody needs it and leaves memory when nobody has for a
while: its log, its sockets' feed, its shell and its tools' servers go, the record stays. What is at work stays: a run,
a socket, a request, a program in the shell. One timer is armed for whatever is due next, and none when nothing is open.
Where several servers share the folder, opening claims the conversation (`ownership`). Single event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence, Set
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from runtime.conversations.conversation import Conversation
from runtime.conversations.folder import Folders
from runtime.conversations.ownership import OwnedElsewhere, Ownership
from runtime.conversations.record import ConversationRecord
from runtime.conversations.recovery import recover
from runtime.conversations.runs import Runner
from runtime.conversations.status import Status
from runtime.events.feed import GONE, MOVED, STOPPING, Closing

log = structlog.get_logger()

#: renewals a lease
_RENEWALS = 3


class ConversationNotFound(Exception):
    """No conversation of this runtime has this id."""


@dataclass
class Opened:
    """A conversation in memory and what runs it."""

    conversation: Conversation
    runner: Runner
    users: int = 0  #: requests that are at it now
    leaving: bool = False  #: it is being removed: those who are at it may end, nobody else begins
    one_is_left: asyncio.Event = field(default_factory=asyncio.Event)  #: set while it is leaving
    gone: bool = False  #: it is removed, or about to be
    used: float = field(default_factory=time.monotonic)

    def touch(self) -> None:
        self.used = time.monotonic()

    @property
    def at_work(self) -> bool:
        """Whether it has to stay in memory, however long nobody asked for it."""
        conversation = self.conversation
        return (
            self.users > 0
            or conversation.status is Status.RUNNING
            or len(conversation.feed) > 0
            or conversation.toolbox.at_work
        )


class Library:
    """`make` builds a conversation over its record; it may fail with OSError."""

    def __init__(
        self,
        folders: Folders,
        ownership: Ownership,
        *,
        make: Callable[[ConversationRecord], Opened],
        idle_seconds: float,
    ) -> None:
        self.folders = folders
        self._ownership = ownership
        self._make = make
        self._idle_seconds = idle_seconds
        self._records: dict[UUID, ConversationRecord] = {}
        self._opened: dict[UUID, Opened] = {}
        self._closing: dict[UUID, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.TimerHandle | None = None

    # -- life

    async def load(self) -> None:
        """Read every record, and end runs that a crash broke off; not those of another live server. Raises OSError."""
        records = await asyncio.to_thread(self._read_all)
        self._records = {record.id: record for record, _ in records}
        for record, is_behind in records:
            if is_behind or record.execution_status is Status.RUNNING:
                try:
                    await self.open(record.id)
                except OwnedElsewhere:
                    log.info("conversation.owned_elsewhere", conversation=str(record.id))

    async def close(self) -> None:
        """Break off runs, end shells, close sockets, give claims back. Idempotent."""
        for timer in (self._timer, self._renewal):
            if timer is not None:
                timer.cancel()
        self._timer = self._renewal = None
        await asyncio.gather(*self._closing.values())
        for opened in list(self._opened.values()):
            if not opened.gone:
                await opened.runner.cancel()
                await opened.conversation.close(STOPPING)
        self._opened.clear()
        self._ownership.close()

    def _sealed_anew(self, record: ConversationRecord) -> ConversationRecord:
        """With the current key, so that an earlier one can be dropped. What another server owns is left to it."""
        try:
            self._ownership.claim(record.id)
        except (OwnedElsewhere, OSError):
            return record
        try:
            now = self.folders.read(record.id) or record
            self.folders.write(now)
            log.info("conversation.sealed_anew", conversation=str(record.id))
            return now
        except OSError as error:
            log.error("conversation.not_sealed_anew", conversation=str(record.id), error=error.strerror)
            return record
        finally:
            self._ownership.release(record.id)

    def _read_all(self) -> list[tuple[ConversationRecord, bool]]:
        """Each with whether its log has gone on without it."""
        read = [record for found in self.folders.ids() if (record := self.folders.read(found)) is not None]
        records = [self._sealed_anew(record) if self.folders.is_stale(record.id) else record for record in read]
        return [(record, self.folders.is_behind(record)) for record in records]

    # -- looking

    def record(self, conversation_id: UUID) -> ConversationRecord:
        """The record without opening its conversation. Raises ConversationNotFound, OwnedElsewhere."""
        if self._ownership.shared and conversation_id not in self._opened and conversation_id not in self._closing:
            if self._ownership.is_elsewhere(conversation_id):
                raise OwnedElsewhere
            self._refresh(conversation_id)
        try:
            return self._records[conversation_id]
        except KeyError:
            raise ConversationNotFound from None

    def elsewhere(self, ids: Iterable[UUID]) -> Set[UUID]:
        """Those of them that another live server owns. Cheap where there is no other."""
        if not self._ownership.has_company():
            return frozenset()
        return {id for id in ids if id not in {*self._opened, *self._closing} and self._ownership.is_elsewhere(id)}

    async def recovered(self, conversation_id: UUID) -> ConversationRecord:
        """The same; of a server that died it is made consistent first. Raises OSError as well."""
        record = self.record(conversation_id)
        if conversation_id in self._opened or not self._ownership.shared:
            return record
        if record.execution_status is Status.RUNNING or self.folders.is_behind(record):
            return (await self.open(conversation_id)).conversation.record
        return record

    def records(self) -> Sequence[ConversationRecord]:
        """All of them, in no order; those of other servers as they last wrote them."""
        if self._ownership.has_company():
            for id in {*self._records, *self.folders.ids()} - {*self._opened, *self._closing}:
                self._refresh(id)
        return list(self._records.values())

    def exists(self, conversation_id: UUID) -> bool:
        """Whether there is one, whoever owns it."""
        if self._ownership.shared and conversation_id not in self._opened:
            self._refresh(conversation_id)
        return conversation_id in self._records

    def opened(self, conversation_id: UUID) -> Opened | None:
        """The conversation when it is in memory; None says nothing about whether it exists."""
        return self._opened.get(conversation_id)

    def all_opened(self) -> Sequence[Opened]:
        return list(self._opened.values())

    def _refresh(self, conversation_id: UUID) -> None:
        """Read what another server has written since. One look at the file when nobody has."""
        if not self.folders.is_changed(conversation_id):
            return
        record = self.folders.read(conversation_id)
        if record is None:
            self._records.pop(conversation_id, None)
        else:
            self._records[conversation_id] = record

    # -- opening

    async def open(self, conversation_id: UUID) -> Opened:
        """The conversation, brought into memory when it is not there.

        Raises ConversationNotFound, OwnedElsewhere, OSError.
        """
        while (closing := self._closing.get(conversation_id)) is not None:
            await asyncio.shield(closing)
        opened = self._opened.get(conversation_id)
        if opened is None:
            return await self._bring(self.record(conversation_id))
        if opened.leaving:
            raise ConversationNotFound
        opened.touch()
        return opened

    @asynccontextmanager
    async def using(self, conversation_id: UUID) -> AsyncIterator[Opened]:
        """The same, and it stays in memory for the length of the block, however long that is. What fails in the block
        because somebody has removed the conversation meanwhile is ConversationNotFound too."""
        opened = await self.open(conversation_id)
        opened.users += 1
        try:
            yield opened
        except OSError:
            if opened.gone:
                raise ConversationNotFound from None
            raise
        finally:
            opened.users -= 1
            opened.touch()
            if opened.leaving and opened.users == 1:
                opened.one_is_left.set()

    @contextmanager
    def leaving(self, opened: Opened) -> Iterator[None]:
        """For the length of the block nobody can open it: to everybody else it is gone already."""
        opened.leaving = True
        try:
            yield
        finally:
            opened.leaving = False

    async def alone(self, opened: Opened, *, seconds: float) -> None:
        """Wait, at most so long, until the one who calls is the last who uses it. While it is leaving."""
        if opened.users > 1:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await opened.one_is_left.wait()

    async def add(self, record: ConversationRecord, write: Callable[[], None]) -> Opened:
        """A new conversation; `write` makes its folder, in a thread. Raises what it does; then nothing is left."""
        try:
            await asyncio.to_thread(write)
            self._records[record.id] = record
            return await self._bring(record)
        except BaseException:
            opened = self._opened.pop(record.id, None)
            self._records.pop(record.id, None)
            if opened is not None:
                await opened.conversation.close(GONE)
            await asyncio.to_thread(self.folders.remove, record.id)
            self._ownership.release(record.id)
            raise

    async def _bring(self, record: ConversationRecord) -> Opened:
        """Consistent with its log. No await before it is registered, so two callers get the same one."""
        self._ownership.claim(record.id)
        try:
            opened = self._make(record)
        except BaseException:
            self._ownership.release(record.id)
            raise
        self._opened[record.id] = opened
        self._arm()
        self._arm_renewal()
        await recover(opened.conversation)
        return opened

    async def remove(self, opened: Opened, closing: Closing) -> None:
        """Close it for good and remove its folder. Raises OSError."""
        id = opened.conversation.id
        opened.gone = True
        try:
            await opened.conversation.close(closing)
            await asyncio.to_thread(self.folders.remove, id)
        finally:  # not before: whoever asked for it meanwhile would read it from the disk again
            self._opened.pop(id, None)
            self._records.pop(id, None)
            self._ownership.release(id)

    # -- leaving memory

    def _arm(self) -> None:
        if self._timer is not None or not self._opened:
            return
        due = min(opened.used for opened in self._opened.values()) + self._idle_seconds
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - time.monotonic()), self._due)

    def _due(self) -> None:
        self._timer = None
        limit = time.monotonic() - self._idle_seconds
        for id, opened in list(self._opened.items()):
            if opened.used > limit:
                continue
            if opened.at_work:
                opened.touch()
            else:
                self._leave(id, opened, STOPPING)
        self._arm()

    def _leave(self, id: UUID, opened: Opened, closing: Closing) -> None:
        del self._opened[id]
        self._closing[id] = asyncio.create_task(self._end(id, opened, closing), name=f"close {id}")

    async def _end(self, id: UUID, opened: Opened, closing: Closing) -> None:
        try:
            await opened.runner.cancel()
            await opened.conversation.close(closing)
            log.info("conversation.left_memory", conversation=str(id), reason=closing.reason)
        except Exception:  # the edge of a task that nobody awaits: the conversation must be openable again
            log.error("conversation.not_closed", conversation=str(id), exc_info=True)
        finally:
            self._ownership.release(id)
            self._closing.pop(id, None)
        if not self._closing:
            await asyncio.to_thread(_give_back)

    # -- what other servers may take

    def _arm_renewal(self) -> None:
        if self._renewal is None and self._ownership.claims:
            seconds = self._ownership.lease_seconds / _RENEWALS
            self._renewal = asyncio.get_running_loop().call_later(seconds, self._renew)

    def _renew(self) -> None:
        self._renewal = None
        try:
            self._ownership.renew()
        except OSError as error:
            log.warning("ownership.not_renewed", error=error.strerror)
        if self._ownership.shared:
            for id in set(self._opened) - self._ownership.claims:
                log.warning("conversation.ownership_lost", conversation=str(id))
                self.folders.forget(id)  # what memory has of it may be behind
                self._leave(id, self._opened[id], MOVED)
        self._arm_renewal()


def _give_back() -> None:
    """Let the C library return what was freed to the system: it keeps pieces between others that are in use."""
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such call
        ctypes.CDLL(None).malloc_trim(0)
