"""Conversations as clients of the agent server make, list and delete them (agent-server.md 4.1, 4.3, 4.5).

A start waits until the runtime is ready and has the conversation, under the id that the client chose. Its body goes on
as it came, sealed with the record until then: the model in it wins over stored settings.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import anyio
from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from orchestrator.api import problems
from orchestrator.api.acceptance import until_ready
from orchestrator.api.auth import Owner, OwnerOf, ServicesOf
from orchestrator.api.context import Services
from orchestrator.api.json_values import check_json
from orchestrator.domain.conversation import Conversation, Phase, Reason, StartRequest
from orchestrator.domain.errors import InvalidRequest, NotFound, RuntimeUnreachable
from orchestrator.domain.ids import ConversationId, new_uuid, parse_uuid
from orchestrator.domain.secrets import SecretText
from orchestrator.facades import record
from orchestrator.facades.agent_server.info import info_of
from orchestrator.facades.answers import V1Route, older
from orchestrator.facades.dialect import AgentServerRoute
from orchestrator.facades.runtimes import stopped_first
from orchestrator.nested.refusals import Refused
from orchestrator.services.drafting import Wanted
from orchestrator.services.overrides import Overrides
from orchestrator.services.resting import at_rest

START_SECONDS = 590.0  #: a client waits for 600
_MOST_IDS = 99
_PAGE = 100
_AT_ONCE = 16


class Route(AgentServerRoute, V1Route):
    """Of this dialect only, with failures as its clients read them. What V0 has under the same path and method is what
    the document of the API shows: it can hold one of them."""


router = APIRouter(prefix="/api/conversations", tags=["agent server"], route_class=Route)
Status = Annotated[
    Literal["idle", "running", "paused", "waiting_for_confirmation", "finished", "error", "stuck", "deleting"] | None,
    Query(),
]
Order = Literal["CREATED_AT", "UPDATED_AT", "CREATED_AT_DESC", "UPDATED_AT_DESC"]


@router.post("", include_in_schema=False)
async def start(request: Request, owner: OwnerOf, services: ServicesOf) -> Response:
    """Make a conversation and wait for it: 201, or 200 for an id that is there, whose start is joined. 408 after ten
    minutes; the start goes on, and a repeat joins it."""
    body = _object(await request.body())
    asked = body.get("conversation_id")
    id = ConversationId(new_uuid() if asked is None else parse_uuid(str(asked), "conversation_id"))
    wanted = Wanted(
        id,
        StartRequest(has_start_body=True),
        Overrides(start_body=SecretText(json.dumps(body))),
        title=None,
        labels={},
    )
    key = owner.caller.key
    made = await services.conversations.create(owner.tenant, owner.user, wanted, key=key)
    was_there = made.was_ready
    if at_rest(made) or made.phase is Phase.STOPPING:
        await stopped_first(services, owner, made)
        made = await services.conversations.start(owner.tenant, owner.user, id, key=key)
    made = await until_ready(services, owner.tenant, owner.user, made, START_SECONDS)
    if made.phase is not Phase.READY:
        return await _failed(request, services, owner, made)
    try:
        info = await services.inside.conversation(made)
    except (Refused, RuntimeUnreachable):
        raise RuntimeUnreachable("the conversation is there, and its runtime did not say what it is like") from None
    return JSONResponse(info, 200 if was_there else 201)


@router.get("/search")
async def search(
    owner: OwnerOf,
    services: ServicesOf,
    page_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
    status: Status = None,
    sort_order: Order = "CREATED_AT_DESC",
) -> dict[str, Any]:
    """The caller's conversations, from their records, whether or not their runtimes run. Newest first; the oldest first
    and by change only within one page."""
    if sort_order != "CREATED_AT_DESC" and page_id:
        raise InvalidRequest("only CREATED_AT_DESC has pages here", field="sort_order", hint="leave sort_order out")
    items, cursor = await _infos(services, owner, status, cursor=page_id or None, limit=limit)
    if sort_order != "CREATED_AT_DESC":
        if cursor is not None:
            raise InvalidRequest(
                f"more than {limit} conversations cannot be sorted", field="sort_order", hint="leave sort_order out"
            )
        by = "updated_at" if sort_order.startswith("UPDATED") else "created_at"
        items.sort(key=lambda item: item[by], reverse=sort_order.endswith("DESC"))
    return {"items": items, "next_page_id": cursor}


@router.get("/count")
async def count(owner: OwnerOf, services: ServicesOf, status: Status = None) -> int:
    """How many a search would find on all of its pages."""
    found, cursor = 0, None
    while True:
        page = await services.conversations.list(owner.tenant, owner.user, cursor=cursor, limit=_PAGE)
        if status is None:
            found += len(page.items)
        else:
            infos = await _all_infos(services, page.items)
            found += sum(info["execution_status"] == status for info in infos)
        cursor = page.next_cursor
        if cursor is None:
            return found


@router.get("", include_in_schema=False)
async def batch(
    owner: OwnerOf, services: ServicesOf, ids: Annotated[list[str], Query(min_length=1, max_length=_MOST_IDS)]
) -> list[dict[str, Any] | None]:
    """In the order that was asked for, null for what is not there."""
    found: list[dict[str, Any] | None] = []
    for text in ids:
        try:
            id = ConversationId(parse_uuid(text, "ids"))
            found.append(await info_of(services, await services.conversations.get(owner.tenant, owner.user, id)))
        except NotFound:
            found.append(None)
    return found


@router.delete("/{conversation}", include_in_schema=False)
async def delete(conversation: str, owner: OwnerOf, services: ServicesOf) -> dict[str, bool]:
    """The conversation with its runtime; for some minutes the native API can bring it back. 404 the second time."""
    id = ConversationId(parse_uuid(conversation, "conversation"))
    await services.conversations.get(owner.tenant, owner.user, id)
    await services.conversations.delete(owner.tenant, owner.user, id)
    return {"success": True}


async def _infos(
    services: Services, owner: Owner, status: str | None, *, cursor: str | None, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    page = await record.page_of(services, owner, lambda one: True, cursor=cursor, limit=limit)
    items = await _all_infos(services, page.items)
    return [item for item in items if status in (None, item["execution_status"])], page.next_cursor


async def _all_infos(services: Services, conversations: Sequence[Conversation]) -> list[dict[str, Any]]:
    """Of each, in order; each costs a look at the end of its log, so some are made at once."""
    infos: list[dict[str, Any]] = [{} for _ in conversations]
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def look(place: int, conversation: Conversation) -> None:
        async with limiter:
            infos[place] = await info_of(services, conversation)

    async with anyio.create_task_group() as tasks:
        for place, conversation in enumerate(conversations):
            tasks.start_soon(look, place, conversation)
    return infos


async def _failed(request: Request, services: Services, owner: Owner, made: Conversation) -> Response:
    """What the start came to. One that was never ready leaves nothing: the client repeats it under the same id, with
    what it has mended."""
    why = made.why
    if not made.was_ready:
        await services.conversations.delete(owner.tenant, owner.user, made.id, purge=True)
    status = 422 if why.reason is Reason.CONFIG_REJECTED else 503
    return older(
        problems.problem(
            request,
            status,
            f"start_failed.{why.reason}",
            why.message,
            hint=why.hint or None,
            retry_after=5 if status == 503 else None,
        )
    )


def _object(text: bytes) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is not JSON") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body is not a JSON object")
    check_json(body)
    return body
