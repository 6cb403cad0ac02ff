"""What happens to every request of the API before a route sees it: an id and a trace, a path that means one thing, and
a limit for its body. Pure ASGI."""

import re
import uuid

from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.problems import problem
from orchestrator.domain import tracing

MAXIMUM_BODY_BYTES = 2 * 1024 * 1024
#: whose bodies are passed on as they come, and kept nowhere here
STREAMED_PATHS = re.compile(r"/api/v2/conversations/[^/]+/files(/.*)?", re.DOTALL)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestIds:
    """Every answer carries `X-Request-ID`: the caller's own if it is harmless, otherwise a fresh one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        sent = headers.get("x-request-id", "")
        request_id = sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        trace = tracing.read(headers.getlist("traceparent"), headers.getlist("tracestate"))
        with tracing.tracing(trace or tracing.begun(request_id)):
            await self._app(scope, receive, send_with_id)


class Below(Convertor[str]):
    """`{name:below}` in a route: all that follows, line ends among it, which names of files may hold."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("below", Below())


class ExactPaths:
    """A path that ends in a line end is a 404. The framework's routes are met by it as if it ended before: what is
    decided by the path in front of them, the audit log among it, would see another one than they."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path.endswith("\n") and not STREAMED_PATHS.fullmatch(path):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 4004})
            else:
                await problem(Request(scope), 404, "not_found", "Not Found")(scope, receive, send)
            return
        await self._app(scope, receive, send)


class BodyLimit:
    """A body beyond the limit is refused with 413: by its length where that is given, else while it is read."""

    def __init__(self, app: ASGIApp, limit_bytes: int = MAXIMUM_BODY_BYTES) -> None:
        self._app = app
        self._limit = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or STREAMED_PATHS.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdigit() and int(length) > self._limit:
            refusal = problem(Request(scope), 413, "too_large", f"the body is larger than {self._limit} bytes")
            refusal.headers["connection"] = "close"
            await refusal(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise HTTPException(413, f"the body is larger than {self._limit} bytes")
            return message

        await self._app(scope, counted, send)
