"""Opening a WebSocket to a runtime, in any of the three ways in which a client says its session key.

With a key in the header or the query the runtime answers the handshake itself. Without one we answer it, read the first
frame, check the key in it and swallow the frame; only then is the runtime connected, with the inner key in a header. So
a socket without a right key never touches a runtime and never wakes one.
"""

import asyncio
import base64
import hashlib
import json
import os

import structlog

from orchestrator.domain.errors import RuntimeUnreachable, TransientError
from orchestrator.proxy import answers, frames
from orchestrator.proxy.access import opens, origin_allowed
from orchestrator.proxy.admission import Refused, look_up, wake
from orchestrator.proxy.familiar import FamiliarAnswer
from orchestrator.proxy.frames import BadFrame, close_frame, read_frame, server_frame
from orchestrator.proxy.front import SocketFront
from orchestrator.proxy.head import Head
from orchestrator.proxy.headers import Answer, request_lines
from orchestrator.proxy.links import reach_by_link
from orchestrator.proxy.pool import Busy
from orchestrator.proxy.route import Route, Unavailable
from orchestrator.proxy.target import Destination, leads_to_init, without_session_key
from orchestrator.proxy.tunnel import Tunnel
from orchestrator.proxy.upstream import Data, UpstreamConnection

log = structlog.get_logger(__name__)

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_UPGRADE = [b"connection: Upgrade", b"upgrade: websocket"]
_NEGOTIATED = (b"sec-websocket-key:", b"sec-websocket-extensions:", b"sec-websocket-protocol:")


class _Closed(Exception):
    """Close the accepted socket with this code."""

    def __init__(self, code: int, reason: str = "") -> None:
        self.code = code
        self.reason = reason


