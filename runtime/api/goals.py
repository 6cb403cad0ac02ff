"""Routes of a goal: an objective that the agent pursues over several turns (contract 4.5).

Its progress is told by state events with the key `goal`.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse
from pydantic import Field, StringConstraints

from runtime.api.answers import ConversationId, refusals
from runtime.api.bodies import Body
from runtime.api.dependencies import StateDependency
from runtime.conversations.agents import NoGoal

router = APIRouter(prefix="/conversations/{conversation_id}/goal", tags=["Conversations"])

_DONE = {"success": True}
_NOTHING_TO_RESUME = "There is no interrupted goal to resume: start one with POST .../goal"


class StartGoal(Body):
    objective: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100_000)]
    max_iterations: Annotated[int, Field(ge=1, le=10_000)] = 10


@router.post("")
async def start(state: StateDependency, conversation_id: ConversationId, body: StartGoal) -> JSONResponse:
    with refusals():
        await state.conversations.agents.start_goal(conversation_id, body.objective, max_iterations=body.max_iterations)
    return JSONResponse(_DONE)


@router.post("/stop")
async def stop(state: StateDependency, conversation_id: ConversationId) -> JSONResponse:
    """The turn under way is not broken off: that is what pause and interrupt are for."""
    with refusals():
        await state.conversations.agents.stop_goal(conversation_id)
    return JSONResponse(_DONE)


@router.post("/resume")
async def resume(state: StateDependency, conversation_id: ConversationId) -> JSONResponse:
    try:
        with refusals():
            await state.conversations.agents.resume_goal(conversation_id)
    except NoGoal:
        raise HTTPException(400, _NOTHING_TO_RESUME) from None
    return JSONResponse(_DONE)
