"""Routes by which a conversation gets a copy in another runtime: given out there, taken in here. For the orchestrator.

Our own addition: another agent server has none of them. Bodies pass through in both directions.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response

from runtime.api.answers import ConversationId, refusals
from runtime.api.dependencies import StateDependency
from runtime.api.files import attachment, streamed
from runtime.api.workspace_files import told
from runtime.conversations.conversation import Conversation
from runtime.conversations.copying import BadCopy, carried, write
from runtime.conversations.forking import UnknownEvent
from runtime.conversations.population import IdTaken
from runtime.machine import account
from runtime.machine.files import BadPath
from runtime.machine.workspace import Workspace
from runtime.state import RuntimeState

router = APIRouter(prefix="/conversations/{conversation_id}/copy", tags=["Conversations"])

_TAR = "application/x-tar"
Count = Annotated[int | None, Query(ge=0)]


@router.get("")
async def look(state: StateDependency, conversation_id: ConversationId, events: Count = None) -> JSONResponse:
    """Whether it could be given out now, and how many events that would be. 409 while the agent works, 404 where there
    are not so many events."""
    try:
        with refusals():
            async with state.conversations.population.given_out(conversation_id, events) as (_, count):
                return JSONResponse({"events": count})
    except UnknownEvent:
        raise HTTPException(404, "Event not found") from None


@router.get("/archive")
async def give(state: StateDependency, conversation_id: ConversationId, events: Count = None) -> Response:
    """The first `events` of the log with the working directory as it is now, as one tar. Refused as `look`."""
    try:
        with refusals():
            async with state.conversations.population.given_out(conversation_id, events) as (conversation, count):
                root = Path(conversation.record.workspace.working_dir)
                await account.in_thread(Workspace(root, state.boundaries).entries, (), after="", limit=1)
    except UnknownEvent:
        raise HTTPException(404, "Event not found") from None
    except BadPath as error:
        raise told(error) from None
    return attachment(_given(state, conversation, count, root), _TAR, "conversation.tar")


async def _given(state: RuntimeState, source: Conversation, count: int, root: Path) -> AsyncIterator[bytes]:
    async with state.conversations.population.given_out(source.id, count) as (conversation, _):
        head = carried(conversation.record, conversation.events, count)

        def work(pipe: io.BufferedWriter) -> None:
            write(pipe, head, conversation.events, count, root, state.boundaries)

        async for piece in streamed(work):
            yield piece


@router.put("/archive", status_code=204)
async def take(request: Request, state: StateDependency, conversation_id: ConversationId) -> Response:
    """What the route above gives: a conversation of this id that is begun with `imported` goes on with it. The working
    directory becomes that of the copy. Only in a runtime without conversations (409)."""
    root = state.settings.workspace_path.absolute()
    try:
        async with state.conversations.population.taken_in(conversation_id) as copies:
            await _taken(request, lambda pipe: copies.take(pipe, conversation_id, root, state.boundaries))
    except IdTaken:
        raise HTTPException(409, "There is a conversation in this runtime already") from None
    except BadCopy as error:
        raise HTTPException(400, str(error)) from None
    except BadPath as error:
        raise told(error) from None
    except OSError as error:
        raise HTTPException(400, f"The copy cannot be written: {error.strerror}") from None
    return Response(status_code=204)


async def _taken(request: Request, take: Callable[[io.BufferedReader], None]) -> None:
    """Give the body to a thread, through a pipe: a slow disk makes the sender wait."""
    read_end, write_end = os.pipe()

    def work() -> None:
        with os.fdopen(read_end, "rb") as pipe:
            take(pipe)

    reader = asyncio.create_task(asyncio.to_thread(work))
    try:
        with os.fdopen(write_end, "wb", buffering=0) as pipe:
            async for piece in request.stream():
                view = memoryview(piece)
                while view and not reader.done():
                    try:
                        view = view[await asyncio.to_thread(pipe.write, view) :]
                    except BrokenPipeError:  # it has all that it needs, or says below what is wrong
                        break
    finally:
        await reader
