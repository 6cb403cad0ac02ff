"""How errors look on the wire, in one place.

Handlers for what routes raise, and the edge that answers what nobody expected. A validation error never holds what was
sent; a 5xx never holds an exception's text: the text goes to the log, under the `error_id` of the answer.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.fence import StaleFence
from runtime.state import Dormant
from runtime.store.cipher import EncryptionUnavailable
from runtime.store.sealed import StoreUnreadable

log = structlog.get_logger()

_MOST_PROBLEMS = 100
DORMANT = "Runtime is dormant: waiting for POST /api/init"


def install(app: FastAPI) -> None:
    """Register every handler."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Dormant, _dormant)
    app.add_exception_handler(EncryptionUnavailable, _no_encryption)
    app.add_exception_handler(StoreUnreadable, _unreadable)


def without_input(problems: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Pydantic's list of problems in the contract's form, with nothing of the request but the names of fields. Of very
    many the first: else an answer would be many times as long as what was sent."""
    told = [
        {"type": item["type"], "loc": [_name(part) for part in item["loc"]], "msg": item["msg"]}
        for item in problems[:_MOST_PROBLEMS]
    ]
    if len(problems) > _MOST_PROBLEMS:
        told.append({"type": "more", "loc": [], "msg": f"and {len(problems) - _MOST_PROBLEMS} more problems"})
    return told


def server_error(error_id: str, *, status: int = 500, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer for a failure of ours, which the log has under this id."""
    return JSONResponse({"detail": "Internal Server Error", "error_id": error_id}, status, headers=headers)


def stale_fence(exc: StaleFence) -> JSONResponse:
    """The answer to a late holder. The number is for an orchestrator that lost its records, to go on above it."""
    return JSONResponse({"detail": "stale fence: another holder has come since", "fence": exc.highest}, 409)


class ErrorEdge:
    """Answers whatever nothing inside caught. Pure ASGI, so that the connection stays usable after a 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:  # the request's edge: a failure must end as an answer and a log line, not as a broken socket
            error_id = str(uuid.uuid4())
            log.error("request.failed", error_id=error_id, path=scope["path"], exc_info=True)
            if started:
                # Half an answer is out; only breaking off tells the client that it is not whole.
                raise
            await server_error(error_id)(scope, receive, send)


async def _http_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)  # noqa: S101 # registered for this class only
    if exc.status_code >= 500 and exc.status_code != 503:
        error_id = str(uuid.uuid4())
        log.error("request.failed", error_id=error_id, path=request.url.path, detail=exc.detail)
        return server_error(error_id, status=exc.status_code, headers=exc.headers)
    # 503 is always raised by us, with a fixed text that says what to wait for.
    return JSONResponse({"detail": exc.detail}, exc.status_code, headers=exc.headers)


async def _validation_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)  # noqa: S101 # registered for this class only
    return JSONResponse({"detail": without_input(exc.errors())}, 422)


async def _dormant(request: Request, exc: Exception) -> JSONResponse:
    return JSONResponse({"detail": DORMANT}, 503, headers={"Retry-After": "1"})


async def _no_encryption(request: Request, exc: Exception) -> JSONResponse:
    return JSONResponse({"detail": "Encryption not available: no OH_SECRET_KEY is configured"}, 503)


async def _unreadable(request: Request, exc: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(exc)}, 409)


def _name(part: object) -> int | str:
    # A field name can be anything that JSON admits; half a surrogate pair would break the answer.
    return part if isinstance(part, int) else str(part).encode(errors="replace").decode()
