"""A listener of its own for one runtime: the bare origin that the public SDK clients insist on (outer-api.md 0.1).

Connections belong to the same uvicorn server as the main port, so its shutdown covers them. Ports exist on one replica
only: this is for embedded mode, tests and single machines.
"""

import asyncio
import socket

import uvicorn

from orchestrator.domain.ids import RuntimeId
from orchestrator.proxy.context import FrontContext
from orchestrator.proxy.protocol import FrontProtocol, front_protocol


class PortListener:
    """One open port. Listens from the moment it exists; accepts as soon as the loop gets to it."""

    def __init__(
        self, server: uvicorn.Server, protocol: type[FrontProtocol], runtime: RuntimeId, bound: socket.socket
    ) -> None:
        self.runtime = runtime
        self.port: int = bound.getsockname()[1]
        self._server = server
        self._protocol = protocol
        self._socket = bound
        self._accepting: asyncio.AbstractServer | None = None
        self._start = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        """Stop listening; requests under way finish, idle connections and sockets are closed. May be called twice."""
        self._start.cancel()
        self._socket.close()
        if self._accepting is not None:
            self._accepting.close()
            if self._accepting in self._server.servers:
                self._server.servers.remove(self._accepting)
            self._accepting = None
        for connection in list(self._server.server_state.connections):
            if isinstance(connection, FrontProtocol) and connection.fixed == self.runtime:
                connection.shutdown()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        self._accepting = await loop.create_server(self._connection, sock=self._socket, ssl=self._server.config.ssl)
        self._server.servers.append(self._accepting)

    def _connection(self) -> FrontProtocol:
        return self._protocol(
            config=self._server.config,
            server_state=self._server.server_state,
            app_state=self._server.lifespan.state,
            fixed=self.runtime,
        )


def listen_for_runtime(
    server: uvicorn.Server, context: FrontContext, runtime: RuntimeId, host: str, port: int = 0
) -> PortListener:
    """Open `port` of `host` (0: a free one) for `runtime`, once the server has started. May raise OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.create_server((host, port), family=family, backlog=server.config.backlog)
    bound.setblocking(False)
    return PortListener(server, front_protocol(context), runtime, bound)
