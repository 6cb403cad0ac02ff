"""The session WebSocket of a conversation (contract 6.3): events with their places, and text as it is written.

`after_seq` says which event the client has seen last; everything behind it is sent again, so that a client that comes
back misses nothing and gets nothing twice. -1 asks for all of it, no value for nothing.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, WebSocket, WebSocketDisconnect

from runtime.api.dependencies import runtime_state
from runtime.api.exchange import Dialect, serve
from runtime.api.socket_auth import BadParameter, admit, refuse
from runtime.conversations.broadcast import durable_payload
from runtime.conversations.conversation import Conversation
from runtime.events import frames
from runtime.state import RuntimeState

router = APIRouter()


@router.websocket("/sockets/session/{conversation_id}")
async def session(
    socket: WebSocket, conversation_id: str, state: Annotated[RuntimeState, Depends(runtime_state)]
) -> None:
    try:
        wanted, after_seq = _parameters(socket, conversation_id)
    except BadParameter:
        await refuse(socket)
        return
    dialect = Dialect(
        subscribe=lambda conversation: conversation.subscribe_session(after_seq),
        begin=lambda conversation: _begin(conversation, after_seq),
        stored=durable_payload,
        error=_error,
    )
    try:
        if await admit(socket, state):
            await serve(socket, state, wanted, dialect)
    except WebSocketDisconnect:
        return  # the client left; nothing is owed to it


def _error(conversation: Conversation, code: str, detail: str) -> bytes:
    del conversation
    return frames.error(code, detail)


def _parameters(socket: WebSocket, conversation_id: str) -> tuple[UUID, int | None]:
    """Raises BadParameter."""
    asked = socket.query_params.get("after_seq")
    try:
        return UUID(conversation_id), None if asked is None else max(-1, int(asked))
    except ValueError:
        raise BadParameter from None


def _begin(conversation: Conversation, after_seq: int | None) -> int:
    count = len(conversation.events)
    return count if after_seq is None else min(after_seq + 1, count)
