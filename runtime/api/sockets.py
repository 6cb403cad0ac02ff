"""The WebSocket of a conversation's events (contract 6.1): who may listen, what is sent, how it closes.

One task reads the client's frames, the other writes the conversation's; either one's end closes the socket. Whole state
first, then what the client asked to be sent again, then everything new.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, WebSocket, WebSocketDisconnect
from pydantic import ValidationError
from starlette.websockets import WebSocketState

from runtime.api.bodies import check_json
from runtime.api.dependencies import KEY_HEADER, runtime_state
from runtime.conversations.conversation import Conversation
from runtime.conversations.service import CapacityFull, ConversationNotFound
from runtime.conversations.start import GivenMessage
from runtime.events.clock import micros_of
from runtime.events.feed import GONE, SLOW_READER, Closing, Subscription, TooManySubscribers
from runtime.events.models import ServerErrorEvent, compact
from runtime.state import Dormant, RuntimeState

router = APIRouter()
log = structlog.get_logger()

AUTH_SECONDS = 10.0
UNAUTHENTICATED = Closing(4001, "Authentication failed")
TRY_LATER = Closing(1013, "Too many sockets of this conversation")
NOT_READY = Closing(1013, "Runtime is dormant: waiting for POST /api/init")
SEND_SECONDS = 30.0
_REPLAY_EVENTS = 100


class BadParameter(ValueError):
    """A query parameter or the id is not what the contract allows: the handshake is refused."""


@router.websocket("/sockets/events/{conversation_id}")
async def events(
    socket: WebSocket, conversation_id: str, state: Annotated[RuntimeState, Depends(runtime_state)]
) -> None:
    try:
        wanted, since = _parameters(socket, conversation_id)
    except BadParameter:
        await socket.close(1008)  # before accepting, so the client sees 403
        return
    try:
        if await _admit(socket, state):
            await _serve(socket, state, wanted, since)
    except WebSocketDisconnect:
        return  # the client left; nothing is owed to it


async def _admit(socket: WebSocket, state: RuntimeState) -> bool:
    """Accept a client that has the key; close or refuse one that has not."""
    given = socket.query_params.get("session_api_key") or socket.headers.get(KEY_HEADER)
    if state.session_keys.is_open or given is not None:
        if not state.session_keys.accepts(given):
            await socket.close(UNAUTHENTICATED.code, UNAUTHENTICATED.reason)
            return False
        await socket.accept()
        return True
    await socket.accept()
    try:
        async with asyncio.timeout(AUTH_SECONDS):
            frame = _object(await _text(socket))
    except TimeoutError:
        frame = None
    if frame is None or frame.get("type") != "auth" or not _accepts(state, frame.get("session_api_key")):
        await _close(socket, UNAUTHENTICATED)
        return False
    return True


async def _serve(socket: WebSocket, state: RuntimeState, wanted: UUID, since: datetime | None) -> None:
    try:
        conversation = await state.conversations.get(wanted)
        # In one step with the whole state: what is stored now is sent again, what comes later is live.
        subscription = conversation.subscribe()
        replay = range(_replay_start(conversation, since), len(conversation.events))
    except ConversationNotFound:
        await _close(socket, GONE)
    except TooManySubscribers:
        await _close(socket, TRY_LATER)
    except Dormant:
        await _close(socket, NOT_READY)
    else:
        try:
            await _exchange(socket, state, conversation, subscription, replay)
        finally:
            conversation.feed.unsubscribe(subscription)


async def _exchange(
    socket: WebSocket, state: RuntimeState, conversation: Conversation, subscription: Subscription, replay: range
) -> None:
    """Write and read until one of them ends; then both have."""
    tasks = (
        asyncio.create_task(_write(socket, conversation, subscription, replay)),
        asyncio.create_task(_read(socket, state, conversation, subscription)),
    )
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        endings = await asyncio.gather(*tasks, return_exceptions=True)
    for ending in endings:
        if isinstance(ending, Exception) and not isinstance(ending, WebSocketDisconnect):
            raise ending


async def _write(socket: WebSocket, conversation: Conversation, subscription: Subscription, replay: range) -> None:
    try:
        first = await subscription.next()
        if isinstance(first, bytes):
            await _send(socket, first)
        for start in range(replay.start, replay.stop, _REPLAY_EVENTS):
            for line in conversation.events.lines(start, min(start + _REPLAY_EVENTS, replay.stop)):
                await _send(socket, line)
        item = first if isinstance(first, Closing) else await subscription.next()
        while isinstance(item, bytes):
            await _send(socket, item)
            item = await subscription.next()
    except TimeoutError:
        item = SLOW_READER
    await _close(socket, item)


async def _read(socket: WebSocket, state: RuntimeState, conversation: Conversation, subscription: Subscription) -> None:
    """The client's frames: messages, which are stored and run; a late auth frame, which means nothing; or errors."""
    while True:
        text = await _text(socket)
        frame = _object(text)
        if frame is not None and frame.get("type") == "auth" and frame.keys() <= {"type", "session_api_key"}:
            continue
        error = await _take(state, conversation, text, frame)
        if error is not None:
            subscription.put(compact(error))


