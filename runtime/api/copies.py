"""Routes by which a conversation gets a copy in another runtime: given out there, taken in here. For the orchestrator.

Our own addition: another agent server has none of them. Bodies pass through in both directions.
"""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response

from runtime.api.answers import ConversationId, refusals
from runtime.api.dependencies import StateDependency
from runtime.api.files import attachment, streamed
from runtime.api.workspace_files import told
from runtime.conversations.conversation import Conversation
from runtime.conversations.copying import Adding, BadCopy, carried, write
from runtime.conversations.forking import UnknownEvent
from runtime.conversations.population import IdTaken
from runtime.machine import account
from runtime.machine.files import BadPath
from runtime.machine.workspace import Workspace
from runtime.state import RuntimeState

if TYPE_CHECKING:
    from runtime.machine.objects import Version

router = APIRouter(prefix="/conversations/{conversation_id}/copy", tags=["Conversations"])

_TAR = "application/x-tar"
#: says of an archive which workspace it has, to who might ask a runtime that does not know the question
_SAID = "X-Nestor-Workspace"
_NOT_KEPT = "The workspace of that event is not kept any more"
Count = Annotated[int | None, Query(ge=0)]
WorkspaceOf = Literal["current", "event"]


@router.get("")
async def look(state: StateDependency, conversation_id: ConversationId, events: Count = None) -> JSONResponse:
    """Whether it could be given out now, how many events that would be, and whether there is the workspace of that
    event; at the end of the log that is the one of now. 409 while the agent works, 404 where there are not so many
    events."""
    try:
        with refusals():
            async with state.conversations.population.given_out(conversation_id, events) as (conversation, count):
                is_past = count < len(conversation.events)
                version = await asyncio.to_thread(_version, state, conversation_id, count) if is_past else None
                return JSONResponse({"events": count, "workspace": "current" if version is None else "event"})
    except UnknownEvent:
        raise HTTPException(404, "Event not found") from None


@router.get("/archive")
async def give(
    state: StateDependency, conversation_id: ConversationId, events: Count = None, workspace: WorkspaceOf = "current"
) -> Response:
    """The first `events` of the log with the working directory as it is now, or as it was at the last of them, as one
    tar. Refused as `look`; 410 where the working directory of that event is not there, or not whole any more."""
    kept = None
    try:
        with refusals():
            async with state.conversations.population.given_out(conversation_id, events) as (conversation, count):
                root = Path(conversation.record.workspace.working_dir)
                if workspace == "event":
                    version = await asyncio.to_thread(_version, state, conversation_id, count, read=True)
                    if version is None:
                        raise HTTPException(410, _NOT_KEPT)
                    kept = partial(_add, state.conversations.folders.versions(conversation_id), version)
                else:
                    await account.in_thread(Workspace(root, state.boundaries).entries, (), after="", limit=1)
    except UnknownEvent:
        raise HTTPException(404, "Event not found") from None
    except BadPath as error:
        raise told(error) from None
    answer = attachment(_given(state, conversation, count, root, kept), _TAR, "conversation.tar")
    answer.headers[_SAID] = workspace
    return answer


def _version(state: RuntimeState, conversation_id: ConversationId, count: int, *, read: bool = False) -> Version | None:
    from runtime.machine.objects import find  # for few runtimes, and not at the start

    return find(state.conversations.folders.versions(conversation_id), count, read=read)


def _add(place: Path, version: Version, archive: tarfile.TarFile, prefix: str, root: Path) -> None:
    from runtime.machine.objects import add

    add(archive, place, version, prefix=prefix, root=root)


async def _given(
    state: RuntimeState, source: Conversation, count: int, root: Path, kept: Adding | None
) -> AsyncIterator[bytes]:
    async with state.conversations.population.given_out(source.id, count) as (conversation, _):
        head = carried(conversation.record, conversation.events, count)

        def work(pipe: io.BufferedWriter) -> None:
            write(pipe, head, conversation.events, count, root, state.boundaries, kept)

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
