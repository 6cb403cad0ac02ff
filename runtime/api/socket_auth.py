"""What every WebSocket of this runtime does before and beside its own work: who may connect, frames in, frames out.

The contract's three ways to show the key (section 1.3): in the query, in the header, or in the first frame. A wrong key
given before the handshake refuses it with 403, a wrong first frame closes with 4001. Used by the sockets of events,
of a session and of commands; knows nothing of what they carry.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import structlog
from fastapi import WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from runtime.api.bodies import check_json
from runtime.api.dependencies import KEY_HEADER
from runtime.events.feed import Closing
from runtime.serving import WIRE, Wire
from runtime.state import RuntimeState

log = structlog.get_logger()

AUTH_SECONDS = 10.0
#: how long one frame may wait for a client that does not read
SEND_SECONDS = 30.0
UNAUTHENTICATED = Closing(4001, "Authentication failed")
NOT_READY = Closing(1013, "Runtime is dormant: waiting for POST /api/init")


class BadParameter(ValueError):
    """A query parameter or the id is not what the contract allows: the handshake is refused."""


async def refuse(socket: WebSocket) -> None:
    """Before accepting, so that the client sees 403."""
    await socket.close(1008)


async def admit(socket: WebSocket, state: RuntimeState) -> bool:
    """Accept a client that has the key; close or refuse one that has not. Raises WebSocketDisconnect."""
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
            frame = json_frame(await receive_text(socket))
    except TimeoutError:
        frame = None
    if frame is None or frame.get("type") != "auth" or not _accepts(state, frame.get("session_api_key")):
        await close(socket, UNAUTHENTICATED)
        return False
    return True


def is_late_auth(frame: dict[str, Any]) -> bool:
    """A further auth frame on a socket that is authenticated already: it means nothing and is no error."""
    return frame.get("type") == "auth" and frame.keys() <= {"type", "session_api_key"}


async def receive_text(socket: WebSocket) -> str:
    """The next frame, text or binary. Raises WebSocketDisconnect."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code") or 1005, message.get("reason"))
    text = message.get("text")
    return text if text is not None else (message.get("bytes") or b"").decode(errors="replace")


def json_frame(text: str) -> dict[str, Any] | None:
    """The frame as a JSON object that can be stored; None for anything else."""
    try:
        frame = json.loads(text)
        check_json(frame)
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) else None


async def send(socket: WebSocket, frame: bytes) -> None:
    """Raises TimeoutError for a client that does not read, WebSocketDisconnect for one that left."""
    async with asyncio.timeout(SEND_SECONDS):
        await socket.send_text(frame.decode())


async def close(socket: WebSocket, closing: Closing) -> None:
    """Say goodbye, if the client is there and reads it; else drop the connection with what it never took."""
    if socket.client_state is not WebSocketState.CONNECTED:
        return
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await socket.close(closing.code, closing.reason)
    except TimeoutError:
        log.info("socket.close_not_taken", code=closing.code)
        wire: Wire | None = socket.scope["extensions"].get(WIRE)
        if wire is not None:
            wire.abort()


def _accepts(state: RuntimeState, key: object) -> bool:
    return isinstance(key, str) and state.session_keys.accepts(key)
