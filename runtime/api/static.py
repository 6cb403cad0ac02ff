"""Static files of the operator's own, open to all; where there are any, the root leads to them (contract 1.4)."""

from __future__ import annotations

from pathlib import Path

import structlog
from fastapi import APIRouter, HTTPException
from fastapi.responses import Response
from starlette.applications import Starlette
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

log = structlog.get_logger()
router = APIRouter()

_NONE = "No static files are configured: set OH_STATIC_FILES_PATH"


class _Files(StaticFiles):
    """What no file can be called is not found."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if "\0" in path:
            raise HTTPException(404)
        return await super().get_response(path, scope)


def mount(app: Starlette, directory: Path | None) -> bool:
    """Serve the directory; False when there is none. One that is missing is told and does without."""
    if directory is None:
        return False
    if not directory.is_dir():
        log.warning("runtime.static_files_missing", path=str(directory))
        return False
    app.mount("/static", _Files(directory=directory, html=True), name="static")
    return True


def landing(directory: Path, root_path: str) -> str:
    """Where the root leads."""
    return f"{root_path}/static/{'index.html' if (directory / 'index.html').is_file() else ''}"


@router.get("/static", include_in_schema=False)
@router.get("/static/{path:path}", include_in_schema=False)
async def none(path: str = "") -> None:
    raise HTTPException(404, _NONE)
