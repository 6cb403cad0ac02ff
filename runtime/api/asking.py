"""Questions to the agent beside its work, and condensation on demand (contract 4.5)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse
from pydantic import StringConstraints

from runtime.agent.reply import ModelError
from runtime.api.answers import ConversationId, refusals
from runtime.api.bodies import Body
from runtime.api.dependencies import StateDependency
from runtime.conversations.memory import NoAnswer, NoCondenser

router = APIRouter(prefix="/conversations/{conversation_id}", tags=["Conversations"])

_NO_CONDENSER = "Cannot condense conversation: No condenser configured"


class Question(Body):
    question: Annotated[str, StringConstraints(min_length=1, max_length=100_000)]


@router.post("/ask_agent")
async def ask_agent(state: StateDependency, conversation_id: ConversationId, body: Question) -> JSONResponse:
    """One more call of the model, about the conversation; nothing of it is stored. Also while the agent works."""
    try:
        with refusals():
            answer = await state.conversations.agents.ask(conversation_id, body.question)
    except NoAnswer:
        return JSONResponse({"detail": "The model gave no text"}, 500)
    except ModelError as error:
        return _not_asked(error)
    return JSONResponse({"response": answer})


@router.post("/condense")
async def condense(state: StateDependency, conversation_id: ConversationId) -> JSONResponse:
    """Put the older part into a summary, now or before the agent's next step. What it cost is told."""
    try:
        with refusals():
            await state.conversations.agents.condense(conversation_id)
    except NoCondenser:
        raise HTTPException(409, _NO_CONDENSER) from None
    except ModelError as error:
        return _not_asked(error)
    return JSONResponse({"success": True})


def _not_asked(error: ModelError) -> JSONResponse:
    return JSONResponse({"detail": f"The model could not be asked: {error.code}"}, 502)
