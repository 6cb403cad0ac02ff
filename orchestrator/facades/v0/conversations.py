"""Conversations of V0: started at once, read while they start, talked to, stopped and deleted (outer-api.md 4).

Ids are UUIDs without dashes. "Stop" pauses: a start goes on with the same runtime, address and key.
"""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from orchestrator.api import problems
from orchestrator.api.auth import Owner, OwnerOf, ServicesOf
from orchestrator.api.context import Services
from orchestrator.domain.clock import rfc3339
from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.domain.errors import CallerError, Conflict, InvalidRequest, NestorError, NotFound
from orchestrator.facades import record
from orchestrator.facades.answers import V0Route, older, refused
from orchestrator.facades.runtimes import stopped_first
from orchestrator.facades.statuses import Statuses
from orchestrator.facades.v0 import events as log
from orchestrator.facades.v0.bodies import (
    ActionBody,
    MessageBody,
    StartAgainBody,
    StartBody,
    TitleBody,
    v0_id,
)

router = APIRouter(prefix="/api/conversations", tags=["V0"], route_class=V0Route)
_NO_MODEL = "settings.agent_settings.llm.model"
_MOST_EVENTS = 100
_WRONG = frozenset({"error", "stuck"})
_PAUSABLE = frozenset({Phase.READY, Phase.PAUSING, Phase.PAUSED})


@router.post("")
async def start(body: StartBody, request: Request, owner: OwnerOf, services: ServicesOf) -> Response:
    """Ask for a conversation; the answer does not wait for its runtime."""
    if await _has_blank_key(services, owner):
        blank = InvalidRequest(
            "the model's API key is blank", field="llm_api_key", hint="POST /api/settings with a key"
        )
        return refused(older(problems.of_error(request, blank)), "STATUS$ERROR_LLM_AUTHENTICATION", status=400)
    try:
        wanted = body.wanted()
        made = await services.conversations.create(owner.tenant, owner.user, wanted, key=owner.caller.key)
        if parts := body.parts():
            await services.messages.post(owner.tenant, owner.user, made.id, content=parts, client_id="initial")
    except InvalidRequest as exc:
        msg_id = _msg_id(exc)
        return refused(older(problems.of_error(request, exc)), msg_id, status=400 if msg_id else None)
    return JSONResponse(_accepted(made, await record.told_of(services, made)))


@router.get("")
async def listed(
    owner: OwnerOf,
    services: ServicesOf,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    page_id: str | None = None,
    selected_repository: str | None = None,
    conversation_trigger: str | None = None,
) -> dict[str, Any]:
    """Newest first. Scripts also use it to try a key."""

    def keep(one: Conversation) -> bool:
        wanted = selected_repository is None or one.request.repository == selected_repository
        return wanted and (conversation_trigger is None or _trigger(one) == conversation_trigger)

    page = await record.page_of(services, owner, keep, cursor=page_id or None, limit=limit)
    results = [await _info(services, owner, one) for one in page.items]
    return {"results": results, "next_page_id": page.next_cursor}


