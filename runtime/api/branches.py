"""Routes that change what a conversation is: name, model, branch, copies, children (contract 4.5)."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import JSONResponse
from pydantic import Field, StringConstraints, field_validator

from runtime.api.answers import ConversationId, refusals
from runtime.api.bodies import Body
from runtime.api.dependencies import StateDependency
from runtime.configuration.record import LlmSettings
from runtime.conversations.children import child_of
from runtime.conversations.conversation import Conversation
from runtime.conversations.forking import UnknownEvent
from runtime.conversations.library import ConversationNotFound
from runtime.conversations.ownership import OwnedElsewhere
from runtime.conversations.population import IdTaken
from runtime.conversations.record import ConversationRecord
from runtime.conversations.start import checked_tags
from runtime.conversations.workspaces import WorkspaceUnusable
from runtime.state import RuntimeState

router = APIRouter(prefix="/conversations", tags=["Conversations"])

_DONE = {"success": True}
_MOST_IDS = 99
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class _Tagged(Body):
    title: Title | None = None
    tags: dict[str, str] | None = None

    @field_validator("tags")
    @classmethod
    def _tags(cls, tags: dict[str, str] | None) -> dict[str, str] | None:
        return None if tags is None else checked_tags(tags)


class Change(_Tagged):
    """What is absent stays; tags are replaced as a whole."""


class Fork(_Tagged):
    id: UUID | None = None
    reset_metrics: bool = True
    from_event_id: UUID | None = None


class Navigate(Body):
    """The event to go on from; null for the beginning."""

    event_id: UUID | None


class Child(Body):
    task: Annotated[str, StringConstraints(min_length=1, max_length=1_000_000)]
    title: Title | None = None
    #: not given: a working tree of its own where the parent works in a repository with commits
    isolation: Literal["worktree", "shared"] | None = None


class SwitchLlm(Body):
    llm: LlmSettings


class Plugin(Body):
    plugin_ref: str = Field(max_length=4096)


@router.get("")
async def several(state: StateDependency, ids: Annotated[list[UUID], Query(max_length=_MOST_IDS)]) -> JSONResponse:
    """The conversations of these ids, in this order; null for a miss, and for another server's."""
    found: list[Any] = []
    for id in ids:
        try:
            record = state.conversations.record(id)
        except (ConversationNotFound, OwnedElsewhere):
            found.append(None)
        else:
            found.append(json.loads(record.shown_json(state.conversations.folders.path(id))))
    return JSONResponse(found)


@router.patch("/{conversation_id}")
async def change(state: StateDependency, conversation_id: ConversationId, body: Change) -> JSONResponse:
    with refusals():
        await state.conversations.change(conversation_id, title=body.title, tags=body.tags)
    return JSONResponse(_DONE)


@router.post("/{conversation_id}/fork")
async def fork(state: StateDependency, conversation_id: ConversationId, body: Fork) -> JSONResponse:
    """A copy with the log up to an event, in the same working directory."""
    try:
        with refusals():
            made = await state.conversations.population.fork(
                conversation_id,
                new_id=body.id,
                title=body.title,
                tags=body.tags,
                reset_metrics=body.reset_metrics,
                from_event_id=body.from_event_id,
            )
    except IdTaken:
        raise HTTPException(409, "A conversation with this id exists") from None
    except UnknownEvent:
        raise HTTPException(404, "Event not found") from None
    return JSONResponse({**made.shown(), "runtime_info": None}, 201)


@router.post("/{conversation_id}/navigate")
async def navigate(state: StateDependency, conversation_id: ConversationId, body: Navigate) -> JSONResponse:
    """Go on from an earlier event; the events after it stay in the log, on a branch of their own."""
    try:
        with refusals():
            conversation = await state.conversations.navigate(conversation_id, body.event_id)
    except UnknownEvent:
        raise HTTPException(404, "Event not found") from None
    return JSONResponse({**conversation.shown(), "runtime_info": None})


@router.post("/{conversation_id}/children")
async def child(state: StateDependency, conversation_id: ConversationId, body: Child) -> JSONResponse:
    """A conversation for a part of the work, begun at once, under the rules of its parent."""
    with refusals():
        parent = state.conversations.record(conversation_id)
        try:
            made = await _begin(state, parent, body, worktree=body.isolation != "shared")
        except WorkspaceUnusable:
            if body.isolation is not None:
                raise
            made = await _begin(state, parent, body, worktree=False)
        answer = {
            "conversation_id": str(made.id),
            "parent_conversation_id": str(parent.id),
            "status": made.status.value,
            "title": made.record.title,
            "url": None,
            "workspace": made.record.workspace.working_dir,
            "isolation": "shared" if made.record.worktree is None else "worktree",
        }
        if made.has_message:
            await state.conversations.agents.run(made.id)
    return JSONResponse(answer, 201)


async def _begin(state: RuntimeState, parent: ConversationRecord, body: Child, *, worktree: bool) -> Conversation:
    wanted = child_of(parent, body.task, title=body.title, worktree=worktree)
    return (await state.conversations.population.create(wanted, origin=parent.origin))[0]


@router.post("/{conversation_id}/switch_llm")
async def switch_llm(state: StateDependency, conversation_id: ConversationId, body: SwitchLlm) -> JSONResponse:
    """Another model from the next run on."""
    with refusals():
        await state.conversations.switch_llm(conversation_id, body.llm)
    return JSONResponse(_DONE)


@router.post("/{conversation_id}/load_plugin")
async def load_plugin(state: StateDependency, conversation_id: ConversationId, body: Plugin) -> JSONResponse:
    """Plugins bring code of others into the agent; this runtime loads none."""
    with refusals():
        state.conversations.record(conversation_id)
    raise HTTPException(400, "Plugins are not available in this runtime")
