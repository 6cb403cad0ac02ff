"""All webhooks of one runtime: what a conversation tells goes to a lane at every receiver.

`RuntimeState` makes one when receivers are configured, starts it after the conversations and closes it when their runs
have ended. Implements the conversations' `Outward`. Single event loop.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from runtime.conversations.conversation import Conversation
from runtime.conversations.record import ConversationRecord
from runtime.conversations.service import ConversationService
from runtime.events.log import EventLog
from runtime.events.models import ConversationStateUpdateEvent, Event
from runtime.secrets.masking import Mask
from runtime.settings import RuntimeSettings
from runtime.webhooks import position
from runtime.webhooks.batch import wire_form, wire_forms
from runtime.webhooks.kept import About, Kept, KeptSource, Shelf
from runtime.webhooks.lane import Lane
from runtime.webhooks.receiver import Receiver
from runtime.webhooks.sender import Sender
from runtime.webhooks.source import LiveSource, digest, state_of

log = structlog.get_logger()

#: how long an ending runtime goes on sending
CLOSE_SECONDS = 3.0
_BLOCK = 200


@dataclass(frozen=True)
class _LastWords:
    """What is to be known of a conversation when it is gone."""

    about: About
    mask: Mask | None


class Webhooks:
    """Implements Outward."""

    hears = True

    def __init__(self, settings: RuntimeSettings, *, sender: type[Sender] = Sender) -> None:
        headers = {} if settings.generation is None else {"x-nestor-generation": str(settings.generation)}
        session_key = settings.session_api_keys[0] if settings.session_api_keys else None
        self._receivers = [
            Receiver(webhook, sender(webhook, session_key=session_key), headers=headers)
            for webhook in settings.webhooks
        ]
        self._shelf = Shelf(settings.conversations_path)
        self._conversations: ConversationService | None = None
        self._sources: dict[UUID, LiveSource] = {}
        #: conversations on their way out, with what was kept of them
        self._removing: dict[UUID, Kept | None] = {}
        self._begun = asyncio.Event()
        self._beginning: asyncio.Task[None] | None = None
        self._farewells: set[asyncio.Task[None]] = set()

    # -- life

    def attach(self, conversations: ConversationService) -> None:
        """Whose conversations they are; before anything of them is told."""
        self._conversations = conversations

    def start(self) -> None:
        """Begin to send, what an earlier life owes included. Returns at once."""
        self._beginning = asyncio.create_task(self._begin(), name="webhooks begin")

    async def close(self) -> None:
        """Send for a few seconds more; the rest is sent after the next start. Idempotent."""
        if self._beginning is not None:
            self._beginning.cancel()
            await asyncio.gather(self._beginning, return_exceptions=True)
        await asyncio.gather(*(receiver.close(seconds=CLOSE_SECONDS) for receiver in self._receivers))
        farewells = list(self._farewells)
        for farewell in farewells:
            farewell.cancel()
        await asyncio.gather(*farewells, return_exceptions=True)

    # -- Outward

    def stored(self, conversation_id: UUID, *, events: int, size: int) -> None:
        for lane in self._lanes(conversation_id, events):
            lane.stored(events=events, size=size)

    def live(self, conversation_id: UUID, event: Event, *, events: int, mask: Mask) -> None:
        name = f"{event.kind}.{event.key}" if isinstance(event, ConversationStateUpdateEvent) else event.kind
        form = wire_form(event, mask if mask.longest else None)
        for lane in self._lanes(conversation_id, events):
            lane.live(name, form, events=events)

    def changed(self, conversation_id: UUID, *, events: int, flush: bool) -> None:
        for lane in self._lanes(conversation_id, events):
            lane.changed()
            if flush:
                lane.flush()

    async def leaving(self, conversation_id: UUID) -> None:
        await self._begun.wait()
        conversation = self._attached.opened(conversation_id)
        assert conversation is not None  # noqa: S101 - whoever removes it has it open
        self._removing[conversation_id] = None
        self._sources.pop(conversation_id, None)
        for receiver in self._receivers:
            await receiver.drop(conversation_id)
        words = _last_words(conversation)
        try:
            self._removing[conversation_id] = await asyncio.to_thread(self._keep, conversation, words)
        except OSError as error:
            # The conversation goes all the same: whoever deletes one may do it to free the disk.
            effect = "receivers are told neither that it is deleted nor what they lack of it"
            log.error("webhook.not_kept", conversation=str(conversation_id), error=error.strerror, effect=effect)

    def left(self, conversation_id: UUID) -> None:
        kept = self._removing.pop(conversation_id, None)
        if kept is not None:
            self._see_off(kept)

    # -- inside

    @property
    def _attached(self) -> ConversationService:
        assert self._conversations is not None  # noqa: S101 - attached before anything is told
        return self._conversations

    def _lanes(self, conversation_id: UUID, events: int) -> Iterator[Lane]:
        if conversation_id in self._removing:
            return
        source = self._source(conversation_id)
        for receiver in self._receivers:
            yield receiver.lane(source, events=events)

    def _source(self, conversation_id: UUID) -> LiveSource:
        found = self._sources.get(conversation_id)
        if found is None:
            found = self._sources[conversation_id] = LiveSource(conversation_id, self._attached)
        return found

    async def _begin(self) -> None:
        """Take up what an earlier life owes, then send. A conversation costs some microseconds, and no memory when
        nobody waits for anything of it."""
        records = self._attached.records()
        living = {(record.id, record.created_at.isoformat()) for record in records}
        try:
            for kept in await asyncio.to_thread(self._shelf.read, living):
                self._see_off(kept)
        except OSError as error:
            log.error("webhook.kept_unreadable", error=error.strerror)
        finally:
            self._begun.set()
        for record in records:
            try:
                self._resume(record)
            except Exception:  # the edge of a delivery: one conversation must not keep the others from being sent
                log.error("webhook.not_resumed", conversation=str(record.id), exc_info=True)
            await asyncio.sleep(0)
        for receiver in self._receivers:
            receiver.open()

    def _resume(self, record: ConversationRecord) -> None:
        if record.id in self._removing:
            return
        opened = self._attached.opened(record.id)
        events = len(opened.events) if opened is not None else record.log_events
        folder = self._attached.folders.path(record.id)
        for receiver in self._receivers:
            now = position.read(folder, receiver.webhook.key)
            changed = now.state != digest(record, folder)
            if changed or now.acknowledged < events:
                lane = receiver.lane(self._source(record.id), events=events)
                if changed:
                    lane.changed()
                lane.flush()

    def _keep(self, conversation: Conversation, words: _LastWords) -> Kept:
        """In a thread. Raises OSError."""
        positions = {
            receiver.webhook.key: position.read(conversation.folder, receiver.webhook.key)
            for receiver in self._receivers
        }
        after = min(one.acknowledged for one in positions.values())
        return self._shelf.keep(
            conversation.id,
            words.about,
            _wire_forms(conversation.events, after, words.about.last, words.mask),
            positions,
        )

    def _see_off(self, kept: Kept) -> None:
        receivers = [receiver for receiver in self._receivers if kept.knows(receiver.webhook.key)]
        lanes = [receiver.leaving(KeptSource(kept), events=kept.about.last) for receiver in receivers]
        farewell = asyncio.create_task(self._wait(kept, receivers, lanes), name=f"farewell {kept.conversation}")
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)

    async def _wait(self, kept: Kept, receivers: Sequence[Receiver], lanes: Sequence[Lane]) -> None:
        """Until everybody has what was kept for them; then nobody needs it any more."""
        for receiver, lane in zip(receivers, lanes, strict=True):
            await lane.empty.wait()
            receiver.forget(lane)
        await asyncio.to_thread(kept.remove)


def _last_words(conversation: Conversation) -> _LastWords:
    state = state_of(conversation)
    about = About(
        conversation=str(conversation.id),
        created_at=conversation.record.created_at.isoformat(),
        deleted_at=time.time(),
        first=0,
        through=0,
        last=state.events,
        body=json.loads(state.body),
    )
    return _LastWords(about, conversation.mask if conversation.mask.longest else None)


def _wire_forms(events: EventLog, after: int, last: int, mask: Mask | None) -> Iterator[bytes]:
    for start in range(after, last, _BLOCK):
        lines = events.lines(start, min(start + _BLOCK, last))
        yield from wire_forms(lines, mask, most_bytes=sys.maxsize)
