"""Routes that steer a running agent: interrupt, confirmation, judgement of risk (contract 4.5)."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from runtime.api.answers import ConversationId, refusals
from runtime.api.bodies import Body
from runtime.api.dependencies import StateDependency
from runtime.conversations.policies import ConfirmationPolicy, SecurityAnalyzer

router = APIRouter(prefix="/conversations/{conversation_id}", tags=["Conversations"])

_DONE = {"success": True}


class ConfirmationResponse(Body):
    """Whether the acts that wait for leave may be done."""

    accept: bool
    reason: str = Field(default="User rejected the action.", max_length=10_000)


class PolicyUpdate(Body):
    policy: ConfirmationPolicy


class AnalyzerUpdate(Body):
    security_analyzer: SecurityAnalyzer | None


@router.post("/interrupt")
async def interrupt(state: StateDependency, conversation_id: ConversationId) -> JSONResponse:
    """Break off what the agent does now, a call of the model and a command included. Idle: nothing happens."""
    with refusals():
        await state.conversations.agents.interrupt(conversation_id)
    return JSONResponse(_DONE)


@router.post("/events/respond_to_confirmation")
async def respond(state: StateDependency, conversation_id: ConversationId, body: ConfirmationResponse) -> JSONResponse:
    """Accepted acts are done and the agent goes on; rejected ones are not, and it waits for the next message."""
    with refusals():
        await state.conversations.agents.respond(conversation_id, accept=body.accept, reason=body.reason)
    return JSONResponse(_DONE)


@router.post("/confirmation_policy")
async def set_policy(state: StateDependency, conversation_id: ConversationId, body: PolicyUpdate) -> JSONResponse:
    with refusals():
        await state.conversations.set_confirmation_policy(conversation_id, body.policy.model_dump())
    return JSONResponse(_DONE)


@router.post("/security_analyzer")
async def set_analyzer(state: StateDependency, conversation_id: ConversationId, body: AnalyzerUpdate) -> JSONResponse:
    chosen = body.security_analyzer.model_dump() if body.security_analyzer is not None else None
    with refusals():
        await state.conversations.set_security_analyzer(conversation_id, chosen)
    return JSONResponse(_DONE)