class _Handshake:
    """Waits for a runtime's answer to a handshake."""

    bodiless = True

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[Answer, bytes]] = asyncio.get_running_loop().create_future()

    def on_interim(self, status: int) -> None:
        """Nothing that a client of a socket could use."""

    def on_switch(self, answer: Answer, early: bytes) -> None:
        self._settle(answer, early)

    def on_answer(self, answer: Answer, *, until_close: bool) -> None:
        self._settle(answer, b"")

    def on_whole_answer(self, answer: FamiliarAnswer, body: bytes) -> bool:
        self._settle(answer.answer, b"")
        return True

    def on_answer_body(self, data: Data) -> None:
        """The body of a refusal stays here: the client gets one of ours."""

    def on_long_body(self, data: memoryview) -> bool:
        return True

    def on_answer_end(self) -> None:
        """The connection is closed by whoever waits."""

    def on_pause_in_answer(self) -> None:
        """The head comes whole."""

    def on_lost(self, *, garbled: bool) -> None:
        self.revoke()

    def on_drain(self, *, paused: bool) -> None:
        """A handshake is small."""

    def revoke(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(RuntimeUnreachable("the runtime did not answer the handshake"))

    def _settle(self, answer: Answer, early: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result((answer, early))


class SocketOpening:
    """From the handshake to the tunnel. The front feeds it what the client sends meanwhile."""

    def __init__(self, front: SocketFront, head: Head, destination: Destination, early: bytes) -> None:
        self._front = front
        self._context = front.context
        self._head = head
        self._destination = destination
        self._buffer = early
        self._arrived = asyncio.Event()
        self._accepted = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = self._front.own(self._run())

    def feed(self, data: bytes) -> None:
        """Bytes of the client. What nobody asked for yet is bounded by the pause in reading."""
        self._buffer += data
        self._arrived.set()
        if len(self._buffer) > self._context.limits.first_frame_bytes:
            self._front.hold_request(True)

    def abandon(self) -> None:
        """The client is gone."""
        if self._task is not None:
            self._task.cancel()

    def shut_down(self) -> None:
        """The server is stopping."""
        self.abandon()
        self._end(frames.RESTART, "The server restarts", answers.unavailable("This server is stopping. Try again.", 1))

    async def _run(self) -> None:
        """The edge of the request: every failure is told in the way that the state of the handshake allows."""
        try:
            await self._open()
        except Refused as refused:
            why = str(refused.refusal.body.get("detail", ""))
            self._end(frames.TRY_LATER, why, refused.refusal)
        except _Closed as closed:
            self._end(closed.code, closed.reason, answers.FORBIDDEN)
        except Busy as busy:
            self._end(frames.TRY_LATER, busy.message, busy.refusal)
        except RuntimeUnreachable:
            if self._destination.runtime is not None:
                log.warning("proxy.unreachable", runtime=self._destination.runtime)
                self._context.invalidate(self._destination.runtime)
            self._end(frames.TRY_LATER, "The runtime did not answer", answers.unreachable())
        except (TransientError, TimeoutError):
            later = answers.unavailable("The runtime could not be found in time. Try again.")
            self._end(frames.TRY_LATER, "The runtime cannot be reached now", later)
        except Exception as exc:  # noqa: BLE001 - the edge of a request: the client gets an end whatever broke
            log.error("proxy.failed", runtime=self._destination.runtime, error=type(exc).__name__)
            self._end(frames.RUNTIME_LOST, "The socket could not be opened", answers.FAILED)

    async def _open(self) -> None:
        if self._destination.link is not None:
            await self._open_by_link()
            return
        if leads_to_init(self._destination.path):
            raise Refused(answers.NOT_FOUND)
        limits = self._context.limits
        if not origin_allowed(self._head.origin, self._head.host, limits.allowed_origins, local=limits.local_origins):
            raise Refused(answers.SOCKET_REFUSED)
        self._check_handshake()
        target, keys = without_session_key(self._destination.target)
        if self._head.session_key is not None:
            keys.append(self._head.session_key)
        if self._destination.place is not None:  # whose it is, the first frame says
            await self._open_by_first_frame(None, target)
            return
        found = await self._find()
        if keys:
            await self._open_with_keys(found, target, keys)
        else:
            await self._open_by_first_frame(found, target)

    async def _open_by_link(self) -> None:
        """A browser adds nothing by itself to what the address says, so it does not matter whose page it is."""
        self._check_handshake()
        self._front.hold_request(True)
        route, target = await reach_by_link(self._context, self._destination, b"GET", self._front.address)
        await self._open_on(route, target)

    def _check_handshake(self) -> None:
        key = self._head.get(b"sec-websocket-key")
        if self._head.get(b"sec-websocket-version") != b"13" or key is None or len(key) != 24:
            raise Refused(answers.bad_request("this is not a handshake of WebSocket version 13"))

    async def _find(self) -> Route | Unavailable:
        """What is known of the runtime; raises `Refused` for one that is not there or cannot be woken."""
        route = self._context.known(self._destination.runtime) if self._destination.runtime is not None else None
        found = route or await look_up(self._context, self._destination.runtime, self._front.address)
        if isinstance(found, Unavailable) and found.session_key_hash is None:
            raise Refused(answers.unavailable(found.message, found.retry_after))
        return found

    async def _open_with_keys(self, found: Route | Unavailable, target: bytes, keys: list[bytes]) -> None:
        if not all(opens(key, found.session_key_hash or "") for key in keys):
            known = self._context.wrong_key(self._front.address)
            raise Refused(answers.FORBIDDEN if known else answers.TOO_MANY_KEYS)
        self._front.hold_request(True)
        await self._open_on(await wake(self._context, found, self._destination.runtime), target)

    async def _open_on(self, route: Route, target: bytes) -> None:
        lines = request_lines(self._head, target, route, with_key=True)
        connection, answer, early = await self._handshake(route, lines)
        if answer.status != 101:
            connection.discard()
            raise Refused(answers.socket_refused(answer.status))
        head = [answer.status_line, *answer.lines, *_UPGRADE]
        self._front.transport.write(b"\r\n".join(head) + b"\r\n\r\n")
        self._splice(route, connection, early)

    async def _found_by(self, key: bytes) -> Route | Unavailable:
        """What the holder of this key means. Raises `_Closed`."""
        self._destination = self._destination.opened_by(key, self._head)
        try:
            return await self._find()
        except Refused as refused:
            if refused.refusal.status in (401, 403):
                raise _Closed(frames.AUTHENTICATION_FAILED, "Authentication failed") from None
            if refused.refusal.status == 404:
                raise _Closed(frames.NOT_FOUND, "Conversation not found") from None
            raise

    async def _open_by_first_frame(self, found: Route | Unavailable | None, target: bytes) -> None:
        waiting, address = self._context.waiting_sockets, self._front.address
        if waiting[address] >= self._context.limits.unauthenticated_sockets:
            raise Refused(answers.unavailable("Too many sockets have not sent their key yet.", 5))
        waiting[address] += 1
        try:
            self._accept()
            key = await self._first_key()
        finally:
            waiting[address] -= 1
            if not waiting[address]:
                del waiting[address]
        if found is None:
            found = await self._found_by(key)
        if not opens(key, found.session_key_hash or ""):
            raise _Closed(frames.AUTHENTICATION_FAILED, "Authentication failed")
        self._front.hold_request(True)
        route = await wake(self._context, found, self._destination.runtime)
        own_key = base64.b64encode(os.urandom(16))
        # Extensions and subprotocols were already declined to the client, so the runtime must not choose any.
        lines = [
            line for line in request_lines(self._head, target, route, with_key=True) if not line.startswith(_NEGOTIATED)
        ]
        connection, answer, early = await self._handshake(route, [*lines, b"sec-websocket-key: " + own_key])
        if answer.status != 101 or answer.header(b"sec-websocket-accept") != _accept(own_key):
            connection.discard()
            if answer.status in (403, 404):
                raise _Closed(frames.NOT_FOUND, "Conversation not found")
            raise _Closed(frames.TRY_LATER, "The runtime refused the socket")
        self._splice(route, connection, early)

    def _accept(self) -> None:
        accept = _accept(self._head.get(b"sec-websocket-key") or b"")
        lines = [b"HTTP/1.1 101 Switching Protocols", *_UPGRADE, b"sec-websocket-accept: " + accept]
        self._front.transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        self._accepted = True

    async def _first_key(self) -> bytes:
        """The key of the first text frame. Raises `_Closed` for anything else, and when none comes in time."""
        failed = _Closed(frames.AUTHENTICATION_FAILED, "Authentication failed")
        try:
            async with asyncio.timeout(self._context.limits.first_frame_seconds):
                while True:
                    frame = await self._next_frame()
                    if frame.opcode == frames.PING:
                        self._front.transport.write(server_frame(frames.PONG, frame.payload))
                    elif frame.opcode == frames.CLOSE:
                        raise _Closed(1000)
                    elif frame.opcode != frames.PONG:
                        break
        except (TimeoutError, BadFrame):
            raise failed from None
        key = _key_of(frame)
        if key is None:
            raise failed
        return key

    async def _next_frame(self) -> frames.Frame:
        while True:
            found = read_frame(self._buffer, self._context.limits.first_frame_bytes)
            if found is not None:
                frame, self._buffer = found
                return frame
            self._front.hold_request(False)
            self._arrived.clear()
            await self._arrived.wait()

    async def _handshake(self, route: Route, lines: list[bytes]) -> tuple[UpstreamConnection, Answer, bytes]:
        """Ask the runtime for the socket, on a connection of its own. Raises `RuntimeUnreachable`."""
        self._context.touch(route)
        connection = await self._context.upstreams.connect(route)
        handshake = _Handshake()
        try:
            connection.ask(handshake, b"\r\n".join([*lines, *_UPGRADE]) + b"\r\n\r\n")
            async with asyncio.timeout(self._context.limits.resolve_seconds):
                answer, early = await handshake.answer
        except TimeoutError:
            connection.discard()
            raise RuntimeUnreachable("the runtime did not answer the handshake") from None
        except BaseException:
            connection.discard()
            raise
        if answer.status == 401:  # it refused the inner key: it is not the runtime that the route means
            connection.discard()
            raise RuntimeUnreachable("the runtime refused the inner key")
        if connection.transport.is_closing():  # its end has been told already and would not be told to a tunnel
            raise RuntimeUnreachable("the runtime hung up after the handshake")
        return connection, answer, early

    def _splice(self, route: Route, connection: UpstreamConnection, early: bytes) -> None:
        """Hand both transports to a tunnel."""
        connection.asker = None
        self._context.upstreams.forget(connection)
        self._front.hold_request(False)
        context, client = self._context, self._front.transport
        tunnel = Tunnel(context, route, client, connection.transport, self._front.detach(), self._front.address)
        tunnel.start(from_client=self._buffer, from_runtime=early)
        connection.resume_reading()

    def _end(self, code: int, reason: str, refusal: answers.Refusal) -> None:
        if not self._accepted:
            self._front.refuse(refusal)
        elif not self._front.transport.is_closing():
            self._front.transport.write(close_frame(code, reason))
            self._front.hang_up()


def _accept(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def _key_of(frame: frames.Frame) -> bytes | None:
    """The session key of an auth frame, None if it is not one."""
    if frame.opcode != frames.TEXT or not frame.final:
        return None
    try:
        message = json.loads(frame.payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("type") != "auth":
        return None
    key = message.get("session_api_key")
    return key.encode("utf-8", "surrogatepass") if isinstance(key, str) else None
