"""Servers that run beside this one, on the loopback address of the same machine: `/api/ports/{port}/...` leads there.

For links of an orchestrator to a port inside of a runtime. The key opens this door and does not go through it: what
listens there is the agent's, and gets neither keys nor cookies. The agent server's own port is not reached so.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from runtime.api.dependencies import KEY_HEADER, StateDependency, require_session_key, runtime_state
from runtime.api.paths import Below  # noqa: F401 - what {path:below} means
from runtime.state import RuntimeState

if TYPE_CHECKING:
    import httpx

router = APIRouter(prefix="/ports", tags=["Ports"])

Port = Annotated[int, Path(ge=1, le=65535)]
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
_NOT_FOR_PORTS = _HOP_BY_HOP | {
    "host", "cookie", "authorization", "expect", "x-session-api-key", "x-generation", "x-fence", "origin", "referer",
}  # fmt: skip
_CONNECT_SECONDS = 5.0
_LOOPBACK = "127.0.0.1"
_CLOSE_REFUSED, _CLOSE_LATER = 1008, 1013


@router.api_route("/{port}", methods=_METHODS, include_in_schema=False, dependencies=[Depends(require_session_key)])
@router.api_route(
    "/{port}/{path:below}", methods=_METHODS, include_in_schema=False, dependencies=[Depends(require_session_key)]
)
async def forward(request: Request, state: StateDependency, port: Port) -> Response:
    """The request as it is, and its answer, in both directions as it comes."""
    import httpx  # most runtimes never get here

    if _is_own(state, port):
        raise HTTPException(403, "This port is the agent server's own")
    has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
    async with AsyncExitStack() as stack:
        transport = httpx.AsyncHTTPTransport(verify=_trusting_nobody())
        times = httpx.Timeout(None, connect=_CONNECT_SECONDS)
        client = httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False, timeout=times)
        http = await stack.enter_async_context(client)
        asked = httpx.Request(
            request.method,
            httpx.URL(scheme="http", host=_LOOPBACK, port=port, raw_path=_target(request.scope, port)),
            headers=[*_passed(request.headers.raw, _NOT_FOR_PORTS), (b"host", b"localhost:%d" % port)],
            content=_body(request) if has_body else None,
        )
        try:
            answer = await http.send(asked, stream=True)
        except httpx.ConnectError:
            raise HTTPException(502, f"Nothing listens on port {port}") from None
        except httpx.HTTPError as error:
            raise HTTPException(502, f"Port {port} did not answer in HTTP ({type(error).__name__})") from None
        stack.push_async_callback(answer.aclose)
        return _Forwarded(answer, stack.pop_all(), port)


@router.websocket("/{port}/{path:below}")
async def forward_socket(socket: WebSocket, port: int, state: Annotated[RuntimeState, Depends(runtime_state)]) -> None:
    """A WebSocket, frame by frame. The key comes in the header."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    keys = state.session_keys
    if not (keys.is_open or keys.accepts(socket.headers.get(KEY_HEADER))) or _is_own(state, port):
        await socket.close(_CLOSE_REFUSED)
        return
    try:
        inner = await connect(
            f"ws://{_LOOPBACK}:{port}{_target(socket.scope, port).decode('ascii')}",
            subprotocols=socket.scope.get("subprotocols") or None,
            compression=None,
            proxy=None,
            open_timeout=_CONNECT_SECONDS,
            ping_interval=None,
            max_size=None,
        )
    except (OSError, ValueError, TimeoutError, WebSocketException):
        await socket.close(_CLOSE_LATER)
        return
    async with inner:
        await socket.accept(subprotocol=inner.subprotocol)
        outward = asyncio.create_task(_outward(inner, socket))
        try:
            await _inward(socket, inner)
        finally:
            outward.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await outward


async def _inward(socket: WebSocket, inner: Any) -> None:
    from websockets.exceptions import ConnectionClosed

    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            await inner.send(text if text is not None else message["bytes"])
    except (WebSocketDisconnect, ConnectionClosed, RuntimeError):
        return


async def _outward(inner: Any, socket: WebSocket) -> None:
    from websockets.exceptions import ConnectionClosed

    with contextlib.suppress(ConnectionClosed):
        async for frame in inner:
            await (socket.send_text(frame) if isinstance(frame, str) else socket.send_bytes(frame))
    code = inner.close_code
    await socket.close(code if code in range(1000, 5000) and code not in (1005, 1006, 1015) else 1000)


class _Forwarded(Response):
    """An answer that came, passed on; its connection ends with it, or with the caller."""

    def __init__(self, answer: httpx.Response, stack: AsyncExitStack, port: int) -> None:
        super().__init__(status_code=answer.status_code)
        self.raw_headers = [
            (name.lower(), _relative(value, port) if name.lower() == b"location" else value)
            for name, value in _passed(answer.headers.raw, _HOP_BY_HOP)
        ]
        self._answer, self._stack = answer, stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        passing = asyncio.ensure_future(self._pass(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({passing, gone}, return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                passing.result()
        finally:
            for task in (passing, gone):
                task.cancel()
            await asyncio.gather(passing, gone, return_exceptions=True)
            await self._stack.aclose()

    async def _pass(self, send: Send) -> None:
        import httpx

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for piece in self._answer.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except httpx.HTTPError:
            return  # without the end of the body: the server closes the connection for that
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        if piece:
            yield piece


@cache
def _trusting_nobody() -> ssl.SSLContext:
    """What a client needs that will not speak TLS: making one that trusts somebody reads every certificate."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _target(scope: Scope, port: int) -> bytes:
    """What stands behind the port, as the caller wrote it."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    rest = raw.partition(b"?")[0].partition(b"/ports/%d" % port)[2] or b"/"
    query: bytes = scope.get("query_string", b"")
    return rest + (b"?" + query if query else b"")


def _passed(headers: Iterable[tuple[bytes, bytes]], dropped: frozenset[str]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.decode("latin-1").lower() not in dropped]


def _relative(location: bytes, port: int) -> bytes:
    """A redirect to the address that the server there was asked by, which nobody outside can reach, as a path."""
    for host in (b"localhost", b"127.0.0.1"):
        own = b"http://%b:%d/" % (host, port)
        if location.lower().startswith(own) and location[len(own) : len(own) + 1] != b"/":  # `//` is another host
            return location[len(own) - 1 :]
    return location


def _is_own(state: RuntimeState, port: int) -> bool:
    return port == state.settings.listen_port
