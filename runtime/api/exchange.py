"""The two WebSockets of a conversation, between the handshake and the close: what was asked for again, then live.

Both take the same frames from a client: a message, which is stored and run; a late auth frame, which means nothing;
anything else is answered with an error in the socket's own form and the socket stays open. What differs is given in a
`Dialect`. Knows nothing of query parameters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from runtime.api.socket_auth import NOT_READY, close, is_late_auth, json_frame, receive_text
from runtime.conversations.agents import CapacityFull
from runtime.conversations.conversation import Conversation
from runtime.conversations.library import ConversationNotFound
from runtime.conversations.ownership import OwnedElsewhere
from runtime.conversations.start import GivenMessage
from runtime.events.feed import GONE, MOVED, SLOW_READER, Closing, Subscription, TooManySubscribers
from runtime.events.frames import text_frame
from runtime.serving import WIRE, Wire
from runtime.state import Dormant, RuntimeState

TRY_LATER = Closing(1013, "Too many sockets of this conversation")
#: read and sent in one go when events are sent again
_REPLAY_EVENTS = 100
#: how long a client may leave unread what is sent again
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Dialect:
    """One protocol: its subscription, where sending again begins, how a stored event and an error look."""

    subscribe: Callable[[Conversation], Subscription]
    begin: Callable[[Conversation], int]
    stored: Callable[[int, bytes], bytes]
    error: Callable[[Conversation, str, str], bytes]


async def serve(socket: WebSocket, state: RuntimeState, wanted: UUID, dialect: Dialect) -> None:
    """All of an accepted socket's life. Raises WebSocketDisconnect."""
    try:
        conversation = await state.conversations.get(wanted)
        # In one step with the subscription: what is stored now is sent again, what comes later is live.
        subscription = dialect.subscribe(conversation)
    except ConversationNotFound:
        await close(socket, GONE)
    except OwnedElsewhere:
        await close(socket, MOVED)
    except TooManySubscribers:
        await close(socket, TRY_LATER)
    except Dormant:
        await close(socket, NOT_READY)
    else:
        replay = range(dialect.begin(conversation), len(conversation.events))
        try:
            await _Exchange(socket, state, conversation, subscription, dialect).run(replay)
        finally:
            conversation.feed.unsubscribe(subscription)


class FrameMessage(GivenMessage):
    """A message in a frame names its role."""

    role: Literal["user", "system", "assistant", "tool"]


class _Exchange:
    """One socket that listens to one conversation."""

    def __init__(
        self,
        socket: WebSocket,
        state: RuntimeState,
        conversation: Conversation,
        subscription: Subscription,
        dialect: Dialect,
    ) -> None:
        self._socket = socket
        self._state = state
        self._conversation = conversation
        self._subscription = subscription
        self._dialect = dialect

    async def run(self, replay: range) -> None:
        """Write and read until one of them ends; then both have."""
        tasks = (asyncio.create_task(self._write(replay)), asyncio.create_task(self._read()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            endings = await asyncio.gather(*tasks, return_exceptions=True)
        for ending in endings:
            if isinstance(ending, Exception) and not isinstance(ending, WebSocketDisconnect):
                raise ending

    async def _write(self, replay: range) -> None:
        wire: Wire = self._socket.scope["extensions"][WIRE]
        try:
            for frame in self._subscription.take():  # the whole state
                wire.write(frame)
            for start in range(replay.start, replay.stop, _REPLAY_EVENTS):
                numbers = range(start, min(start + _REPLAY_EVENTS, replay.stop))
                for number, line in zip(numbers, self._lines(numbers), strict=True):
                    wire.write(text_frame(self._dialect.stored(number, line)))
                await asyncio.sleep(0)  # others have their turn, however fast this client reads
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await wire.drained()
            self._subscription.go_live(wire)
            closing = await self._subscription.closed()
        except TimeoutError:
            closing = SLOW_READER
        await close(self._socket, closing)

    def _lines(self, numbers: range) -> list[bytes]:
        return self._conversation.events.lines(numbers.start, numbers.stop)

    async def _read(self) -> None:
        while True:
            text = await receive_text(self._socket)
            frame = json_frame(text)
            if frame is not None and is_late_auth(frame):
                continue
            error = await self._take(frame)
            if error is not None:
                self._subscription.put(self._dialect.error(self._conversation, *error))

    async def _take(self, frame: dict[str, Any] | None) -> tuple[str, str] | None:
        """Store the frame's message and run it; what is wrong with it, when something is."""
        if frame is None:
            return "JSONDecodeError", "The frame is not a JSON object"
        try:
            given = FrameMessage.model_validate(frame)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False, include_context=False)
            return "ValidationError", "; ".join(
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in problems
            )
        try:
            await self._state.conversations.agents.receive(self._conversation.id, given, run=True)
        except CapacityFull:
            return "CapacityFull", "The message is stored; too many conversations run to start it now"
        except ConversationNotFound:
            return "ConversationNotFound", "The conversation was removed"
        return None
