"""Files of a conversation's working directory for a browser, and the cookie that lets it read them (contract 1.2, 7.4).

The cookie holds a ticket, not the key: it opens these reads and nothing else. What the agent made may be hostile, so it
is served without scripts and without an origin.
"""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Cookie, Depends, HTTPException, Request
from fastapi.responses import Response

from runtime.api.answers import NOT_FOUND, ConversationId, refusals
from runtime.api.dependencies import KEY_HEADER, StateDependency, require_session_key
from runtime.api.opened import OpenedResponse
from runtime.api.paths import Below  # noqa: F401 - what {file_path:below} means
from runtime.machine import account, files
from runtime.machine.files import BadPath, Missing

router = APIRouter(tags=["Workspace"])

COOKIE = "oh_workspace_session_key"
_YEARS = 315_360_000
_HEADERS = {"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@router.post("/auth/workspace-session", status_code=204, dependencies=[Depends(require_session_key)])
async def open_session(request: Request, state: StateDependency) -> Response:
    """Give the browser its ticket."""
    return _with_cookie(request, state, state.session_keys.ticket() or "open", _YEARS)


@router.delete("/auth/workspace-session", status_code=204, dependencies=[Depends(require_session_key)])
async def close_session(request: Request, state: StateDependency) -> Response:
    return _with_cookie(request, state, "", 0)


@router.get("/conversations/{conversation_id}/workspace")
@router.get("/conversations/{conversation_id}/workspace/{file_path:below}")
async def read(
    request: Request,
    state: StateDependency,
    conversation_id: ConversationId,
    file_path: str = "",
    ticket: Annotated[str | None, Cookie(alias=COOKIE)] = None,
) -> Response:
    """One file of the working directory; a folder's index.html."""
    keys = state.session_keys
    if not keys.accepts(request.headers.get(KEY_HEADER)) and not keys.accepts_ticket(ticket):
        raise HTTPException(401, "Unauthorized")
    with refusals():
        record = state.conversations.record(conversation_id)
    root = Path(record.workspace.working_dir)
    try:
        found = await account.in_thread(_inside, root, file_path)
    except Missing:
        raise HTTPException(404, NOT_FOUND) from None
    except BadPath as error:
        raise HTTPException(400, str(error)) from None
    kind = mimetypes.guess_type(found.path.name)[0] or "application/octet-stream"
    return OpenedResponse(found, media_type=kind, headers=_HEADERS)


def _inside(root: Path, relative: str) -> files.Opened:
    """The file, when it is below the root also after every link is followed. Raises Missing, BadPath."""
    if "\0" in relative:
        raise BadPath("Path must be valid")
    try:
        base = root.resolve()
        file = (base / relative).resolve()
    except (OSError, RuntimeError, ValueError):
        raise BadPath("Path cannot be resolved") from None
    if file != base and base not in file.parents:
        raise BadPath("Path is outside the workspace")
    if os.path.isdir(file):
        return _inside(root, f"{relative.rstrip('/')}/index.html" if relative else "index.html")
    found = files.opened(file)
    if base not in found.real.parents:  # a link that was put there after it was looked at
        found.close()
        raise BadPath("Path is outside the workspace")
    return found


def _with_cookie(request: Request, state: StateDependency, value: str, seconds: int) -> Response:
    path = f"{state.settings.root_path}/api/conversations"
    parts = [f"{COOKIE}={value}", "HttpOnly", f"Max-Age={seconds}", f"Path={path}"]
    outside = (state.settings.web_url or "", *state.settings.public_urls)
    secure = request.url.scheme == "https" or any(url.startswith("https://") for url in outside)
    if secure or request.url.hostname in _LOOPBACK:
        parts += ["SameSite=none", "Secure", "Partitioned"]
    else:
        parts += ["SameSite=lax"]
    return Response(status_code=204, headers={"Set-Cookie": "; ".join(parts)})
