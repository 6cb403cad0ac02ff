"""Failures as HTTP: the one table, and RFC 9457 problem documents that older clients can read as well.

`detail` is always a string; `error` and `message` repeat it for scripts of the older generations. A 5xx
says nothing of the failure but its request id: the log has the rest.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from orchestrator.domain import errors

log = structlog.get_logger(__name__)
_EVERY = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

#: The first class that matches, from the special to the general.
STATUS: tuple[tuple[type[errors.NestorError], int], ...] = (
    (errors.InvalidRequest, 422),
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.Gone, 410),
    (errors.NotFound, 404),
    (errors.Elapsed, 408),
    (errors.Conflict, 409),
    (errors.PreconditionFailed, 412),
    (errors.TooLarge, 413),
    (errors.UnsupportedType, 415),
    (errors.LimitReached, 429),
    (errors.NotOffered, 501),
    (errors.RuntimeUnreachable, 502),
    (errors.TransientError, 503),
    (errors.Unreadable, 503),
    (errors.Sealed, 503),
    (errors.Undecryptable, 503),
    (errors.CallerError, 400),
)
_WINDOWS = {"starts": ";w=60", "calls": ";w=1"}  #: of limits that are rates, as `RateLimit-Policy` has them
_NATIVE = "/api/v2/"
_SHOWN_DETAILS = frozenset({"limit", "current", "rule", "resets_at", "conversation", "operation", "cause"})


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    hint: str | None = None,
    retry_after: float | None = None,
    **extensions: Any,
) -> Response:
    """One problem document."""
    body: dict[str, Any] = {
        "type": f"urn:nestor:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "error": detail,
        "message": detail,
        "code": code,
        "request_id": request.scope.get("state", {}).get("request_id"),
        "retryable": retry_after is not None or status in (429, 503),
    }
    if hint:
        body["hint"] = hint
    if body["request_id"] and request.scope.get("path", "").startswith(_NATIVE):  # older surfaces have their own shape
        body["instance"] = f"urn:nestor:request:{body['request_id']}"
        if retry_after is not None:
            body["retry_after"] = max(1, round(retry_after))
    body.update({name: value for name, value in extensions.items() if value is not None})
    headers = {"cache-control": "no-store"}
    if retry_after is not None:
        headers["retry-after"] = str(max(1, round(retry_after)))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    headers.update(_rate_limit(extensions, retry_after))
    return Response(json.dumps(body), status, headers, media_type="application/problem+json")


def _rate_limit(details: Mapping[str, Any], retry_after: float | None) -> dict[str, str]:
    """The headers of a limit that is reached: the draft's `RateLimit`, and the older form."""
    rule, limit = details.get("rule"), details.get("limit")
    if rule is None or limit is None or "resets_at" in details:  # a budget is no rate, and may be of dollars
        return {}
    seconds, window = max(1, round(retry_after or 1)), _WINDOWS.get(rule.rpartition(".")[2], "")
    return {
        "ratelimit-policy": f'"{rule}";q={limit}{window}',
        "ratelimit": f'"{rule}";r=0;t={seconds}',
        "x-ratelimit-limit": str(limit),
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": str(seconds),
    }


def install(app: FastAPI) -> None:
    """Make every failure of `app` a problem document."""

    @app.exception_handler(errors.NestorError)
    async def named(request: Request, exc: errors.NestorError) -> Response:
        return of_error(request, exc)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, exc: RequestValidationError) -> Response:
        fields = [
            {"field": ".".join(str(part) for part in item["loc"][1:]), "message": item["msg"], "type": item["type"]}
            for item in exc.errors()
        ]
        first = fields[0] if fields else {"field": "", "message": "the request is not valid", "type": ""}
        detail = f"{first['field']}: {first['message']}" if first["field"] else first["message"]
        hint = "remove the unknown field" if first["type"] == "extra_forbidden" else None
        if first["type"] == "json_invalid" and request.url.path.startswith(_NATIVE):
            return problem(request, 400, "bad_request", "the body is not JSON", hint=f"look at {first['field']}")
        field = first["field"] if first["field"] and request.url.path.startswith(_NATIVE) else None
        return problem(request, 422, "invalid_request", detail, hint=hint, field=field, errors=fields)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, exc: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(exc.status_code, "bad_request")
        answer = problem(request, exc.status_code, code, str(exc.detail))
        if exc.status_code == 405:
            answer.headers["allow"] = ", ".join(sorted(_methods(request)))
        return answer

    @app.exception_handler(Exception)
    async def unknown(request: Request, exc: Exception) -> Response:
        log.error("request.failed", path=request.url.path, exc_info=exc)
        return problem(request, 500, "internal", "something failed here; the log has it under this request id")


def _methods(request: Request) -> set[str]:
    """What can be done at this path: each route knows its own methods alone."""
    return {
        method
        for method in _EVERY
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    }


def of_error(request: Request, exc: errors.NestorError) -> Response:
    """The document of a failure that has a name."""
    if isinstance(exc, errors.Gone) and not request.scope.get("path", "").startswith(_NATIVE):
        exc = errors.NotFound(exc.message)  # their clients know no way back
    status = next((number for kind, number in STATUS if isinstance(exc, kind)), 500)
    if status == 500:
        log.error("request.failed", path=request.url.path, code=exc.code, problem=exc.message)
        return problem(request, 500, "internal", "something failed here; the log has it under this request id")
    retry_after = exc.retry_after if isinstance(exc, errors.TransientError | errors.LimitReached) else None
    field = exc.field if isinstance(exc, errors.InvalidRequest) else None
    details: dict[str, Any] = {name: value for name, value in exc.details.items() if name in _SHOWN_DETAILS}
    if field is not None and request.scope.get("path", "").startswith(_NATIVE):
        details["errors"] = [{"field": field, "message": exc.message, "type": exc.code}]
    return problem(
        request, status, exc.code, exc.message, hint=exc.hint, retry_after=retry_after, field=field, **details
    )
