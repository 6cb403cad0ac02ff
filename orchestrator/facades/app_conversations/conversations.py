"""App-conversations of V1: a start is a task that is polled, a conversation has a record (outer-api.md 5)."""

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.responses import JSONResponse, Response, StreamingResponse

from orchestrator.api.auth import Owner, OwnerOf, ServicesOf
from orchestrator.api.context import Services
from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.domain.errors import InvalidRequest, NotFound
from orchestrator.facades import record
from orchestrator.facades.answers import V1Route
from orchestrator.facades.app_conversations import start_tasks
from orchestrator.facades.app_conversations.bodies import MessageBody, PatchBody, StartBody, app_id, app_ids
from orchestrator.facades.app_conversations.record import app_conversation_out, sandbox_id_of
from orchestrator.facades.runtimes import stopped_first
from orchestrator.services.resting import may_wake

router = APIRouter(prefix="/api/v1/app-conversations", tags=["V1 app-conversations"], route_class=V1Route)
_MOST_IDS = 99
_PAGE = 100
_MOST_SORTED = 1_000
#: sandbox status -> why a message is not taken there (status, what to do)
_NO_MESSAGE = {
    "PAUSED": (409, "the sandbox is paused: resume it first"),
    "STARTING": (409, "the sandbox is starting: come again when it runs"),
    "ERROR": (503, "the sandbox is in error: start the conversation again"),
    "MISSING": (410, "the sandbox is gone: start the conversation again"),
}
Limit = Annotated[int, Query(ge=1, le=100)]
Keep = Callable[[Conversation], bool]


class Order(StrEnum):
    CREATED_AT = "CREATED_AT"
    CREATED_AT_DESC = "CREATED_AT_DESC"
    UPDATED_AT = "UPDATED_AT"
    UPDATED_AT_DESC = "UPDATED_AT_DESC"
    TITLE = "TITLE"
    TITLE_DESC = "TITLE_DESC"


_SORTED_BY: dict[str, Callable[[Conversation], Any]] = {
    "CREATED_AT": lambda one: one.created_at,
    "UPDATED_AT": lambda one: one.updated_at,
    "TITLE": lambda one: (one.title or "").lower(),
}


def _filter(
    title__contains: str | None = None,
    created_at__gte: datetime | None = None,
    created_at__lt: datetime | None = None,
    updated_at__gte: datetime | None = None,
    updated_at__lt: datetime | None = None,
    sandbox_id__eq: str | None = None,
    include_sub_conversations: bool = False,
) -> Keep:
    bounds = [_aware(at) for at in (created_at__gte, created_at__lt, updated_at__gte, updated_at__lt)]
    made_since, made_before, changed_since, changed_before = bounds

    def keep(one: Conversation) -> bool:
        return (
            (title__contains is None or title__contains.lower() in (one.title or "").lower())
            and (made_since is None or one.created_at >= made_since)
            and (made_before is None or one.created_at < made_before)
            and (changed_since is None or one.updated_at >= changed_since)
            and (changed_before is None or one.updated_at < changed_before)
            and (sandbox_id__eq is None or sandbox_id_of(one) in (sandbox_id__eq, sandbox_id__eq.lower()))
            and (include_sub_conversations or record.label(one, "parent") is None)
        )

    return keep


KeepOf = Annotated[Keep, Depends(_filter)]