async def _take(
    state: RuntimeState, conversation: Conversation, text: str, frame: dict[str, Any] | None
) -> ServerErrorEvent | None:
    """Store the frame's message and run it; what is wrong with it, when something is."""
    if frame is None:
        return _error(conversation, "JSONDecodeError", "The frame is not a JSON object")
    try:
        given = FrameMessage.model_validate(frame)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        told = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in problems)
        return _error(conversation, "ValidationError", told)
    try:
        await state.conversations.receive(conversation.id, given, run=True)
    except CapacityFull:
        return _error(conversation, "CapacityFull", "The message is stored; too many conversations run to start it now")
    except ConversationNotFound:
        return _error(conversation, "ConversationNotFound", "The conversation was removed")
    return None


class FrameMessage(GivenMessage):
    """A message in a frame names its role."""

    role: Literal["user", "system", "assistant", "tool"]


def _error(conversation: Conversation, code: str, detail: str) -> ServerErrorEvent:
    return conversation.live(ServerErrorEvent, code=code, detail=detail)


def _parameters(socket: WebSocket, conversation_id: str) -> tuple[UUID, datetime | None]:
    """The conversation, and since when events are wanted again: None for none at all. Raises BadParameter."""
    query = socket.query_params
    mode = query.get("resend_mode") or ("all" if query.get("resend_all", "").lower() in {"true", "1"} else None)
    if mode not in {None, "all", "since"}:
        raise BadParameter
    try:
        wanted = UUID(conversation_id)
        after = datetime.fromisoformat(query["after_timestamp"]) if "after_timestamp" in query else None
    except ValueError:
        raise BadParameter from None
    if mode == "since" and after is None:
        raise BadParameter
    if mode is None:
        return wanted, None
    return wanted, after if mode == "since" else datetime.min


def _replay_start(conversation: Conversation, since: datetime | None) -> int:
    count = len(conversation.events)
    if since is None:
        return count
    return 0 if since == datetime.min else conversation.events.index.first_at(micros_of(since))


async def _text(socket: WebSocket) -> str:
    """The next frame, text or binary. Raises WebSocketDisconnect."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code") or 1005, message.get("reason"))
    text = message.get("text")
    return text if text is not None else (message.get("bytes") or b"").decode(errors="replace")


def _object(text: str) -> dict[str, Any] | None:
    """The frame as a JSON object that can be stored; None for anything else."""
    try:
        frame = json.loads(text)
        check_json(frame)
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) else None


def _accepts(state: RuntimeState, key: object) -> bool:
    return isinstance(key, str) and state.session_keys.accepts(key)


async def _send(socket: WebSocket, frame: bytes) -> None:
    """Raises TimeoutError for a client that does not read, WebSocketDisconnect for one that left."""
    async with asyncio.timeout(SEND_SECONDS):
        await socket.send_text(frame.decode())


async def _close(socket: WebSocket, closing: Closing) -> None:
    """Say goodbye, if the client is there and reads it."""
    if socket.client_state is not WebSocketState.CONNECTED:
        return
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await socket.close(closing.code, closing.reason)
    except TimeoutError:
        log.info("socket.close_not_taken", code=closing.code)
