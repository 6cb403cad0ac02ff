"""Events as they come: server-sent events and a WebSocket, from the same exclusive cursor as `GET .../events`.

An event has its sequence as `id:` (SSE) or `sequence` (socket). Where the conversation is (`phase`) comes first and at
every change; it has no number, since it is not in the log. Keys travel in headers or, on the socket, in the first
frame; never in the address. A key that ends ends what it opened: it is looked at again before anything is told.
"""

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Annotated, Any

import anyio
import anyio.abc
import structlog
from fastapi import APIRouter, Header, Query, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from starlette.requests import HTTPConnection

from orchestrator.api.answers.declared import says
from orchestrator.api.auth import Owner, OwnerOf, ServicesOf, Standing, owner_for
from orchestrator.api.context import Services
from orchestrator.api.conversations import event_out, id_of
from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import (
    Forbidden,
    InvalidRequest,
    LimitReached,
    NestorError,
    NotFound,
    Unauthenticated,
)
from orchestrator.domain.ids import ConversationId
from orchestrator.services.event_feed import Update
from orchestrator.state.event_archive.archive import DamagedEvents

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/api/v2", tags=["conversations"])
AUTH_SECONDS = 10.0
_MOST_DIGITS = 18
_REASON_BYTES = 123  #: of a close frame (RFC 6455, 5.5)
#: api-conventions.md 2; at the end of this replica the server itself says 1012
CLOSE_UNAUTHENTICATED, CLOSE_FORBIDDEN, CLOSE_NOT_FOUND, CLOSE_LIMIT, CLOSE_RESYNC = 4001, 4003, 4004, 4008, 4010
CLOSE_INVALID, CLOSE_LATER = 1008, 1013


@router.get(
    "/conversations/{conversation}/events/stream",
    responses=says({}, stream='`event` (`{"sequence", "event"}`), `phase`, `resync` (`{"after"}`) and `gone`'),
    response_class=StreamingResponse,
)
async def stream(
    request: Request,
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Server-sent events (`event`, `phase`, `gone`) above `after`, or above the `Last-Event-ID` of a client that comes
    back. A comment every few seconds keeps the connection. `resync`: what is behind the last one cannot be read; what
    can is above its `after`."""
    id = id_of(conversation)
    found = await services.conversations.get(owner.tenant, owner.user, id)  # a 404 is an answer, not a stream
    start = max(after, _number(last_event_id)) if last_event_id is not None else after
    await services.feed.probe(found, after=start)  # so is a 503
    return StreamingResponse(
        _sse(_updates(request, services, owner, id, start), services, owner, id),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


@router.websocket("/conversations/{conversation}/events/socket")
async def socket(websocket: WebSocket, conversation: str, after: str = "0") -> None:
    """The same as JSON frames: `{"type":"event","sequence","event"}` and `{"type":"phase",...}`. Without a key in a
    header the first frame is `{"type":"auth","key":"..."}`, within ten seconds. What else is sent is ignored. Opening
    one counts as a call."""
    services: Services = websocket.app.state.services
    await websocket.accept()
    try:
        key = await _key(websocket)
        owner = await owner_for(websocket, services, key)
        await services.call_rates.take(owner.caller)
        id = id_of(conversation)
        await services.conversations.get(owner.tenant, owner.user, id)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_read_to_end, websocket, tasks)
            try:
                async with aclosing(_updates(websocket, services, owner, id, _number(after), key)) as updates:
                    async for update in updates:
                        if (frame := _frame(update)) is not None:
                            await websocket.send_json(frame)
            except DamagedEvents:
                last = await _last(services, owner, id)
                await websocket.close(CLOSE_RESYNC, f"what is behind cannot be read; go on with after={last}")
                tasks.cancel_scope.cancel()
    except* (WebSocketDisconnect, RuntimeError):
        pass  # the client is gone
    except* NestorError as group:
        code, reason = _closing(group.exceptions[0])
        await websocket.close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))


def _updates(
    connection: HTTPConnection, services: Services, owner: Owner, id: ConversationId, after: int, key: str | None = None
) -> AsyncGenerator[Update]:
    """What `EventFeed.follow` gives for as long as the key is good. Raises as that and as `owner_for`."""
    standing = Standing(connection, services, key)

    async def load() -> Conversation:
        await standing.check()
        return await services.conversations.get(owner.tenant, owner.user, id)

    return services.feed.follow(id, load, after=after)


async def _last(services: Services, owner: Owner, id: ConversationId) -> int:
    """The number of the last event. Raises as `ConversationService.event_count`."""
    return await services.conversations.event_count(owner.tenant, owner.user, id)


async def _sse(
    updates: AsyncGenerator[Update], services: Services, owner: Owner, id: ConversationId
) -> AsyncIterator[str]:
    """The updates; `gone` at the end of the conversation, `resync` before a damaged part."""
    async with aclosing(updates):
        try:
            async for update in updates:
                yield _block(update)
        except NotFound:
            yield "event: gone\ndata: {}\n\n"
        except DamagedEvents:
            with suppress(NestorError):  # else it ends without a word: whoever comes back is told by the status
                last = await _last(services, owner, id)
                yield f"event: resync\ndata: {json.dumps({'after': last})}\n\n"
        except NestorError as exc:  # its key ended, say: whoever comes back is told by the status
            log.info("stream.ended", problem=exc.message)


def _block(update: Update) -> str:
    if update.event is not None:
        return f"id: {update.event.sequence}\nevent: event\ndata: {json.dumps(event_out(update.event))}\n\n"
    if update.conversation is not None:
        return f"event: phase\ndata: {json.dumps(_phase(update.conversation))}\n\n"
    return ":\n\n"


def _frame(update: Update) -> dict[str, Any] | None:
    """None for a sign of life: the protocol has its own."""
    if update.event is not None:
        return {"type": "event", **event_out(update.event)}
    return None if update.conversation is None else {"type": "phase", **_phase(update.conversation)}


def _phase(found: Conversation) -> dict[str, Any]:
    return {"phase": found.phase, "reason": found.why.reason, "version": found.version}


async def _read_to_end(websocket: WebSocket, tasks: anyio.abc.TaskGroup) -> None:
    """A client that leaves is noticed by reading."""
    try:
        while True:
            await websocket.receive_text()
    except (WebSocketDisconnect, KeyError):
        tasks.cancel_scope.cancel()


async def _key(websocket: WebSocket) -> str | None:
    """The key of the first frame; None when a header has one. Raises `Unauthenticated`."""
    if any(name in websocket.headers for name in ("authorization", "x-api-key", "x-access-token", "x-session-api-key")):
        return None
    try:
        with anyio.fail_after(AUTH_SECONDS):
            frame = json.loads(await websocket.receive_text())
    except (TimeoutError, ValueError, KeyError):
        frame = None
    key = frame.get("key") if isinstance(frame, dict) and frame.get("type") == "auth" else None
    if not isinstance(key, str):
        raise Unauthenticated("the first frame has to bring the key")
    return key


def _closing(error: BaseException) -> tuple[int, str]:
    match error:
        case Unauthenticated():
            return CLOSE_UNAUTHENTICATED, "Authentication failed"
        case Forbidden():
            return CLOSE_FORBIDDEN, error.message
        case NotFound():
            return CLOSE_NOT_FOUND, "Conversation not found"
        case LimitReached():
            return CLOSE_LIMIT, f"{error.message}; come again in {math.ceil(error.retry_after)} s"
        case InvalidRequest():
            return CLOSE_INVALID, error.message
    return CLOSE_LATER, "Try again later"


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise InvalidRequest("the cursor is not a number", field="after")
    return int(text)
