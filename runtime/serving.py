"""How the application is put on a socket: uvicorn with what this runtime needs of it, and without its clock.

`python -m runtime` and the tests serve through here. uvicorn wakes ten times a second to look whether it should end;
this server sleeps until it is told. Its WebSocket protocol lends the application a `Wire`, so that one encoded frame
can be written to many sockets without a task and an encoding for each. Its HTTP protocol tells the application which
requests came on the same connection.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import TYPE_CHECKING, Any, Self, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runtime.connection import CONNECTION, Connection

if TYPE_CHECKING:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

#: how long open requests may still run after SIGTERM before they are cut
GRACE_SECONDS = 5
#: a message with images; uvicorn's own limit, said here because a client may rely on it
LARGEST_CLIENT_FRAME = 16 << 20
#: where the application finds its `Wire` in the scope's extensions
WIRE = "nestor.wire"


class Wire:
    """Writes whole, encoded frames to one accepted WebSocket, at once and in order with what ASGI sends on it."""

    def __init__(self, protocol: WebSocketsSansIOProtocol) -> None:
        self._protocol = protocol

    def write(self, frame: bytes) -> None:
        """Without effect on a socket that is closing. Never waits: look at `backlog`."""
        protocol = self._protocol
        if not (protocol.close_sent or protocol.disconnected or protocol.transport.is_closing()):
            protocol.transport.write(frame)

    @property
    def backlog(self) -> int:
        """Bytes that the client has not taken yet, beyond what the kernel holds."""
        return self._protocol.transport.get_write_buffer_size()

    async def drained(self) -> None:
        """Wait until the client has taken nearly everything, or is gone."""
        await self._protocol.writable.wait()

    def abort(self) -> None:
        """Drop the connection and what it still should have sent."""
        self._protocol.transport.abort()


class LateWireProtocol(asyncio.Protocol):
    """What is made is a `WireProtocol`, which is imported with the first WebSocket: many a runtime never sees one."""

    def __new__(cls, **given: Any) -> Self:
        from runtime.wire_protocol import WireProtocol

        made: Any = WireProtocol(**given)
        return cast(Self, made)


class ConnectionProtocol(HttpToolsProtocol):
    """uvicorn's protocol, one object a connection, with a `Connection` in the state of every request that it brings."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.app_state = {**self.app_state, CONNECTION: Connection()}


class Server(uvicorn.Server):
    """Ends when `should_exit` is set or a signal comes; until then it uses no time.

    `alone` says that the process is there for nothing else, so that what is in memory at the start stays.
    """

    def __init__(self, config: uvicorn.Config, *, alone: bool = False) -> None:
        self._alone = alone
        self._ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._should_exit = False
        super().__init__(config)

    @property
    def should_exit(self) -> bool:
        return self._should_exit

    @should_exit.setter
    def should_exit(self, wanted: bool) -> None:
        self._should_exit = wanted
        if wanted and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ending.set)  # from a signal handler as well

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        # No Date: it would need a clock that ticks.
        self.server_state.default_headers = list(self.config.encoded_headers)
        await super().startup(sockets)
        if self._alone:  # collections need not look at what was imported ever again
            gc.collect()
            gc.freeze()
            gc.enable()  # `python -m runtime` imported without

    async def main_loop(self) -> None:
        if not self.should_exit:
            await self._ending.wait()


def configuration(app: ASGIApp, *, grace: int = GRACE_SECONDS) -> uvicorn.Config:
    """uvicorn's settings for this runtime."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=ConnectionProtocol,
        ws=LateWireProtocol,
        ws_max_size=LARGEST_CLIENT_FRAME,
        # The same frame goes to every socket; compressed it would be another one for each.
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,  # its lines hold query strings, and those hold keys
        server_header=False,
        proxy_headers=False,  # whom to believe is a setting, see runtime.api.gate
        date_header=False,
        timeout_graceful_shutdown=grace,
    )
