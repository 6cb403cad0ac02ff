"""Live fan-out of one conversation's events to its sockets.

The conversation publishes after it stored. A frame is encoded once for all listeners of a kind and written straight to
their sockets; none of them can make the run or another listener wait. One that does not keep up is told to go (close
code 1013) when too much lies before it unread, and reads what it missed over REST.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from runtime.events import frames

MAX_SUBSCRIBERS = 256
#: what may lie before one listener unread. A frame is below 1 MiB and most are below 4 KiB.
BACKLOG_BYTES = 16 << 20


class TooManySubscribers(Exception):
    """This conversation has as many open sockets as it serves; close one or try again later."""


class Audience(enum.Enum):
    """Which protocol a listener speaks."""

    EVENTS = "events"  #: bare events
    SESSION = "session"  #: envelopes with places in the log, and the text while it is written


@dataclass(frozen=True, slots=True)
class Closing:
    """Last item of a subscription: the close code and reason for the socket."""

    code: int
    reason: str


SLOW_READER = Closing(1013, "Reading too slowly")
GONE = Closing(4004, "Conversation not found")
MOVED = Closing(1012, "Another server owns this conversation")
STOPPING = Closing(1012, "Server is stopping")


class Outlet(Protocol):
    """Where encoded frames go without waiting: one accepted socket."""

    def write(self, frame: bytes) -> None: ...

    @property
    def backlog(self) -> int: ...


class Subscription:
    """One listener. Frames wait here until `go_live`, from then on they pass straight through. Single event loop."""

    def __init__(self, audience: Audience) -> None:
        self.audience = audience
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._outlet: Outlet | None = None
        self._closing: Closing | None = None
        self._closed = asyncio.Event()

    def put(self, payload: bytes) -> None:
        """A message for this listener alone."""
        self.put_frame(frames.text_frame(payload))

    def put_frame(self, frame: bytes) -> None:
        """An encoded frame; closes the subscription when too much lies before it."""
        if self._closing is not None:
            return
        backlog = self._bytes if self._outlet is None else self._outlet.backlog
        if backlog + len(frame) > BACKLOG_BYTES:
            self._waiting.clear()
            self.close(SLOW_READER)
        elif self._outlet is not None:
            self._outlet.write(frame)
        else:
            self._waiting.append(frame)
            self._bytes += len(frame)

    def take(self) -> list[bytes]:
        """What waits, encoded; for who must send something else first."""
        taken = list(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return taken

    def go_live(self, outlet: Outlet) -> None:
        """Send what waits, and everything from now on, to this outlet."""
        for frame in self.take():
            outlet.write(frame)
        self._outlet = outlet

    def close(self, closing: Closing) -> None:
        """Nothing is taken any more. The first close counts."""
        self._closing = self._closing or closing
        self._closed.set()

    async def closed(self) -> Closing:
        """Why there is nothing more to come. Waits without a deadline: the socket's own pings bound it."""
        await self._closed.wait()
        assert self._closing is not None  # noqa: S101 - set before the event
        return self._closing


class Feed:
    """All sockets of one conversation."""

    def __init__(self) -> None:
        self._listeners: dict[Audience, set[Subscription]] = {audience: set() for audience in Audience}

    def subscribe(self, audience: Audience = Audience.EVENTS) -> Subscription:
        """A new listener: nothing published from now on is missed. Raises TooManySubscribers."""
        if len(self) >= MAX_SUBSCRIBERS:
            raise TooManySubscribers
        subscription = Subscription(audience)
        self._listeners[audience].add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Idempotent."""
        self._listeners[subscription.audience].discard(subscription)

    def publish(self, audience: Audience, payload: bytes) -> None:
        """To all listeners of one protocol. Free when there is none."""
        listeners = self._listeners[audience]
        if not listeners:
            return
        frame = frames.text_frame(payload)
        for subscription in listeners:
            subscription.put_frame(frame)

    def hears(self, audience: Audience) -> bool:
        """Whether anybody listens, so that nothing need be made for nobody."""
        return bool(self._listeners[audience])

    def close(self, closing: Closing) -> None:
        """End every subscription; the sockets close with this code."""
        for listeners in self._listeners.values():
            for subscription in listeners:
                subscription.close(closing)
            listeners.clear()

    def __len__(self) -> int:
        return sum(map(len, self._listeners.values()))
