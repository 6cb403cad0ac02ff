"""Files of a conversation's workspace as V0 and V1 ask for them: a list, a text, an archive. Paths are relative to it.

Reading wakes what nobody used, as in the native API, whose service this is (`services/files.py`).
"""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from orchestrator.api import files as native
from orchestrator.api.auth import Owner, OwnerOf, ServicesOf
from orchestrator.api.context import Services
from orchestrator.domain.errors import InvalidRequest, RuntimeUnreachable, TooLarge
from orchestrator.domain.ids import ConversationId
from orchestrator.facades.answers import V0Route, V1Route
from orchestrator.facades.app_conversations.bodies import app_id
from orchestrator.facades.v0.bodies import v0_id

router = APIRouter(prefix="/api/conversations/{conversation}", tags=["V0"], route_class=V0Route)
app_router = APIRouter(
    prefix="/api/v1/app-conversations/{conversation}", tags=["V1 app-conversations"], route_class=V1Route
)
_LARGEST_TEXT = 1024 * 1024
_LARGEST_LIST = 4 * 1024 * 1024  # bytes of one page of a list
_PAGE, _PAGES = 1000, 10
Path = Annotated[str, Query(max_length=4095)]


@router.get("/list-files")
async def list_files(conversation: str, owner: OwnerOf, services: ServicesOf, path: Path = "") -> list[str]:
    """Names in a folder, below its own path; a folder's ends with a slash. The first 10,000."""
    id, folder = v0_id(conversation), path.strip("/")
    names: list[str] = []
    page_id: str | None = None
    for _ in range(_PAGES):
        page = await _page(services, owner, id, folder, page_id)
        before = f"{folder}/" if folder else ""
        names += [before + item["name"] + ("/" if item["kind"] == "folder" else "") for item in page["items"]]
        page_id = page["next_page_id"]
        if page_id is None:
            break
    return names


@router.get("/select-file")
async def select_file(conversation: str, owner: OwnerOf, services: ServicesOf, file: Path) -> Response:
    """A text, as `code`. 413 for one of more than a MiB, 415 for what is no text."""
    body, is_folder = await _whole(services, owner, v0_id(conversation), file, {}, _LARGEST_TEXT)
    if is_folder:
        raise InvalidRequest("that is a folder", field="file", hint="GET …/list-files?path= lists it")
    try:
        return JSONResponse({"code": body.decode()})
    except UnicodeDecodeError:
        words = "the file is no text"
        told = {"status": "error", "message": words, "error": words, "detail": words}
        return JSONResponse(told, 415)


@router.get("/zip-directory", response_class=Response)
async def zip_directory(request: Request, conversation: str, owner: OwnerOf, services: ServicesOf) -> Response:
    """The workspace as a zip archive."""
    return await native.passed(request, v0_id(conversation), owner, services, archive="zip")


@app_router.get("/file", response_class=Response)
async def file(request: Request, conversation: str, owner: OwnerOf, services: ServicesOf, file_path: Path) -> Response:
    """The bytes of one file."""
    return await native.passed(request, app_id(conversation), owner, services, path=file_path)


@app_router.get("/download", response_class=Response)
async def download(request: Request, conversation: str, owner: OwnerOf, services: ServicesOf) -> Response:
    """The workspace as a zip archive."""
    return await native.passed(request, app_id(conversation), owner, services, archive="zip")


async def _page(
    services: Services, owner: Owner, id: ConversationId, folder: str, page_id: str | None
) -> dict[str, Any]:
    query = {"limit": str(_PAGE)} | ({} if page_id is None else {"page_id": page_id})
    body, is_folder = await _whole(services, owner, id, folder, query, _LARGEST_LIST)
    if not is_folder:
        raise InvalidRequest("that is a file", field="path", hint="GET …/select-file?file= reads it")
    try:
        page: dict[str, Any] = json.loads(body)
    except (ValueError, RecursionError):
        raise RuntimeUnreachable("the runtime answered its list of files with something else") from None
    return page


async def _whole(
    services: Services, owner: Owner, id: ConversationId, path: str, query: dict[str, str], largest: int
) -> tuple[bytes, bool]:
    """The bytes of an answer, and whether they are a folder's entries. Raises `TooLarge`."""
    answer = await services.files.ask(owner.tenant, owner.user, id, "GET", path, query=query, headers={})
    try:
        body = b""
        async for piece in answer.pieces:
            body += piece
            if len(body) > largest:
                raise TooLarge(f"the file is larger than {largest} bytes", hint="read it by the native API")
        return body, answer.headers.get("x-entry-kind") == "folder"
    finally:
        await answer.close()
