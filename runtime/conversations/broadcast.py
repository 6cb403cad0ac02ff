"""What a conversation tells its listeners: each event in both protocols, and the text of an answer while it is written.

The conversation gives stored lines and live events to a `Broadcast`; this decides what each audience gets. An event too
large for a socket is not cut, because a client keeps the first form of an event that it sees: the listeners are told
that it exists and read it whole over REST. Knows nothing of runs beyond when one is over.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import structlog

from runtime.events import frames
from runtime.events.clock import utc_now
from runtime.events.feed import Audience, Feed
from runtime.events.models import Event, ServerErrorEvent, StreamingDeltaEvent, compact

log = structlog.get_logger()

_TOO_LARGE = "EventTooLarge"


class Broadcast:
    """One conversation's voice. Single event loop."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._item: str | None = None
        self._order = 0

    def stored(self, seq: int, event_id: str, line: bytes) -> None:
        """An event that is in the log now, at place `seq`."""
        if self._item == event_id:
            self._item = None  # the durable frame is what ends the item
        if self._feed.hears(Audience.EVENTS):
            self._feed.publish(Audience.EVENTS, event_payload(line, event_id))
        if self._feed.hears(Audience.SESSION):
            self._feed.publish(Audience.SESSION, durable_payload(seq, line))

    def live(self, event: Event, *, events: int) -> None:
        """An event that is not stored, while the log has `events` events."""
        if isinstance(event, StreamingDeltaEvent):
            self._write(event, events)
        elif self._feed.hears(Audience.SESSION):
            self._feed.publish(Audience.SESSION, transient_payload(compact(event)))
        if self._feed.hears(Audience.EVENTS):
            self._feed.publish(Audience.EVENTS, event_payload(compact(event), event.id))

    def _write(self, event: StreamingDeltaEvent, events: int) -> None:
        """An answer's text as it comes: an item is opened by the first piece, whoever listens."""
        pieces = (("reasoning", event.reasoning_content), ("text", event.content))
        for kind, content in pieces:
            if not content:
                continue
            if self._item is None:
                self._item, self._order = str(uuid4()), 0
                anchor = events - 1 if events else None
                self._say("item_started", item_id=self._item, attempt=1, anchor_seq=anchor)
            self._say(
                "delta",
                item_id=self._item,
                attempt=1,
                order=self._order,
                kind=kind,
                content=content,
                choice_index=0,  # answers with several choices are never asked for
            )
            self._order += 1

    @property
    def item(self) -> str | None:
        """The id that the event with the answer must have; None when nothing was written."""
        return self._item

    def abort(self, reason: str) -> None:
        """No event will come of what was written. Idempotent."""
        if self._item is not None:
            item, self._item = self._item, None
            self._say("item_aborted", item_id=item, attempt=1, reason=reason)

    def _say(self, name: str, /, **fields: Any) -> None:
        if self._feed.hears(Audience.SESSION):
            self._feed.publish(Audience.SESSION, frames.envelope(name, **fields))


def event_payload(line: bytes, event_id: str) -> bytes:
    """The event for the event socket, or word of it when it is larger than a client takes."""
    if len(line) <= frames.LARGEST_EVENT:
        return line
    log.warning("event.too_large_for_sockets", event_id=event_id, bytes=len(line))
    detail = f"Event {event_id} has {len(line)} bytes, more than a frame may have; read it over REST"
    now = utc_now().isoformat(timespec="microseconds")
    return compact(ServerErrorEvent(id=str(uuid4()), timestamp=now, code=_TOO_LARGE, detail=detail))


def durable_payload(seq: int, line: bytes) -> bytes:
    """The same for a session socket."""
    if len(line) <= frames.LARGEST_SESSION:
        return frames.durable(seq, line)
    return frames.error(_TOO_LARGE, f"The event at {seq} has {len(line)} bytes; read it over REST")


def transient_payload(line: bytes) -> bytes:
    if len(line) <= frames.LARGEST_SESSION:
        return frames.transient(line)
    return frames.error(_TOO_LARGE, f"A live event has {len(line)} bytes, more than a frame may have")
