"""Live fan-out of one conversation's events to its sockets.

The conversation publishes after it stored; each socket reads its own bounded queue. A reader that does not keep up is
told to go (close code 1013) instead of slowing the others or filling memory; it reads what it missed over REST. Knows
nothing of the wire format of sockets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

MAX_SUBSCRIBERS = 200
#: frames a socket may lag behind. A frame is below 1 MiB and most are below 4 KiB.
QUEUE_FRAMES = 2_000
QUEUE_BYTES = 16 << 20


class TooManySubscribers(Exception):
    """This conversation has as many open sockets as it serves; close one or try again later."""


@dataclass(frozen=True, slots=True)
class Closing:
    """Last item of a subscription: the close code and reason for the socket."""

    code: int
    reason: str


SLOW_READER = Closing(1013, "Reading too slowly")
GONE = Closing(4004, "Conversation not found")
STOPPING = Closing(1012, "Server is stopping")


class Subscription:
    """One socket's queue. Single reader, single event loop."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._closing: Closing | None = None
        self._wake = asyncio.Event()

    def put(self, frame: bytes) -> None:
        if self._closing is not None:
            return
        if len(self._frames) >= QUEUE_FRAMES or self._bytes + len(frame) > QUEUE_BYTES:
            self._frames.clear()
            self.close(SLOW_READER)
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        self._wake.set()

    def close(self, closing: Closing) -> None:
        """What is queued is still delivered, then the reader gets `closing`. The first close counts."""
        self._closing = self._closing or closing
        self._wake.set()

    async def next(self) -> bytes | Closing:
        """The next frame, or why there is none any more. Waits without a deadline: the socket's own pings bound it."""
        while not self._frames:
            if self._closing is not None:
                return self._closing
            self._wake.clear()
            await self._wake.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        return frame


class Feed:
    """All sockets of one conversation."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def subscribe(self, first: bytes) -> Subscription:
        """A new reader whose first frame is `first`; nothing published from now on is missed. TooManySubscribers."""
        if len(self._subscriptions) >= MAX_SUBSCRIBERS:
            raise TooManySubscribers
        subscription = Subscription()
        subscription.put(first)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Idempotent."""
        self._subscriptions.discard(subscription)

    def publish(self, frame: bytes) -> None:
        for subscription in self._subscriptions:
            subscription.put(frame)

    def close(self, closing: Closing) -> None:
        """End every subscription; the sockets close with this code."""
        for subscription in self._subscriptions:
            subscription.close(closing)
        self._subscriptions.clear()

    def __len__(self) -> int:
        return len(self._subscriptions)
