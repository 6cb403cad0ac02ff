"""The front door: uvicorn's HTTP protocol, which also carries the bytes of runtimes.

uvicorn makes one of these per connection. The parsed head decides per request: a request for the API goes on to the
ASGI application as if this class were not there, any other becomes an `Exchange` or a `SocketOpening`. The parser is
strict and every head, also the API's, has to pass `read_head` and the limits, so that nobody can smuggle a request.

Depends on these internals of uvicorn 0.54, which `tests/integration/proxy` exercises: the parser callbacks, `cycle`,
`flow`, `parser`, `pipeline`, `connections`, `tasks`, `handle_websocket_upgrade`, `_unset_keepalive_if_required`.
"""

import asyncio
import enum
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from orchestrator.domain.ids import RuntimeId
from orchestrator.proxy import answers
from orchestrator.proxy.access import origin_allowed
from orchestrator.proxy.connection import ClientConnection
from orchestrator.proxy.context import FrontContext
from orchestrator.proxy.exchange import Exchange
from orchestrator.proxy.familiar import FamiliarHeads
from orchestrator.proxy.head import BadHead, Head, read_head
from orchestrator.proxy.target import Destination, Routing
from orchestrator.proxy.websocket import SocketOpening


class _Stop(Exception):
    """Raised inside a parser callback: this connection reads no further."""


class _Reading(enum.Enum):
    """What the next bytes of the client belong to."""

    NOTHING = enum.auto()
    HEAD = enum.auto()
    API_BODY = enum.auto()
    PROXY_BODY = enum.auto()


# Looking a member up in its class costs as much as all else that is done for a header.
_NOTHING, _HEAD, _API_BODY, _PROXY_BODY = _Reading


