"""Files by their paths in a conversation's working directory, or in the runtime's own workspace: for the orchestrator's
files and links, and for clients.

Nothing here reaches out of the directory (`runtime.machine.workspace`). Bodies pass through in both directions. Another
agent server has no such routes.
"""

from __future__ import annotations

import io
import mimetypes
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response

from runtime.api.dependencies import StateDependency
from runtime.api.files import attachment, streamed
from runtime.api.opened import OpenedResponse
from runtime.api.paths import Below  # noqa: F401 - what {path:below} means
from runtime.api.place import PlaceDependency
from runtime.machine import account, archives
from runtime.machine.archives import Format
from runtime.machine.files import BadPath, Missing, Opened
from runtime.machine.workspace import CHANGED, Changed, Clashes, Entry, Workspace, check, matches, parts_of, tag_of

router = APIRouter(tags=["Workspace"])  #: in `app.py` under the paths of both

#: what the agent made may be hostile to a browser
SAFE = {
    "Content-Security-Policy": "sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-cache",
}
_ENTRY_KIND = {"X-Entry-Kind": "folder"}  # tells the listing from a file that holds JSON
Tag = Annotated[str | None, Header()]


def _workspace(state: StateDependency, place: PlaceDependency) -> Workspace:
    return Workspace(place.directory, state.boundaries)


WorkspaceDependency = Annotated[Workspace, Depends(_workspace)]


def told(error: BadPath) -> HTTPException:
    """404 for what is not there, 409 for another kind of thing, 412 for another state, 400 for the rest."""
    kinds = ((Missing, 404), (Clashes, 409), (Changed, 412))
    return HTTPException(next((status for kind, status in kinds if isinstance(error, kind)), 400), str(error))


@router.head("", include_in_schema=False)
@router.head("/{path:below}", include_in_schema=False)
@router.get("")
@router.get("/{path:below}")
async def read(
    request: Request,
    workspace: WorkspaceDependency,
    state: StateDependency,
    path: str = "",
    archive: Format | None = None,
    page_id: str = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    if_match: Tag = None,
    if_none_match: Tag = None,
) -> Response:
    """A file's bytes, also in ranges; the entries of a folder, in pages; or, with `archive`, a folder whole."""
    try:
        parts = parts_of(path)
        if archive is not None:
            return await _archived(workspace, state, parts, archive, head_only=request.method == "HEAD")
        if await account.in_thread(workspace.kind, parts) == "folder":
            found, following = await account.in_thread(workspace.entries, parts, after=page_id, limit=limit)
            items = [_shown(entry) for entry in found]
            return JSONResponse({"items": items, "next_page_id": following}, headers=_ENTRY_KIND | SAFE)
        file = await account.in_thread(workspace.opened, parts)
    except BadPath as error:
        raise told(error) from None
    return _file(file, parts[-1], if_match, if_none_match)


@router.put("/{path:below}")
async def write(
    request: Request,
    workspace: WorkspaceDependency,
    path: str,
    if_match: Tag = None,
    if_none_match: Tag = None,
) -> Response:
    """The body becomes the file: whole, or not at all. A path that ends in `/` makes a folder."""
    if "content-range" in request.headers:  # else the part that it holds would take the place of all of the file
        raise HTTPException(400, "A file is written whole: send all of it, without Content-Range")
    try:
        parts = parts_of(path)
        if path.endswith("/"):
            await _no_body(request)
            await account.in_thread(workspace.make_folder, parts)
            return Response(status_code=204)
        if if_none_match not in (None, "*"):
            raise HTTPException(400, "If-None-Match of a write must be *")
        new = if_none_match == "*"
        with workspace.incoming(parts) as incoming:
            check(incoming.before, seen=if_match, new=new)
            async for piece in request.stream():
                if piece:
                    await account.in_thread(incoming.write, piece)
            tag = await account.in_thread(incoming.keep, seen=if_match, new=new)
        body = {"path": "/".join(parts), "size": incoming.size}
        return JSONResponse(body, 200 if incoming.before is not None else 201, headers={"ETag": tag})
    except BadPath as error:
        raise told(error) from None


@router.delete("/{path:below}", status_code=204)
async def remove(workspace: WorkspaceDependency, path: str, recursive: bool = False, if_match: Tag = None) -> Response:
    """A file, a link, or a folder; one that is not empty only with `recursive`."""
    try:
        await account.in_thread(workspace.remove, parts_of(path), seen=if_match, recursive=recursive)
    except BadPath as error:
        raise told(error) from None
    return Response(status_code=204)


def _file(file: Opened, name: str, if_match: str | None, if_none_match: str | None) -> Response:
    tag = tag_of(file.state)
    headers = {**SAFE, "ETag": tag, "X-Entry-Kind": "file"}
    if if_match is not None and not matches(if_match, tag):
        file.close()
        raise HTTPException(412, CHANGED)
    if if_none_match is not None and matches(if_none_match, tag, weakly=True):
        file.close()
        return Response(status_code=304, headers=headers)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return OpenedResponse(file, media_type=kind, filename=name, headers=headers)


async def _archived(
    workspace: Workspace, state: StateDependency, parts: Sequence[str], format: Format, *, head_only: bool
) -> Response:
    await account.in_thread(workspace.entries, parts, after="", limit=1)  # what is wrong is said before the first byte

    def work(pipe: io.BufferedWriter) -> None:
        with account.acting(), workspace.folder(parts) as folder:
            archives.write(pipe, folder, state.boundaries, format)

    name = f"{parts[-1] if parts else 'workspace'}.{format}"
    answer = attachment(nothing() if head_only else streamed(work), archives.MEDIA_TYPES[format], name)
    answer.headers.update(SAFE)
    return answer


async def nothing() -> AsyncIterator[bytes]:
    """A body for a HEAD: what nobody reads is not made."""
    pieces: tuple[bytes, ...] = ()
    for piece in pieces:
        yield piece


async def _no_body(request: Request) -> None:
    async for piece in request.stream():
        if piece:
            raise HTTPException(400, "A folder has no content: send no body, or a path without / at its end")


def _shown(entry: Entry) -> dict[str, object]:
    modified = datetime.fromtimestamp(entry.modified, UTC).isoformat().replace("+00:00", "Z")
    return {"name": entry.name, "kind": entry.kind, "size": entry.size, "modified_at": modified, "etag": entry.tag}