@router.post("")
async def start(body: StartBody, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Ask for a conversation: the task that starts it, at once. The id of one that is there brings it back where that
    is needed, and never makes a second sandbox. WORKING, however far it is by now."""
    task = await start_tasks.task_of(services, await _begun(services, owner, body))
    return task if task["status"] in start_tasks.ENDED else task | {"status": "WORKING"}


@router.post("/stream-start")
async def stream_start(body: StartBody, owner: OwnerOf, services: ServicesOf) -> Response:
    """The same as a JSON array that grows with every change of the task, and ends with it."""
    begun = await _begun(services, owner, body)

    async def pieces() -> AsyncIterator[str]:
        between = "["
        async for task in start_tasks.follow(services, owner, begun):
            yield between + json.dumps(task)
            between = ",\n"
        yield "]"

    return StreamingResponse(pieces(), media_type="application/json")


@router.get("/start-tasks")
async def tasks(
    owner: OwnerOf, services: ServicesOf, ids: Annotated[list[str], Query(min_length=1)]
) -> list[dict[str, Any] | None]:
    """Start tasks in this order; null for one that is not known."""
    return [await start_tasks.find(services, owner, id) for id in app_ids(ids, most=_MOST_IDS, what="ids")]


@router.get("/search")
async def search(
    owner: OwnerOf,
    services: ServicesOf,
    keep: KeepOf,
    page_id: str | None = None,
    limit: Limit = 100,
    sort_order: Order = Order.CREATED_AT_DESC,
) -> dict[str, Any]:
    """A page of records. Newest first costs the same for any number of them; the other orders are made by sorting, and
    so for up to 1,000 that fit (else 422)."""
    if sort_order is Order.CREATED_AT_DESC:
        page = await record.page_of(services, owner, keep, cursor=page_id or None, limit=limit)
        found, following = list(page.items), page.next_cursor
    else:
        found, following = await _sorted(services, owner, keep, sort_order, page_id, limit)
    items = [await app_conversation_out(services, owner, one) for one in found]
    return {"items": items, "next_page_id": following}


@router.get("/count")
async def count(owner: OwnerOf, services: ServicesOf, keep: KeepOf) -> int:
    """How many a search would find, on all of its pages."""
    return len([1 async for _ in _all(services, owner, keep)])


@router.get("")
async def batch(
    owner: OwnerOf, services: ServicesOf, ids: Annotated[list[str], Query(min_length=1)]
) -> list[dict[str, Any] | None]:
    """Records in this order; null for one that is not known."""
    found: list[dict[str, Any] | None] = []
    for id in app_ids(ids, most=_MOST_IDS, what="ids"):
        try:
            one = await services.conversations.get(owner.tenant, owner.user, app_id(id))
        except NotFound:
            found.append(None)
        else:
            found.append(await app_conversation_out(services, owner, one))
    return found


@router.patch("/{conversation}")
async def change(conversation: str, body: PatchBody, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Another title, or what is told of its repository; what its sandbox holds does not change by it."""
    changed = await services.conversations.describe(
        owner.tenant, owner.user, app_id(conversation), title=body.title, labels=body.labels()
    )
    return await app_conversation_out(services, owner, changed)


@router.delete("/{conversation}")
async def delete(conversation: str, owner: OwnerOf, services: ServicesOf) -> dict[str, bool]:
    """With its sandbox, which is its own."""
    id = app_id(conversation)
    await services.conversations.get(owner.tenant, owner.user, id)  # 404 also for one that is deleted already
    await services.conversations.delete(owner.tenant, owner.user, id)
    return {"success": True}


@router.post("/{conversation}/send-message")
async def send_message(conversation: str, body: MessageBody, owner: OwnerOf, services: ServicesOf) -> Response:
    """A message to one that runs. One that policy put to rest is woken by it; else 409, 410 or 503 say what is in the
    way, and nothing was sent."""
    id, content = app_id(conversation), body.plain()
    found = await services.conversations.get(owner.tenant, owner.user, id)
    status = (await record.told_of(services, found)).sandbox or "MISSING"
    if found.phase is not Phase.READY and not may_wake(found):
        code, why = _NO_MESSAGE[status]
        told = {"success": False, "sandbox_status": status, "message": why, "detail": why, "error": why}
        return JSONResponse(told, code)
    sent = await record.post(services, owner, id, content)
    words = "delivered" if sent.accepted is not None else "kept; it is delivered as soon as the agent server takes it"
    return JSONResponse({"success": True, "sandbox_status": status, "message": words})


async def _begun(services: Services, owner: Owner, body: StartBody) -> Conversation:
    """Started, or started again, with its first message. Raises as `ConversationService.create` and `start`."""
    wanted, first = body.wanted(), body.first()
    present = await _present(services, owner, body)
    if present is None:
        begun = await services.conversations.create(owner.tenant, owner.user, wanted, key=owner.caller.key)
        if first is None or wanted.request.initial_message is not None:
            return begun
    else:
        await stopped_first(services, owner, present)
        begun = await services.conversations.start(owner.tenant, owner.user, present.id, key=owner.caller.key)
        if first is None:
            return begun
    await services.messages.post(owner.tenant, owner.user, begun.id, content=first, client_id=None)
    return begun


async def _present(services: Services, owner: Owner, body: StartBody) -> Conversation | None:
    if body.id is None:
        return None
    try:
        return await services.conversations.get(owner.tenant, owner.user, body.id)
    except NotFound:
        return None


async def _all(services: Services, owner: Owner, keep: Keep) -> AsyncIterator[Conversation]:
    cursor = None
    while True:
        page = await services.conversations.list(owner.tenant, owner.user, cursor=cursor, limit=_PAGE)
        for one in page.items:
            if keep(one):
                yield one
        cursor = page.next_cursor
        if cursor is None:
            return


async def _sorted(
    services: Services, owner: Owner, keep: Keep, order: Order, page_id: str | None, limit: int
) -> tuple[list[Conversation], str | None]:
    down = order.endswith("_DESC")
    field = order.removesuffix("_DESC")
    found: list[Conversation] = []
    async for one in _all(services, owner, keep):
        found.append(one)
        if len(found) > _MOST_SORTED:
            raise InvalidRequest(
                f"{order} is for up to {_MOST_SORTED} conversations",
                field="sort_order",
                hint="narrow the search down, or take CREATED_AT_DESC",
            )
    found.sort(key=_SORTED_BY[field], reverse=down)
    start = _offset(page_id)
    return found[start : start + limit], str(start + limit) if len(found) > start + limit else None


def _offset(page_id: str | None) -> int:
    if not page_id:
        return 0
    if not (page_id.isascii() and page_id.isdigit() and len(page_id) <= 6):
        raise InvalidRequest("page_id is not one of this search", field="page_id", hint="send a page's next_page_id")
    return int(page_id)


def _aware(at: datetime | None) -> datetime | None:
    return at if at is None or at.tzinfo is not None else at.replace(tzinfo=UTC)