@router.get("/{conversation}")
async def get(conversation: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """One conversation; address and session key while it runs. Unknown is 404 (DESIGN.md 3)."""
    return await _info(services, owner, await _found(services, owner, conversation))


@router.patch("/{conversation}")
async def rename(
    conversation: str, body: TitleBody, request: Request, owner: OwnerOf, services: ServicesOf
) -> Response:
    """Another title; answers `true`."""
    try:
        await services.conversations.describe(owner.tenant, owner.user, v0_id(conversation), title=body.title)
    except NotFound as exc:
        return refused(older(problems.of_error(request, exc)), "CONVERSATION$NOT_FOUND")
    return JSONResponse(True)


@router.delete("/{conversation}")
async def delete(conversation: str, owner: OwnerOf, services: ServicesOf) -> bool:
    """`false` for one that is not there."""
    try:
        id = v0_id(conversation)
        await services.conversations.get(owner.tenant, owner.user, id)
        await services.conversations.delete(owner.tenant, owner.user, id)
    except NotFound:
        return False
    return True


@router.post("/{conversation}/start")
async def start_again(
    conversation: str, owner: OwnerOf, services: ServicesOf, body: StartAgainBody | None = None
) -> dict[str, Any]:
    """Bring a stopped one back. Running or starting already: nothing is done."""
    present = await _found(services, owner, conversation)
    await stopped_first(services, owner, present)
    started = await services.conversations.start(owner.tenant, owner.user, present.id, key=owner.caller.key)
    return _accepted(started, await record.told_of(services, started))


@router.post("/{conversation}/stop")
async def stop(conversation: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Pause the runtime; a start that is under way is given up. Answers the status from before."""
    present = await _found(services, owner, conversation)
    before = await record.told_of(services, present)
    message = None if before.conversation in ("RUNNING", "STARTING") else "Conversation was not running"
    if before.conversation == "STARTING":
        await services.conversations.stop(owner.tenant, owner.user, present.id)
    elif present.phase in _PAUSABLE:
        try:
            await services.conversations.pause(owner.tenant, owner.user, present.id)
        except Conflict:  # it ended meanwhile
            message = "Conversation was not running"
    return _accepted(present, before) | {"message": message}


@router.get("/{conversation}/events")
async def events(
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    start_id: Annotated[int, Query(ge=0, lt=2**53)] = 0,
    end_id: Annotated[int, Query(ge=0, lt=2**53)] = 2**53,
    reverse: bool = False,
    limit: int = 20,
) -> dict[str, Any]:
    """Events from `start_id` to `end_id`, both among them; `reverse` from the end. Readable when nothing runs."""
    if not 0 <= limit <= _MOST_EVENTS:
        raise CallerError("Invalid limit", hint=f"send 0 to {_MOST_EVENTS}")
    found = await _found(services, owner, conversation)
    span = log.Span(start_id, end_id)
    page, more = await log.page(services, owner, found, span, limit=limit, reverse=reverse)
    return {"events": page, "has_more": more}


@router.post("/{conversation}/message")
async def message(conversation: str, body: MessageBody, owner: OwnerOf, services: ServicesOf) -> dict[str, bool]:
    """A user's message, in every phase: it waits until the runtime is there."""
    await record.post(services, owner, v0_id(conversation), body.message)
    return {"success": True}


@router.post("/{conversation}/events")
async def act(conversation: str, body: ActionBody, owner: OwnerOf, services: ServicesOf) -> dict[str, bool]:
    """A V0 action: a user's message. Another one is 501."""
    await record.post(services, owner, v0_id(conversation), body.content())
    return {"success": True}


@router.get("/{conversation}/trajectory")
async def trajectory(conversation: str, owner: OwnerOf, services: ServicesOf) -> Response:
    """Every event, read and sent piece by piece."""
    found = await _found(services, owner, conversation)

    async def pieces() -> AsyncIterator[str]:
        between = '{"trajectory":['
        async for event in log.everything(services, owner, found):
            yield between + json.dumps(event)
            between = ","
        yield "]}" if between == "," else between + "]}"

    return StreamingResponse(pieces(), media_type="application/json")


@router.get("/{conversation}/config")
async def config(conversation: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """The names that its runtime has."""
    found = await _found(services, owner, conversation)
    return {"runtime_id": found.runtime.id if found.runtime else None, "session_id": _hex(found)}


async def _found(services: Services, owner: Owner, conversation: str) -> Conversation:
    return await services.conversations.get(owner.tenant, owner.user, v0_id(conversation))


async def _info(services: Services, owner: Owner, one: Conversation) -> dict[str, Any]:
    origin, told = record.origin_of(services, one), await record.told_of(services, one)
    return {
        "conversation_id": _hex(one),
        "title": one.title or f"Conversation {_hex(one)[:5]}",
        "created_at": rfc3339(one.created_at),
        "last_updated_at": rfc3339(one.updated_at),
        "status": told.conversation,
        "runtime_status": await _runtime_status(services, one, told),
        "selected_repository": record.label(one, "selected_repository") or one.request.repository,
        "selected_branch": record.label(one, "selected_branch") or one.request.branch,
        "git_provider": record.label(one, "git_provider") or one.request.git_provider,
        "trigger": _trigger(one),
        "num_connections": 0,
        "url": None if origin is None else f"{origin}/api/conversations/{_hex(one)}",
        "session_api_key": await record.session_key_of(services, owner, one),
        "pr_number": record.numbers_of(one),
        "conversation_version": "V0",
        "sub_conversation_ids": [],
    }


async def _runtime_status(services: Services, one: Conversation, told: Statuses) -> str | None:
    """Of one that runs also whether its agent does."""
    if one.phase is Phase.READY and await services.transcript.execution_status(one) in _WRONG:
        return "STATUS$ERROR"
    return told.runtime_status


async def _has_blank_key(services: Services, owner: Owner) -> bool:
    bundle = await services.effective.bundle(owner.tenant, owner.user)
    key = bundle.settings.get("agent_settings", {}).get("llm", {}).get("api_key")
    return key is not None and not key.open().strip()


def _msg_id(exc: NestorError) -> str | None:
    field = exc.field if isinstance(exc, InvalidRequest) else None
    if field == _NO_MODEL:
        return "CONFIGURATION$SETTINGS_NOT_FOUND"
    return "STATUS$GIT_PROVIDER_AUTHENTICATION_ERROR" if field == "git_provider" else None


def _accepted(one: Conversation, told: Statuses) -> dict[str, Any]:
    return {
        "status": "ok",
        "conversation_id": _hex(one),
        "message": None,
        "conversation_status": told.conversation,
    }


def _trigger(one: Conversation) -> str:
    return record.label(one, "trigger") or record.DEFAULT_TRIGGER


def _hex(one: Conversation) -> str:
    return one.id.replace("-", "")
