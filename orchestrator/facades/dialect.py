"""Which generation of clients a request on a shared path comes from (DESIGN.md 3, "Dialects on shared paths").

`POST /api/conversations` is told by its body: any of four keys makes it the agent server's; `GET` of it by `ids`, which
only the agent server has and always needs. All other shared paths are told by the credential: a key in
`X-Session-API-Key` alone is the agent server's way, every other header the V0 way.

`Dialects` writes what it found into the request; `AgentServerRoute` is a route that exists for that dialect only. The
routes of V0 come after those, and take whatever is left.
"""

import enum
import json
import re
from typing import Any

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.problems import problem

AGENT_SERVER_KEYS = frozenset({"agent", "agent_settings", "agent_profile_id", "workspace"})
SHARED = "/api/conversations"
_KEY = "nestor.dialect"
_IDS = re.compile(rb"(^|&)ids=")


class Dialect(enum.StrEnum):
    AGENT_SERVER = "agent-server"
    V0 = "v0"


def of_headers(headers: Headers) -> Dialect:
    """By the credential that decides who the caller is."""
    if headers.get("authorization", "").lower().startswith("bearer ") or headers.get("x-access-token"):
        return Dialect.V0
    return Dialect.AGENT_SERVER if headers.get("x-session-api-key") else Dialect.V0


def of_body(body: bytes) -> Dialect:
    """By the keys of a start body. What is no JSON object is refused by V0, in words."""
    try:
        sent: Any = json.loads(body)
    except (ValueError, RecursionError):
        return Dialect.V0
    return Dialect.AGENT_SERVER if isinstance(sent, dict) and AGENT_SERVER_KEYS & sent.keys() else Dialect.V0


def dialect_of(scope: Scope) -> Dialect:
    """What `Dialects` found."""
    found: Dialect = scope.get(_KEY, Dialect.V0)
    return found


class AgentServerRoute(APIRoute):
    """A route that only requests of the agent server's dialect meet."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and dialect_of(scope) is not Dialect.AGENT_SERVER:
            return Match.NONE, {}
        return super().matches(scope)


class Dialects:
    """Pure ASGI. Only the one path that is told by its body has its body read here; it goes on as it came."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] != "POST" or scope["path"] != SHARED:
            listed = scope["method"] == "GET" and scope["path"] == SHARED and not _IDS.search(scope["query_string"])
            scope[_KEY] = Dialect.V0 if listed else of_headers(Headers(scope=scope))
            await self._app(scope, receive, send)
            return
        messages: list[Message] = []
        try:
            while not messages or messages[-1].get("more_body"):
                messages.append(await receive())
        except HTTPException as exc:  # the body was too large while it was read
            refused = problem(Request(scope), exc.status_code, "too_large", str(exc.detail))
            await refused(scope, receive, send)
            return
        scope[_KEY] = of_body(b"".join(message.get("body", b"") for message in messages))

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, again, send)
