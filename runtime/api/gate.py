"""What is decided before a route sees a request: generation, dormancy, key, size.

Pure ASGI and outside of the routes, so that nothing is read or parsed for a caller without a key. The routes check the
key again through `require_session_key`; WebSockets have the contract's own first-frame rule in `runtime.api.sockets`.
"""

import asyncio
import re

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.api.dependencies import KEY_HEADER, bearer_of
from runtime.api.errors import DORMANT, stale_fence
from runtime.api.paths import route_path
from runtime.fence import BadFence, StaleFence
from runtime.state import RuntimeState, Stage

GENERATION_HEADER = "X-Generation"
FENCE_HEADER = "X-Fence"
MEBIBYTE = 1024 * 1024
#: here a key may come as a bearer token
COMPATIBLE_PATHS = "/v1/"
#: configuration is small; whoever sends more made a mistake or is an attacker
CONFIGURATION_LIMIT = MEBIBYTE
CONFIGURATION_PATHS = (
    "/api/settings",
    "/api/secrets",
    "/api/add-git-providers",
    "/api/unset-provider-tokens",
    "/api/init",
)
#: a message may carry images
OTHER_LIMIT = 32 * MEBIBYTE
TOO_LARGE = "Request body is too large: the limit of this route is {limit} bytes"
#: passed on to the disk as it comes: the disk is the limit
UPLOAD_LIMIT = 1 << 40
#: reads of workspace files, which a browser may do with a ticket: the route looks at it
_TICKETED = re.compile(r"(?s)/api/conversations/[^/]+/workspace(/.*)?")
#: what listens there has limits of its own
PORTS = "/api/ports/"
#: a file of the workspace by its path in it, and a conversation whole
_FILE = re.compile(r"(?s)/api/(workspace/files/.*|conversations/[^/]+/(files/.*|copy/archive))")
#: WebSocket close code "try again later"
TRY_AGAIN_LATER = 1013


class Gate:
    """Refuses, in this order: another generation 409, dormant 503, no key 401, too large 413, a stale fence 409."""

    def __init__(self, app: ASGIApp, *, state: RuntimeState, routes: list[BaseRoute]) -> None:
        self._app = app
        self._state = state
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        # Known only after init, so it cannot be given to the server at its start.
        scope["root_path"] = self._state.settings.root_path or scope.get("root_path", "")
        if self._state.settings.trust_forwarded_headers:
            _believe_proxy(scope)
        refusal = self._refusal(scope) or await self._fenced_off(scope)
        if refusal is None:
            await self._app(scope, self._limited(scope, receive), send)
        elif scope["type"] == "http":
            await refusal(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": "Runtime is not available"})

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        path = route_path(scope, self._state)
        generation = self._state.settings.generation
        asked = headers.get(GENERATION_HEADER)
        if asked is not None and generation is not None and asked.strip() != str(generation):
            return JSONResponse({"detail": "generation mismatch: this runtime is of another generation"}, 409)
        if path.endswith("\n") and not _may_end_in_line_end(path):
            return JSONResponse({"detail": "Not Found"}, 404)  # a route would be met as if it ended before
        compatible = path.startswith(COMPATIBLE_PATHS)
        guarded = compatible or (path.startswith("/api/") and path != "/api/init")
        if self._state.stage is not Stage.READY and (guarded or scope["type"] == "websocket"):
            return JSONResponse({"detail": DORMANT}, 503, headers={"Retry-After": "1"})
        if scope["type"] == "websocket":
            return None
        keyed = guarded and _TICKETED.fullmatch(path) is None
        if keyed and not self._has_key(headers, bearer=compatible) and self._is_route(scope):
            return JSONResponse({"detail": "Unauthorized"}, 401)
        return self._size_refusal(headers, _limit(path))

    def _has_key(self, headers: Headers, *, bearer: bool) -> bool:
        keys = self._state.session_keys
        return keys.accepts(headers.get(KEY_HEADER)) or (
            bearer and keys.accepts(bearer_of(headers.get("authorization")))
        )

    async def _fenced_off(self, scope: Scope) -> JSONResponse | None:
        """Why a request with a fence is not served; most carry none. Without a key nobody's fence counts."""
        headers = Headers(scope=scope)
        given = headers.get(FENCE_HEADER)
        if given is None or self._state.stage is not Stage.READY:
            return None
        if scope["type"] != "http" or not self._state.session_keys.accepts(headers.get(KEY_HEADER)):
            return None
        fence = self._state.fence
        try:
            if not fence.is_known(given):
                await asyncio.to_thread(fence.admit, given)
        except BadFence:
            return JSONResponse({"detail": f"{FENCE_HEADER} must be a number"}, 400)
        except StaleFence as exc:
            return stale_fence(exc)
        return None

    def _is_route(self, scope: Scope) -> bool:
        # Unknown paths are 404 without a key, as the contract has it, so a missing key is only told on real ones.
        return any(route.matches(scope)[0] is not Match.NONE for route in self._routes)

    @staticmethod
    def _size_refusal(headers: Headers, limit: int) -> JSONResponse | None:
        announced = headers.get("content-length", "")
        if not (announced.isascii() and announced.isdigit()) or int(announced) <= limit:
            return None
        # The body is not read, so the connection cannot carry another request.
        return JSONResponse({"detail": TOO_LARGE.format(limit=limit)}, 413, headers={"Connection": "close"})

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        if scope["type"] != "http":
            return receive
        limit = _limit(route_path(scope, self._state))
        received = 0

        async def receiving() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # FastAPI lets an HTTPException through while it reads the body.
                raise HTTPException(413, TOO_LARGE.format(limit=limit), headers={"Connection": "close"})
            return message

        return receiving


def _believe_proxy(scope: Scope) -> None:
    """The scheme is what the client used outside."""
    outside = Headers(scope=scope).get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    if outside in {"http", "https"}:
        scope["scheme"] = outside if scope["type"] == "http" else outside.replace("http", "ws")


def _may_end_in_line_end(path: str) -> bool:
    return any(shape.fullmatch(path) for shape in (_TICKETED, _FILE)) or path.startswith(PORTS)


def _limit(path: str) -> int:
    if path.endswith("/file/upload") or _FILE.fullmatch(path) or path.startswith(PORTS):
        return UPLOAD_LIMIT
    return CONFIGURATION_LIMIT if path.startswith(CONFIGURATION_PATHS) else OTHER_LIMIT
