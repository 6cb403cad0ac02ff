"""The runtime of one conversation, as a client sees it that thinks of one runtime each (contract 4.5, 7.5).

This server is that runtime, for all of its conversations: it is there as long as this answers. What can be missing is
the working directory, and the right to the conversation, which another server over the same folder may have.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, HTTPException
from fastapi.responses import JSONResponse

from runtime.api.answers import NOT_FOUND, ConversationId, refusals
from runtime.api.dependencies import StateDependency
from runtime.conversations.availability import OWNED_ELSEWHERE
from runtime.conversations.library import ConversationNotFound
from runtime.conversations.ownership import OwnedElsewhere
from runtime.conversations.record import runtime_info

router = APIRouter(prefix="/conversations/{conversation_id}/runtime", tags=["Conversations"])


@router.get("")
async def get(state: StateDependency, conversation_id: ConversationId) -> JSONResponse:
    try:
        record = state.conversations.record(conversation_id)
    except OwnedElsewhere:
        return JSONResponse(dict(OWNED_ELSEWHERE))
    except ConversationNotFound:
        raise HTTPException(404, NOT_FOUND) from None
    return JSONResponse(dict(runtime_info(record, elsewhere=False)))


@router.post("/reprovision")
async def reprovision(state: StateDependency, conversation_id: ConversationId) -> JSONResponse:
    """Make the working directory anew when it is gone; what was in it is not brought back."""
    with refusals():
        await state.conversations.restore_directory(conversation_id)
    return await get(state, conversation_id)


@router.post("/credentials")
async def credentials(
    state: StateDependency,
    conversation_id: ConversationId,
    x_session_api_key: Annotated[str | None, Header()] = None,
) -> JSONResponse:
    """The key that opens this conversation's runtime: the caller's own. 404 where no key is configured, and under an
    orchestrator: the key that arrives here then is not the caller's, and the caller must never see it."""
    with refusals():
        state.conversations.record(conversation_id)
    if x_session_api_key is None or state.settings.generation is not None:
        raise HTTPException(404, NOT_FOUND)
    return JSONResponse({"session_api_key": x_session_api_key})


@router.delete("")
async def release(state: StateDependency, conversation_id: ConversationId) -> JSONResponse:
    """A runtime that serves all conversations cannot be released for one: 404, which clients ignore."""
    with refusals():
        state.conversations.record(conversation_id)
    raise HTTPException(404, "This server runs its conversations itself: there is no runtime to release")
