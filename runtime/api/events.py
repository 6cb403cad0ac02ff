"""Routes of a conversation's events (contract 5.3), and their older forms on the same paths (nested-config.md 7, 9).

Pages are sent as the log has them, without being parsed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, ParamSpec, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, TypeAdapter, ValidationError
from starlette.routing import Match, Route
from starlette.types import Scope

from runtime.api.answers import NOT_FOUND, ConversationId, json_text, refusals
from runtime.api.bodies import MOST_IDS, Body
from runtime.api.dependencies import KEY_HEADER, StateDependency, require_session_key, runtime_state
from runtime.api.parsing import json_object, refused, validated
from runtime.conversations.start import GivenMessage
from runtime.events.content import Content, ImageContent, TextContent
from runtime.events.log import EventLog
from runtime.events.models import complete, parse, parse_object
from runtime.events.search import BadPage, Filter
from runtime.events.search import count as count_events
from runtime.events.search import page as page_of_events
from runtime.state import RuntimeState

router = APIRouter(prefix="/conversations/{conversation_id}", tags=["Events"])

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")
SortOrder = Literal["TIMESTAMP", "TIMESTAMP_DESC"]
_ids: TypeAdapter[list[str]] = TypeAdapter(Annotated[list[str], Field(max_length=MOST_IDS)])


async def _filter(
    kind: str | None = None,
    source: str | None = None,
    body: str | None = None,
    timestamp__gte: datetime | None = None,
    timestamp__lt: datetime | None = None,
) -> Filter:
    return Filter(kind=kind, source=source, body=body, since=timestamp__gte, before=timestamp__lt)


FilterDependency = Annotated[Filter, Depends(_filter)]


@router.get("/events/search")
async def search(
    state: StateDependency,
    conversation_id: ConversationId,
    wanted: FilterDependency,
    page_id: UUID | None = None,
    limit: Annotated[int, Query(gt=0, le=100)] = 100,
    sort_order: SortOrder = "TIMESTAMP",
) -> Response:
    descending = sort_order == "TIMESTAMP_DESC"
    try:
        with refusals():
            async with state.conversations.using(conversation_id) as conversation:
                page = await _reading(
                    wanted,
                    page_of_events,
                    conversation.events,
                    wanted,
                    page_id=page_id,
                    limit=limit,
                    descending=descending,
                )
    except BadPage:
        raise HTTPException(400, "page_id names no event of this conversation; start again without it") from None
    following = json.dumps(str(page.next_id) if page.next_id else None).encode()
    return json_text(b'{"items":[' + b",".join(page.lines) + b'],"next_page_id":' + following + b"}")


@router.get("/events/count")
async def count(state: StateDependency, conversation_id: ConversationId, wanted: FilterDependency) -> int:
    with refusals():
        async with state.conversations.using(conversation_id) as conversation:
            return await _reading(wanted, count_events, conversation.events, wanted)


async def _reading(
    wanted: Filter, read: Callable[Asked, Answer], /, *arguments: Asked.args, **more: Asked.kwargs
) -> Answer:
    """Look in the index here, which takes no time; a search for words may read the whole log, in a thread."""
    if wanted.body is None:
        return read(*arguments, **more)
    return await asyncio.to_thread(read, *arguments, **more)


@router.get("/events/{event_id}")
async def get(state: StateDependency, conversation_id: ConversationId, event_id: str) -> JSONResponse:
    """One event with its null fields."""
    with refusals():
        conversation = await state.conversations.get(conversation_id)
    found = _line(conversation.events, event_id)
    if found is None:
        raise HTTPException(404, NOT_FOUND)
    return JSONResponse(complete(parse(found)))


@router.get("/events")
async def by_id_or_older(
    request: Request,
    state: StateDependency,
    conversation_id: ConversationId,
    start_id: Annotated[int, Query(ge=0)] = 0,
    end_id: Annotated[int | None, Query(ge=0)] = None,
    reverse: bool = False,
    limit: int = 20,
) -> JSONResponse:
    """With a JSON array of ids as body: those events, null for a miss. Without a body: the older page, by number."""
    body = await request.body()
    if body.strip():
        ids = _parsed_ids(body)
        with refusals():
            async with state.conversations.using(conversation_id) as conversation:
                return JSONResponse(await asyncio.to_thread(_several, conversation.events, ids))
    with refusals():
        conversation = await state.conversations.get(conversation_id)
    if not 0 <= limit <= 100:
        raise HTTPException(400, "Invalid limit")
    last = len(conversation.events) if end_id is None else min(end_id + 1, len(conversation.events))
    wanted = range(start_id, last)
    taken = wanted[-limit:] if reverse and limit else wanted[:limit]
    lines = conversation.events.lines(taken.start, taken.stop) if taken else []
    shown = [parse_object(line) for line in (reversed(lines) if reverse else lines)]
    return JSONResponse({"events": shown, "has_more": len(wanted) > len(taken)})


class EventBody(GivenMessage):
    """A message. `event_id` is this runtime's own addition: sending the same one again has no effect."""

    event_id: UUID | None = None