class FrontProtocol(ClientConnection):
    """One client connection. Use `front_protocol` to get a class that knows its context."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        fixed: RuntimeId | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = httptools.HttpRequestParser(self)  # uvicorn's own reads on after `Connection: close`
        self.fixed = fixed
        self._routing = Routing(self.context.domain, fixed)
        self._most_head_bytes, self._most_headers = self._limits.head_bytes, self._limits.header_count
        self._reading = _NOTHING
        self._refusal: answers.Refusal | None = None
        self._exchange: Exchange | None = None
        self._opening: SocketOpening | None = None
        self._socket: tuple[Head, Destination] | None = None
        self._declined: bytes | None = None  # a head that asks for an upgrade which is not on offer, without the asking
        self._serves_api = False  # the application had a request of this connection
        self._replaying = False  # the parser reads that head, which was dealt with already
        self._head_bytes = 0
        self._unread = (
            0  # bytes that the parser took and has told nothing of: it keeps an unfinished line without limit
        )
        self._raw = b""  # the segments in which the present head is
        self._at_border = False  # the message that begins next begins with these segments
        self._first = False  # the present head is the first that began in them
        self._familiar = FamiliarHeads()
        self._head_since = 0.0

    # The connection

    def connection_lost(self, exc: Exception | None) -> None:
        if self._exchange is not None:
            self._exchange.abandon()
            self._exchange = None
        if self._opening is not None:
            self._opening.abandon()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._posted == self._outbox.turn:
            self._outbox.flush()
        self._last_data = self.loop.time()
        if self._opening is not None:
            self._opening.feed(data)
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if self._reading is _NOTHING:
            if self._exchange is None and self._familiar.blocks and self._recognised(data):
                return
            self._at_border = True
        self._unread += len(data)
        self._raw = self._raw + data if self._reading is _HEAD else data
        try:
            self._feed(data)
        except httptools.HttpParserError:
            if not self._deaf:  # else the answer was given before the end of the request, and this is its rest
                self._stop_reading()
        else:
            if self._unread > self._limits.target_bytes + self._limits.head_bytes and not self._deaf:
                self._refusal = answers.HEAD_TOO_LARGE
                self._stop_reading()
        if self._reading is not _HEAD:
            self._raw = b""

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._exchange is not None:
            self._exchange.hold_answer(paused=True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._exchange is not None:
            self._exchange.hold_answer(paused=False)

    def shutdown(self) -> None:
        """Called by the server when it stops: what runs may finish, the rest is closed."""
        self.write_posted()
        if self._exchange is not None:
            self._exchange.shut_down()
        elif self._opening is not None:
            self._opening.shut_down()
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        """Called by uvicorn behind each answer of the application. Not it but `hang_up` closes behind the last one when
        nothing more is read: it would close over bytes that still come, and the answer be lost."""
        if self._deaf and not self.pipeline:
            self.server_state.total_requests += 1
            self.hang_up()
        else:
            super().on_response_complete()

    # The parser's callbacks

    def on_message_begin(self) -> None:
        if self._replaying:
            return
        if self._exchange is not None or self._deaf:
            raise _Stop  # pipelined: the one under way is finished, then the connection is closed
        self._reading = _HEAD
        self._first, self._at_border = self._at_border, False
        self._head_since = self.loop.time()
        self._head_bytes = 0
        self.url = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        if self._replaying:
            return
        self.url += url
        if len(self.url) > self._limits.target_bytes:
            self._refusal = answers.TARGET_TOO_LONG
            raise _Stop

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._replaying:
            return
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._most_head_bytes or len(self.headers) >= self._most_headers:
            self._refusal = answers.HEAD_TOO_LARGE
            raise _Stop
        if self._reading is _HEAD:  # else a trailer, which could change what was already decided on
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self._replaying:
            return
        self._head_since = 0.0
        self._unread = 0
        method = self.parser.get_method()
        line, raw = b"%b %b " % (method, self.url), self._raw
        # The parser speaks RTSP and ICE as well, and does not tell. What is pipelined may have the same line in HTTP.
        if line + b"HTTP/1." not in raw or line + b"RTSP/" in raw or line + b"ICE/" in raw:
            raise _Stop
        try:
            head = read_head(method, self.url, self.parser.get_http_version(), self.headers)
        except BadHead as bad:
            self._refusal = answers.bad_request(str(bad))
            raise _Stop from None
        if not head.websocket and self.parser.should_upgrade():
            self._declined = head.framing()
        destination = self._routing.destination(head.target, head.host, head)
        if destination is None:
            self._to_application(head)
            return
        if self._application_runs:
            raise _Stop  # pipelined behind a request of the API
        self._reading = _PROXY_BODY
        if head.websocket:
            self._socket = head, destination
            return
        if self._first and self._declined is None:
            self._familiar.learn(self._raw, head)
        self._exchange = Exchange(self, head, destination)
        self._exchange.begin()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        if self._exchange is not None:
            self._exchange.on_request_body(body)
        elif self._reading is _API_BODY:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._declined is not None:
            return  # the parser believes that what follows is another protocol: `_upgrade` tells it otherwise
        self._unread = 0
        reading, self._reading = self._reading, _NOTHING
        if self._exchange is not None:
            self._exchange.on_request_end()
        elif reading is _API_BODY:
            super().on_message_complete()

    # For exchanges and sockets

    def exchange_over(self, *, keep_alive: bool) -> None:
        """The answer is written. The connection stays open if both sides can tell where the next message begins."""
        self._exchange = None
        self.server_state.total_requests += 1
        self._last_data = self.loop.time()
        if self._deaf or not keep_alive:
            self.hang_up()
        elif self.flow.read_paused:  # for a body that nobody took: the next request would never be read
            self.flow.resume_reading()

    def detach(self) -> set[object]:
        self._opening = None
        return super().detach()

    # Details

    @property
    def _application_runs(self) -> bool:
        cycle = cast(RequestResponseCycle | None, self.cycle)
        return cycle is not None and not cycle.response_complete

    def _to_application(self, head: Head) -> None:
        """Let uvicorn believe that it has read this head itself."""
        allowed, local = self._limits.allowed_origins, self._limits.local_origins
        if head.websocket and not origin_allowed(head.origin, head.host, allowed, local=local):
            self._refusal = answers.SOCKET_REFUSED
            raise _Stop
        self._reading = _API_BODY
        self._serves_api = True
        super().on_message_begin()
        self.url = head.target
        self.headers.extend(head.headers)
        self.expect_100_continue = head.expects
        super().on_headers_complete()

    def _recognised(self, data: bytes) -> bool:
        """Whether `data` is one whole request for a runtime with lines that were read before; then it is on its way.
        The parser waits at the end of a message meanwhile and does not miss it."""
        if self._serves_api and self._application_runs:
            return False
        known = self._familiar.recognise(data)
        if known is None:
            return False
        head, body = known
        destination = self._routing.destination(head.target, head.host, head)
        if destination is None or len(head.target) > self._limits.target_bytes:
            return False
        exchange = self._exchange = Exchange(self, head, destination)
        exchange.begin()
        if body:
            exchange.on_request_body(body)
            exchange.on_request_end()
        return True

    def _feed(self, data: bytes) -> None:
        """Give `data` to the parser. Raises HttpParserError."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])

    def _upgrade(self, rest: bytes) -> None:
        """The head asked for another protocol; `rest` is what came after it."""
        if self._declined is not None:
            self._decline(rest)
        elif self._socket is not None:
            (head, destination), self._socket = self._socket, None
            self._opening = SocketOpening(self, head, destination, rest)
            self._opening.begin()
        elif self._exchange is None and self._should_upgrade():
            self._disarm()
            transport = self.transport
            self.handle_websocket_upgrade()
            self.count_with(transport.get_protocol())
            if rest and not transport.is_closing():
                cast(asyncio.Protocol, transport.get_protocol()).data_received(rest)
        else:
            self._stop_reading()

    def _decline(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 (some clients offer h2c with each first request, bodies included). The parser cannot, so
        another one is told how the body is framed."""
        head, self._declined = self._declined or b"", None
        self.parser = httptools.HttpRequestParser(self)
        self._replaying = True
        try:
            self.parser.feed_data(head)
        finally:
            self._replaying = False
        self._feed(rest)

    def _stop_reading(self) -> None:
        """Nothing that follows can be understood. What is under way is finished if its request was complete."""
        self._deaf = True
        refusal = self._refusal or answers.bad_request("it is not well-formed HTTP")
        if self._exchange is not None:
            if self._reading is _PROXY_BODY:
                self._exchange.refuse(refusal)
            else:
                self._exchange.keep_alive = False
                self.flow.pause_reading()
        elif not self._application_runs:
            self.refuse(refusal)
        elif self._reading is _API_BODY:
            self._break_application(refusal)
        # else `on_response_complete` closes

    def _break_application(self, refusal: answers.Refusal) -> None:
        """The body that the application waits for will never be complete: tell it, or it waits for ever."""
        self.cycle.disconnected = True
        self.cycle.waiting_for_100_continue = False  # it would be written behind the end of the connection
        self.cycle.message_event.set()
        if self.cycle.response_started or self.pipeline:
            self.transport.close()
        else:
            self.refuse(refusal)

    def _check(self) -> None:
        """One coarse timer per connection for everything that can take too long; none per request."""
        self._arm()
        self.write_posted()
        now = self.loop.time()
        limits = self._limits
        in_body = self._reading in (_API_BODY, _PROXY_BODY) and self._opening is None
        slow_head = self._head_since and now - self._head_since > limits.head_seconds
        slow_body = in_body and not self.flow.read_paused and now - self._last_data > limits.body_idle_seconds
        if slow_head or slow_body:
            self._refusal = answers.TOO_SLOW
            self._stop_reading()
        elif self._exchange is not None:
            since = self._exchange.stale_since()
            if since is not None and now - max(since, self._last_data) > limits.answer_idle_seconds:
                self._exchange.refuse(answers.TOO_LATE)
        elif self._opening is None and not self._application_runs and now - self._last_data > limits.idle_seconds:
            self.transport.close()


def front_protocol(context: FrontContext) -> type[FrontProtocol]:
    """The class to give to `uvicorn.Config(http=...)`."""
    return type("ContextualFrontProtocol", (FrontProtocol,), {"context": context})
