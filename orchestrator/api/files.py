"""Files of a conversation's workspace, read and written by their paths in it, and a folder as an archive.

Bytes of any size pass through as they come. What the agent made is answered as a download without rights: a browser
that is led here runs nothing of it in this origin.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Literal

import anyio
import anyio.abc
import structlog
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from orchestrator.api import audited
from orchestrator.api.answers.contents import EntryPage, Written
from orchestrator.api.auth import Owner, OwnerOf, ServicesOf, Standing
from orchestrator.api.context import Services
from orchestrator.api.conversations import id_of
from orchestrator.api.lists import MOST, Limit
from orchestrator.api.middleware import Below  # noqa: F401 - what {path:below} means
from orchestrator.api.paging import Paging, PagingOf
from orchestrator.api.problems import problem
from orchestrator.domain.errors import CallerError, NestorError, RuntimeUnreachable
from orchestrator.nested.streams import Answer

router = APIRouter(prefix="/api/v2/conversations/{conversation}/files", tags=["files"])

log = structlog.get_logger(__name__)
_LISTING_BYTES = 4 * 1024 * 1024
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_ASKED = ("range", "if-range", "if-none-match", "if-match")
_ANSWERED = (
    "accept-ranges",
    "content-length",
    "content-range",
    "content-type",
    "etag",
    "last-modified",
    "x-entry-kind",
)
_SAFE = {
    "content-security-policy": "sandbox; default-src 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "private, no-cache",
    "cross-origin-resource-policy": "same-origin",
}
Archive = Annotated[Literal["tar", "tar.gz", "zip"] | None, Query()]
_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_READ: dict[int | str, dict[str, Any]] = {
    200: {"model": EntryPage, "content": {"*/*": _BYTES}, "description": "A file, a listing or an archive"},
    206: {"content": {"*/*": _BYTES}, "description": "A part of the file"},
    304: {"description": "It is as it was"},
    416: {"description": "The file has no such part"},
}
IfMatch = Annotated[str | None, Header(description="The `ETag` of the file that it is to be")]
IfNoneMatch = Annotated[str | None, Header(description="`*`: only where there is no file")]


def _on_file(if_match: IfMatch = None) -> None:
    """Passed on to the runtime, which knows the file: said here for the document, and so that it is not refused."""


def _on_place(if_match: IfMatch = None, if_none_match: IfNoneMatch = None) -> None:
    """The same, of a write."""


@router.head("", include_in_schema=False)
@router.head("/{path:below}", include_in_schema=False)
@router.get("", responses=_READ, response_class=Response)
@router.get("/{path:below}", responses=_READ, response_class=Response)
async def read(
    request: Request,
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    paging: PagingOf,
    path: str = "",
    archive: Archive = None,
    limit: Limit = MOST,
) -> Response:
    """A file, whole or in ranges, with its `ETag`; the entries of a folder; or, with `archive`, the folder whole."""
    page = {"limit": str(limit)} | ({"page_id": paging.after} if paging.after is not None else {})
    return await passed(request, conversation, owner, services, path=path, archive=archive, page=page, paging=paging)


async def passed(
    request: Request,
    conversation: str,
    owner: Owner,
    services: Services,
    *,
    path: str = "",
    archive: Archive = None,
    page: Mapping[str, str] | None = None,
    paging: Paging | None = None,
) -> Response:
    """What `read` answers. Without `paging` the entries of a folder are as the runtime tells them, its page ids too."""
    answer = await services.files.ask(
        owner.tenant,
        owner.user,
        id_of(conversation),
        request.method,
        path,
        query=(page or {}) if archive is None else {"archive": archive},
        headers=_of(request.headers, _ASKED),
    )
    if answer.status == 416:
        await answer.close()
        refused = problem(request, 416, "range_not_satisfiable", "the file has no such part", hint="see Content-Range")
        refused.headers.update(_of(answer.headers, ("content-range",)))
        return refused
    if answer.headers.get("x-entry-kind") != "folder":
        return _Passed(answer, _name(path, archive), Standing(request, services))
    if paging is None or request.method != "GET":
        passed = _Passed(answer, None, Standing(request, services))
        if paging is not None and "content-length" in passed.headers:
            del passed.headers["content-length"]  # of a page that GET signs, which makes it longer
        return passed
    return await _listing(answer, paging)


@router.put(
    "/{path:below}",
    responses={
        200: {"model": Written, "description": "Replaced"},
        201: {"model": Written, "description": "Made"},
        204: {"description": "The folder is there"},
    },
    openapi_extra={"requestBody": {"content": {"application/octet-stream": _BYTES}}},
    dependencies=[Depends(_on_place)],
    response_class=Response,
)
async def write(request: Request, conversation: str, path: str, owner: OwnerOf, services: ServicesOf) -> Response:
    """The body becomes the file: whole or not at all, its folders made. `If-Match` with an `ETag`: only in place of
    that one; `If-None-Match: *`: only where there is none. A path that ends in `/`, without a body, makes a folder."""
    if "content-range" in request.headers:  # else the part that it holds would take the place of all of the file
        raise CallerError("a file is written whole", hint="send all of it, without Content-Range")
    headers = _of(request.headers, ("if-match", "if-none-match", "content-length"))
    await audited.first(services)
    try:
        answer = await services.files.ask(
            owner.tenant,
            owner.user,
            id_of(conversation),
            "PUT",
            path,
            query={},
            headers=headers,
            body=_body(request),
        )
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is there to be answered
    return _Passed(answer, None, Standing(request, services))


@router.delete("/{path:below}", status_code=204, response_class=Response, dependencies=[Depends(_on_file)])
async def remove(
    request: Request, conversation: str, path: str, owner: OwnerOf, services: ServicesOf, recursive: bool = False
) -> Response:
    """A file, a link (not what it leads to), or a folder; one that is not empty only with `recursive`."""
    await audited.first(services)
    answer = await services.files.ask(
        owner.tenant,
        owner.user,
        id_of(conversation),
        "DELETE",
        path,
        query={"recursive": "true"} if recursive else {},
        headers=_of(request.headers, ("if-match",)),
    )
    await answer.close()
    return Response(status_code=204)


class _Passed(Response):
    """The runtime's answer, piece by piece, in headers of our own. A runtime that breaks off breaks this off too, and
    so does the end of the caller's key."""

    def __init__(self, answer: Answer, filename: str | None, standing: Standing) -> None:
        told = {name: value for name, value in _of(answer.headers, _ANSWERED).items() if value.isascii()}
        super().__init__(status_code=answer.status, headers=told | _SAFE)
        if filename is not None:
            self.headers["content-disposition"] = f'attachment; filename="{_UNSAFE.sub("_", filename)}"'
        if "content-length" not in answer.headers and "content-length" in self.headers:
            del self.headers["content-length"]
        self._answer = answer
        self._standing = standing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_watch, receive, tasks)
                try:
                    await self._pass(send)
                except NestorError as exc:  # the end is missing, and the server closes the connection for that
                    log.warning("files.broken_off", problem=exc.message)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._answer.close()

    async def _pass(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._answer.pieces:
            await self._standing.check()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _listing(answer: Answer, paging: Paging) -> Response:
    """A page of a folder, read whole to sign where the next begins. Raises `RuntimeUnreachable` for what is none."""
    text = bytearray()
    try:
        async for piece in answer.pieces:
            text += piece
            if len(text) > _LISTING_BYTES:
                raise RuntimeUnreachable("the runtime's listing of a folder is too long")
    finally:
        with anyio.CancelScope(shield=True):
            await answer.close()
    headers = _of(answer.headers, ("x-entry-kind",)) | _SAFE
    try:
        page = json.loads(text)
        following = paging.next(page["next_page_id"])
        return JSONResponse({**page, "next_page_id": following}, answer.status, headers=headers)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise RuntimeUnreachable("the runtime's listing of a folder cannot be read") from exc


async def _watch(receive: Receive, tasks: anyio.abc.TaskGroup) -> None:
    """A caller who is gone is told here, and nowhere else: nothing more is fetched for it."""
    while (await receive())["type"] != "http.disconnect":
        pass
    tasks.cancel_scope.cancel()


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        if piece:
            yield piece


def _of(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}


def _name(path: str, archive: str | None) -> str:
    last = path.rstrip("/").rpartition("/")[2] or "workspace"
    return last if archive is None else f"{last}.{archive}"