class OlderMessage(Body):
    """The arguments of an older message action."""

    content: str
    image_urls: list[str] | None = None


class OlderAction(Body):
    """An older action; only messages can be sent."""

    action: Literal["message"]
    args: OlderMessage


class OlderText(Body):
    """The body of the older message route."""

    message: str


class MessageRoute(Route):
    """`POST` of an event once more, to be looked at ahead of all other routes and without what the framework makes of a
    request: finding the route and its dependencies is a third of what a message costs. Matches nothing else, so that
    every other method and every other id is the usual route's."""

    def __init__(self, prefix: str) -> None:
        path = f"{prefix}/conversations/{{conversation_id:uuid}}/events"
        super().__init__(path, _send_at_once, methods=["POST"], include_in_schema=False)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or scope["method"] != "POST":
            return Match.NONE, {}
        return super().matches(scope)


async def _send_at_once(request: Request) -> JSONResponse:
    state = await runtime_state(request)
    await require_session_key(state, request.headers.get(KEY_HEADER))
    return await send(request, state, request.path_params["conversation_id"])


@router.post("/events")
async def send(request: Request, state: StateDependency, conversation_id: ConversationId) -> JSONResponse:
    """A message, in either form. The older one always runs the agent."""
    body = await json_object(request)
    if "action" in body:
        return await _send_older(state, conversation_id, validated(OlderAction, body).args)
    given = validated(EventBody, body)
    with refusals():
        await state.conversations.agents.receive(conversation_id, given, run=given.run, event_id=given.event_id)
    return JSONResponse({"success": True})


@router.post("/message")
async def send_text(state: StateDependency, conversation_id: ConversationId, body: OlderText) -> JSONResponse:
    return await _send_older(state, conversation_id, OlderMessage(content=body.message))


async def _send_older(state: RuntimeState, conversation_id: UUID, message: OlderMessage) -> JSONResponse:
    content: list[Content] = [TextContent(text=message.content)]
    if message.image_urls:
        content.append(ImageContent(image_urls=message.image_urls))
    with refusals():
        await state.conversations.agents.receive(conversation_id, GivenMessage(content=content), run=True)
    return JSONResponse({"success": True})


def _parsed_ids(body: bytes) -> list[str]:
    try:
        return _ids.validate_json(body)
    except ValidationError:
        raise refused(None, f"the body must be a JSON array of up to {MOST_IDS} event ids") from None


def _several(log: EventLog, ids: Sequence[str]) -> list[dict[str, Any] | None]:
    """Whole events, null for a miss; blocks."""
    found = (_line(log, event_id) for event_id in ids)
    return [complete(parse(line)) if line is not None else None for line in found]


def _line(log: EventLog, event_id: str) -> bytes | None:
    try:
        return log.line(UUID(event_id))
    except ValueError:
        return None
