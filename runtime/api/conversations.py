"""Routes of conversations (contract 4): make, find, run, pause, remove, secrets, final response.

`POST /api/conversations` takes both generations of body, told apart by its keys (nested-config.md 9). Each route calls
one method of the service and renders what it returns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, field_validator

from runtime.api.agent_profiles import with_agent
from runtime.api.answers import ConversationId, json_text, refusals
from runtime.api.bodies import Body
from runtime.api.dependencies import StateDependency
from runtime.api.observability import with_observability
from runtime.api.parsing import json_object, refused, validated
from runtime.conversations.catalogue import Page, SortOrder, UnknownPage, page
from runtime.conversations.older import OlderConversations, OlderRefusal, OlderStart
from runtime.conversations.record import ConversationRecord, shown
from runtime.conversations.start import GivenSource, StartRequest
from runtime.conversations.status import Status
from runtime.git.remotes import InvalidRepository
from runtime.secrets.names import check_name
from runtime.state import RuntimeState
from runtime.store.exposure import Opening

router = APIRouter(prefix="/conversations", tags=["Conversations"])
#: what every start asks for (`app.STARTING`)
starting = APIRouter(prefix="/conversations", tags=["Conversations"])

LONGEST_PAGE = 100
_NEWER_KEYS = frozenset({"agent", "agent_settings", "agent_profile_id", "workspace"})


@starting.post("")
async def start(request: Request, state: StateDependency, include_skills: bool = False) -> JSONResponse:
    """Make a conversation; its first message, when there is one, is run."""
    body = await json_object(request)
    if body.keys() & _NEWER_KEYS:
        wanted = with_observability(body, request.headers)
        return await _start_newer(state, wanted, include_skills=include_skills)
    return await _start_older(state, body)


async def _start_newer(state: RuntimeState, body: Mapping[str, Any], *, include_skills: bool) -> JSONResponse:
    body, profile = with_agent(state, body)
    wanted = validated(StartRequest, body, opening=_opening(state, body))
    wanted = wanted.model_copy(update={"launched_agent_profile": profile})
    service = state.conversations
    with refusals():
        conversation, created = await service.population.create(wanted)
        # The answer shows the conversation before its first run, which begins right after.
        answer = conversation.shown(include_skills=include_skills)
        if created:
            answer["runtime_info"] = None
        if created and wanted.initial_message is not None and conversation.has_message:
            await service.agents.run(conversation.id)
    return JSONResponse(answer, 201 if created else 200)


def _opening(state: RuntimeState, body: Mapping[str, Any]) -> Opening | None:
    """Tokens are opened when the body says that it holds some; a text that only looks like one stays a text."""
    return Opening(state.cipher) if body.get("secrets_encrypted") is True else None


async def _start_older(state: RuntimeState, body: Mapping[str, Any]) -> JSONResponse:
    wanted = validated(OlderStart, body)
    if wanted.conversation_id is not None and not state.settings.allow_set_conversation_id:
        raise refused("conversation_id", "conversation_id may not be set in this runtime")
    makes = OlderConversations(state.conversations, state.settings_store, state.git_providers)
    try:
        with refusals():
            conversation, created = await makes.create(wanted)
            if created and conversation.has_message and not wanted.imported:  # that message was answered before
                await state.conversations.agents.run(conversation.id)
    except InvalidRepository as error:
        raise refused("repository", str(error)) from None
    except OlderRefusal as refusal:
        return JSONResponse({"status": "error", "message": str(refusal), "msg_id": refusal.message_id}, 400)
    answer = {"status": "ok", "conversation_id": conversation.id.hex, "message": None}
    return JSONResponse({**answer, "conversation_status": "STARTING"})


@router.get("/search")
async def search(
    state: StateDependency,
    page_id: UUID | None = None,
    limit: Annotated[int, Query(gt=0, le=LONGEST_PAGE)] = LONGEST_PAGE,
    status: Status | None = None,
    sort_order: SortOrder = SortOrder.CREATED_AT_DESC,
    include_skills: bool = False,
) -> Response:
    try:
        found = page(state.conversations.records(), page_id=page_id, limit=limit, status=status, order=sort_order)
    except UnknownPage as error:
        raise HTTPException(400, str(error)) from None
    if not include_skills:
        return json_text(page_json(state, found))
    service, folders = state.conversations, state.conversations.folders
    elsewhere = service.elsewhere(record.id for record in found.records)
    items = [
        shown(record, folders.path(record.id), include_skills=True, elsewhere=record.id in elsewhere)
        for record in found.records
    ]
    return JSONResponse({"items": items, "next_page_id": found.next_id.hex if found.next_id else None})


def page_json(state: RuntimeState, found: Page) -> bytes:
    """The body of `search` without skills."""
    service, folders = state.conversations, state.conversations.folders
    elsewhere = service.elsewhere(record.id for record in found.records)
    listed = b",".join(
        record.shown_json(folders.path(record.id), elsewhere=record.id in elsewhere) for record in found.records
    )
    following = json.dumps(found.next_id.hex if found.next_id else None).encode()
    return b'{"items":[' + listed + b'],"next_page_id":' + following + b"}"


@router.get("/count")
async def count(state: StateDependency, status: Status | None = None) -> int:
    records = state.conversations.records()
    return sum(status is None or record.execution_status is status for record in records)


@router.get("/{conversation_id}")
async def get(state: StateDependency, conversation_id: ConversationId, include_skills: bool = False) -> Response:
    """ConversationInfo, with the older record's fields beside it."""
    with refusals():
        record = await state.conversations.recovered(conversation_id)
    folder = state.conversations.folders.path(conversation_id)
    if not include_skills:
        return json_text(conversation_json(record, folder))
    return JSONResponse({**shown(record, folder, include_skills=True), **_older_fields(conversation_id)})


