"""The WebSocket of a conversation's events (contract 6.1): what a client may ask for, and how events look on it.

Whole state first, then what the client asked to be sent again, then everything new. A frame is one event, its nulls
left out.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, WebSocket, WebSocketDisconnect

from runtime.api.dependencies import runtime_state
from runtime.api.exchange import Dialect, serve
from runtime.api.socket_auth import BadParameter, admit, refuse
from runtime.conversations.broadcast import event_payload
from runtime.conversations.conversation import Conversation
from runtime.events.clock import micros_of
from runtime.events.frames import LARGEST_EVENT
from runtime.events.models import ServerErrorEvent, compact
from runtime.state import RuntimeState

router = APIRouter()


@router.websocket("/sockets/events/{conversation_id}")
async def events(
    socket: WebSocket, conversation_id: str, state: Annotated[RuntimeState, Depends(runtime_state)]
) -> None:
    try:
        wanted, since = _parameters(socket, conversation_id)
    except BadParameter:
        await refuse(socket)
        return
    dialect = Dialect(
        subscribe=Conversation.subscribe,
        begin=lambda conversation: _begin(conversation, since),
        stored=_stored,
        error=_error,
    )
    try:
        if await admit(socket, state):
            await serve(socket, state, wanted, dialect)
    except WebSocketDisconnect:
        return  # the client left; nothing is owed to it


def _stored(number: int, line: bytes) -> bytes:
    del number
    return line if len(line) <= LARGEST_EVENT else event_payload(line, json.loads(line)["id"])


def _error(conversation: Conversation, code: str, detail: str) -> bytes:
    return compact(conversation.live(ServerErrorEvent, code=code, detail=detail))


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


def _begin(conversation: Conversation, since: datetime | None) -> int:
    count = len(conversation.events)
    if since is None:
        return count
    return 0 if since == datetime.min else conversation.events.first_at(micros_of(since))
