"""An open WebSocket: bytes both ways between a client and its runtime, untouched.

Two slim protocols take the place of those that read HTTP, so that an idle socket costs little. Frames are followed,
never changed: when the server stops or the runtime dies, the client gets a close frame between two frames of the
runtime, and if none of these ends in time the connection is cut.
"""

import asyncio

from orchestrator.proxy import frames
from orchestrator.proxy.context import FrontContext
from orchestrator.proxy.frames import FrameTracker, close_frame
from orchestrator.proxy.route import Route

_LINGER_SECONDS = 1.0  #: a client that still sends gets this long to read why its socket was closed
_LEAVE_SECONDS = 1.5  #: a client hears of the runtime's death within two
_Connections = set[object]  # uvicorn's set of what `shutdown` is called on


class _End(asyncio.Protocol):
    """What both ends have: a transport, and the other end to pass bytes and pauses to."""

    __slots__ = ("_other", "transport", "tunnel")

    def __init__(self, tunnel: "Tunnel", transport: asyncio.Transport) -> None:
        self.tunnel = tunnel
        self.transport = transport
        self._other: asyncio.Transport | None = None

    def join(self, other: asyncio.Transport) -> None:
        self._other = other

    def pause_writing(self) -> None:
        if self._other is not None and not self._other.is_closing():
            self._other.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and not self._other.is_closing():
            self._other.resume_reading()


class _ClientEnd(_End):
    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self.tunnel.from_client(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.tunnel.client_lost()

    def shutdown(self) -> None:
        """Called by the server when it stops: the client should come back, to another replica or the next one."""
        self.tunnel.leave(frames.RESTART, "The server restarts")


class _RuntimeEnd(_End):
    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self.tunnel.from_runtime(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.tunnel.runtime_lost()


class Tunnel:
    """Both ends of one socket. `start` takes the transports over from the HTTP protocols."""

    __slots__ = (
        "_address", "_client", "_connections", "_context", "_cutter", "_from_client", "_from_runtime", "_leaving",
        "_left", "_runtime", "_touch", "route",
    )  # fmt: skip

    def __init__(
        self,
        context: FrontContext,
        route: Route,
        client: asyncio.Transport,
        runtime: asyncio.Transport,
        connections: _Connections,
        address: str,
    ) -> None:
        """`address` is the client's, which its connection is counted for."""
        self.route = route
        self._context = context
        self._touch = context.touch
        self._connections = connections
        self._address = address
        self._client = _ClientEnd(self, client)
        self._runtime = _RuntimeEnd(self, runtime)
        self._client.join(runtime)
        self._runtime.join(client)
        self._from_client = FrameTracker()
        self._from_runtime = FrameTracker()
        self._leaving: bytes | None = None  # the close frame that waits for the end of a frame
        self._left = False  # our close frame is out
        self._cutter: asyncio.TimerHandle | None = None

    def start(self, *, from_client: bytes, from_runtime: bytes) -> None:
        """Begin with the bytes that came early on either side."""
        self._connections.add(self._client)
        self._context.upstreams.add(self)
        self._client.transport.set_protocol(self._client)
        self._runtime.transport.set_protocol(self._runtime)
        if from_runtime:
            self.from_runtime(from_runtime)
        if from_client:
            self.from_client(from_client)

    def from_client(self, data: bytes) -> None:
        tracker = self._from_client
        before = tracker.messages
        tracker.feed(data)
        if self._left:
            if tracker.closed:
                self._client.transport.close()  # it has answered our close frame
            return
        if tracker.messages != before:
            self._touch(self.route)  # pings alone keep nothing awake
        runtime = self._runtime.transport
        if not runtime.is_closing():
            runtime.write(data)

    def from_runtime(self, data: bytes) -> None:
        client = self._client.transport
        if self._left or client.is_closing():
            return
        end = self._from_runtime.feed(data)
        if self._leaving is not None and end >= 0:
            client.write(data[:end])
            self._say_goodbye(self._leaving)
        else:
            client.write(data)

    def leave(self, code: int, reason: str) -> None:
        """Close the client's side with `code`, now or at the end of the frame under way, or cut it off."""
        if self._leaving is not None or self._client.transport.is_closing():
            return
        self._leaving = close_frame(code, reason)
        self._cutter = asyncio.get_running_loop().call_later(_LEAVE_SECONDS, self._client.transport.abort)
        if self._from_runtime.between_frames and not self._from_runtime.closed:
            self._say_goodbye(self._leaving)

    def revoke(self) -> None:
        """The route is gone."""
        self.leave(frames.RESTART, "The runtime was replaced or stopped")

    def client_lost(self) -> None:
        if self._cutter is not None:
            self._cutter.cancel()
        self._connections.discard(self._client)
        self._context.leave(self._address)
        self._context.upstreams.forget(self)
        self._runtime.transport.close()

    def runtime_lost(self) -> None:
        """The runtime hung up: after a close frame that is the end, without one it died."""
        if self._from_runtime.closed:
            self._hang_up()
        elif self._from_runtime.between_frames:
            self.leave(frames.RUNTIME_LOST, "The runtime is gone")
        else:
            self._client.transport.abort()

    def _hang_up(self) -> None:
        """Everything was said. What the client still sends is read and dropped for a moment: closing over it would make
        the kernel reset the connection, and the close frame that says why could be lost with it."""
        client = self._client.transport
        if client.is_closing() or self._cutter is not None:
            return
        if not client.can_write_eof():
            client.close()
            return
        client.write_eof()
        client.resume_reading()
        self._cutter = asyncio.get_running_loop().call_later(_LINGER_SECONDS, client.close)

    def _say_goodbye(self, frame: bytes) -> None:
        self._left = True
        self._client.transport.write(frame)
        self._runtime.transport.close()