def conversation_json(record: ConversationRecord, folder: Path) -> bytes:
    """The body of `get` without skills."""
    older = json.dumps(_older_fields(record.id)).encode()  # none of these has a name that the record has
    return record.shown_json(folder)[:-1] + b"," + older[1:]


@router.delete("/{conversation_id}")
async def delete(state: StateDependency, conversation_id: ConversationId) -> JSONResponse:
    with refusals():
        await state.conversations.population.delete(conversation_id)
    return JSONResponse({"success": True})


@router.post("/{conversation_id}/run")
async def run(state: StateDependency, conversation_id: ConversationId) -> JSONResponse:
    with refusals():
        await state.conversations.agents.run(conversation_id)
    return JSONResponse({"success": True})


@router.post("/{conversation_id}/pause")
async def pause(state: StateDependency, conversation_id: ConversationId) -> JSONResponse:
    with refusals():
        await state.conversations.agents.pause(conversation_id)
    return JSONResponse({"success": True})


@router.get("/{conversation_id}/agent_final_response")
async def final_response(state: StateDependency, conversation_id: ConversationId) -> JSONResponse:
    with refusals():
        record = state.conversations.record(conversation_id)
    return JSONResponse({"response": record.final_response})


class SecretsUpdate(Body):
    """Secrets to add or replace, each as a value, {"value": ...} or a source."""

    secrets: dict[str, GivenSource] = Field(...)

    @field_validator("secrets")
    @classmethod
    def _names(cls, secrets: dict[str, Any]) -> dict[str, Any]:
        for name in secrets:
            check_name(name)
        return secrets


@router.post("/{conversation_id}/secrets")
async def update_secrets(state: StateDependency, conversation_id: ConversationId, body: SecretsUpdate) -> JSONResponse:
    with refusals():
        async with state.conversations.using(conversation_id) as conversation:
            await conversation.update_secrets(body.secrets)
    return JSONResponse({"success": True})


def _older_fields(conversation_id: UUID) -> dict[str, Any]:
    """What an older caller reads; a newer one ignores them."""
    return {"conversation_id": conversation_id.hex, "status": "RUNNING", "runtime_status": "STATUS$READY"}
