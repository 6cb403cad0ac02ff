"""What runtimes may ask of the orchestrator, on a listener of their own: nothing but telling what happened in them.

Served under `/runtimes/{runtime}` to the runtime whose inner key comes as `X-Session-API-Key`. The form is that of the
agent server's webhooks (docs/runtime.md). Everything here is sent by somebody hostile: sizes, times and shapes are
bounded, and an error says nothing.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchestrator.api import problems
from orchestrator.api.middleware import BodyLimit, RequestIds
from orchestrator.api.turnstile import SHIPPED, Rates, Turnstile, charge_events
from orchestrator.domain.errors import InvalidRequest, NestorError, NotFound, Unauthenticated
from orchestrator.domain.ids import RuntimeId, parse_uuid
from orchestrator.services.intake import Intake, Numbers

LARGEST_BATCH_BYTES = SHIPPED.largest
MOST_EVENTS = 2_000
_MOST_DIGITS = 15


def build(intake: Intake, rates: Rates = SHIPPED) -> Starlette:
    """The application of the runtime-facing listener."""

    async def events(request: Request) -> Response:
        conversation = await intake.authenticate(_runtime(request), request.headers.get("x-session-api-key", ""))
        if _id(request.path_params["conversation"]) != conversation.id:
            raise NotFound("that is not the conversation of this runtime")
        batch = _batch(await request.body())
        charge_events(request.scope, len(batch))
        await intake.events(conversation, batch, _numbers(request, "sequence"), _numbers(request, "gap"))
        return JSONResponse({"success": True})

    async def conversations(request: Request) -> Response:
        conversation = await intake.authenticate(_runtime(request), request.headers.get("x-session-api-key", ""))
        # What it says is read where it is needed, from the runtime's own API; only how long the log is counts here.
        await intake.changed(conversation, _length(request))
        return JSONResponse({"success": True})

    app = Starlette(
        routes=[
            Route("/runtimes/{runtime}/events/{conversation}", _guarded(events), methods=["POST"]),
            Route("/runtimes/{runtime}/conversations", _guarded(conversations), methods=["POST"]),
        ]
    )
    app.add_middleware(BodyLimit, limit_bytes=LARGEST_BATCH_BYTES)
    app.add_middleware(RequestIds)
    app.add_middleware(Turnstile, rates=rates)
    return app


def _guarded(serve: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Failures that have a name become problems; 413 is the body limit's own."""

    async def guarded(request: Request) -> Response:
        try:
            return await serve(request)
        except NestorError as error:
            return problems.of_error(request, error)
        except HTTPException as error:
            return problems.problem(request, error.status_code, "too_large", str(error.detail))
        except ClientDisconnect:  # it ended while it told something; its log has that still, and nobody is answered
            return Response(status_code=400)

    return guarded


def _runtime(request: Request) -> RuntimeId:
    try:
        return RuntimeId(parse_uuid(request.path_params["runtime"], "runtime"))
    except InvalidRequest:
        raise Unauthenticated("this is not the key of that runtime") from None


def _id(text: str) -> str:
    try:
        return parse_uuid(text, "conversation")
    except InvalidRequest:
        return ""


def _batch(body: bytes) -> list[dict[str, Any]]:
    """Raises `InvalidRequest`."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is not JSON") from None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found) or len(found) > MOST_EVENTS:
        raise InvalidRequest(f"the body is no array of at most {MOST_EVENTS} events")
    return found


def _numbers(request: Request, of: str) -> Numbers | None:
    """The numbers of the batch's stored events, or of a gap; None when it has none. Raises `InvalidRequest`."""
    first, last = (request.headers.get(f"x-nestor-{of}-{end}") for end in ("first", "last"))
    if first is None or last is None:
        return None
    if not (_is_number(first) and _is_number(last)):
        raise InvalidRequest(f"the {of} headers are not numbers")
    if not 1 <= int(first) <= int(last):
        raise InvalidRequest(f"the {of} headers are in no order")
    return Numbers(int(first), int(last))


def _length(request: Request) -> int | None:
    """How many events the runtime's log has, None where it does not say. Raises `InvalidRequest`."""
    text = request.headers.get("x-nestor-log-events")
    if text is None:
        return None
    if not _is_number(text):
        raise InvalidRequest("the length of the log is not a number")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
