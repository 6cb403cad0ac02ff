"""`/v1`: the agent behind OpenAI-compatible clients (contract 10, optional).

Stored profiles are the models, `openhands_<profile>`. The conversation that answers is named in a header, and goes on
when the client sends that header back. A session key opens these routes as a bearer token too, since that is what such
clients send.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse

from runtime.api.answers import refusals
from runtime.api.dependencies import StateDependency, require_bearer_or_session_key
from runtime.api.openai_bodies import ChatBody, Completion, ResponseBody, Unanswerable, response
from runtime.conversations.questions import Question, Questions, Turn, TurnFailed, TurnTooLong, UnknownModel
from runtime.conversations.status import Status
from runtime.state import RuntimeState

router = APIRouter(prefix="/v1", tags=["OpenAI Compatibility"], dependencies=[Depends(require_bearer_or_session_key)])

CONVERSATION_HEADER = "X-OpenHands-ServerConversation-ID"
#: the time that OpenAI's own clients wait for an answer; a stream lasts as long as the run
LONGEST_TURN_SECONDS = 600.0
#: between two signs of life of a stream, so that nobody on the way takes it for dead
_QUIET_SECONDS = 15.0
_BROKEN = frozenset({Status.ERROR, Status.STUCK})


@router.get("/models")
async def models(state: StateDependency) -> JSONResponse:
    listed = [
        {"id": name, "object": "model", "created": 0, "owned_by": "openhands"} for name in _questions(state).models()
    ]
    return JSONResponse({"object": "list", "data": listed})


@router.post("/chat/completions")
async def chat(
    state: StateDependency,
    body: ChatBody,
    conversation_id: Annotated[UUID | None, Header(alias=CONVERSATION_HEADER)] = None,
) -> Any:
    """The agent's answer to the last user message, whole or as a stream that begins at once."""
    try:
        turn = await _begun(state, body.question(conversation_id))
        completion = Completion(body.model)
        if not body.stream:
            answer = await _questions(state).end(turn, seconds=LONGEST_TURN_SECONDS)
            return JSONResponse(completion.whole(answer), headers=_told(turn.conversation.id))
    except Unanswerable as error:
        raise HTTPException(400, str(error)) from None
    except (TurnFailed, TurnTooLong) as failure:
        return _failed(failure)
    usage = body.stream_options is not None and body.stream_options.include_usage
    pieces = _stream(_questions(state), turn, completion, include_usage=usage)
    return StreamingResponse(pieces, media_type="text/event-stream", headers=_told(turn.conversation.id))


@router.post("/responses")
async def responses(state: StateDependency, body: ResponseBody) -> JSONResponse:
    """The agent's answer in a conversation of its own."""
    created_at = time.time()
    try:
        turn = await _begun(state, body.question())
        answer = await _questions(state).end(turn, seconds=LONGEST_TURN_SECONDS)
    except Unanswerable as error:
        raise HTTPException(400, str(error)) from None
    except (TurnFailed, TurnTooLong) as failure:
        return _failed(failure)
    return JSONResponse(response(body, answer, created_at=created_at), headers=_told(turn.conversation.id))


def _questions(state: RuntimeState) -> Questions:
    return Questions(state.conversations, state.settings_store, state.profiles)


async def _begun(state: RuntimeState, question: Question) -> Turn:
    try:
        with refusals():
            return await _questions(state).begin(question)
    except UnknownModel as error:
        raise HTTPException(404, f"Unknown model {str(error)!r}: GET /v1/models lists those that there are") from None


def _told(conversation_id: UUID) -> dict[str, str]:
    return {CONVERSATION_HEADER: str(conversation_id), "Cache-Control": "no-store"}


def _failed(failure: TurnFailed | TurnTooLong) -> JSONResponse:
    """Why a run ended is for those who may read its conversation."""
    status = 504
    if isinstance(failure, TurnFailed):
        status = 500 if failure.status in _BROKEN else 409
    return JSONResponse({"detail": str(failure)}, status, headers=_told(failure.conversation_id))


async def _stream(
    questions: Questions, turn: Turn, completion: Completion, *, include_usage: bool
) -> AsyncIterator[str]:
    yield _line(completion.begun())
    ending = asyncio.create_task(questions.end(turn, seconds=None), name=f"answer of {turn.conversation.id}")
    try:
        while not (await asyncio.wait([ending], timeout=_QUIET_SECONDS))[0]:
            yield ": the agent works\n\n"
        for piece in completion.pieces(ending.result(), include_usage=include_usage):
            yield _line(piece)
        yield "data: [DONE]\n\n"
    except TurnFailed as failure:
        # The status of the answer is out already; clients of such streams look for this.
        yield _line({"error": {"message": str(failure), "type": "server_error", "param": None, "code": None}})
    finally:
        ending.cancel()


def _line(piece: dict[str, Any]) -> str:
    return f"data: {json.dumps(piece)}\n\n"
