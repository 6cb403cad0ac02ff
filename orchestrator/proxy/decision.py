"""The decision that nginx asks for when it carries the bytes: does this key open that runtime, and where is it.

Served on a socket of its own, in a folder that nobody but nginx reaches; never on an address that clients use. One line
asks, one line answers:

    ADDRESS RUNTIME KIND KEY   ->  HOST PORT GENERATION RUNTIME TENANT INNER_KEY, or `no`
    ! STATUS RUNTIME           ->  `ok`: a request could not be brought there, its route is in doubt
    = RUNTIME ...              ->  `ok`: requests to these are under way

It says where to a right key of a live route only. At `no` nginx hands the request to the front, which wakes, waits,
limits and refuses in its own words. So nothing is decided twice, and a mistake here can only cost a detour. Each answer
counts as use of the conversation; nginx keeps one for a fraction of a second, far less than any idle time, and tells
every two seconds what is still under way.
"""

import asyncio
import os
from contextlib import suppress
from typing import cast

import structlog

from orchestrator.domain.errors import NestorError
from orchestrator.domain.ids import RuntimeId
from orchestrator.proxy.access import opens
from orchestrator.proxy.context import FrontContext
from orchestrator.proxy.route import Route
from orchestrator.proxy.target import runtime_id
from orchestrator.security.connecting import is_ipv4

log = structlog.get_logger(__name__)

_LONGEST = 4 * 1024 * 1024  #: nginx tells of all that is under way in one line
_NO, _OK = b"no\n", b"ok\n"


class DecisionProtocol(asyncio.Protocol):
    """One connection of nginx, which asks once and waits for the answer."""

    def __init__(self, context: FrontContext) -> None:
        self._context = context
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._buffer.endswith(b"\n"):
            line, self._buffer = self._buffer, b""
            self._answer(line[:-1])
        elif len(self._buffer) > _LONGEST:
            self._transport.abort()

    def _answer(self, line: bytes) -> None:
        if line.startswith(b"= "):
            self._task = asyncio.get_running_loop().create_task(self._count(line.split(b" ")[1:]))
            return
        address, name, *rest = [*line.split(b" ", 3), b""][:4]
        if address == b"!":
            self._doubt(name, rest[0])
            return
        key = rest[-1] if len(rest) == 2 else b""
        runtime = runtime_id(name)
        if runtime is None or not key:
            self._transport.write(_NO)
            return
        route = self._context.known(runtime)
        if route is not None:
            self._transport.write(self._decide(route, key))
        elif self._context.may_guess(address.decode("latin-1")):
            self._task = asyncio.get_running_loop().create_task(self._look_up(runtime, key))
        else:
            self._transport.write(_NO)

    async def _look_up(self, runtime: RuntimeId, key: bytes) -> None:
        """The edge of a request: whatever fails here, the front meets it as well and tells it."""
        answer = _NO
        try:
            found = await self._context.find(runtime)
            if isinstance(found, Route):
                answer = self._decide(found, key)
        except (NestorError, TimeoutError):
            log.debug("decision.not_found", runtime=runtime)
        except Exception as exc:  # noqa: BLE001 - see above
            log.error("decision.failed", runtime=runtime, error=type(exc).__name__)
        self._task = None
        if not self._transport.is_closing():
            self._transport.write(answer)

    def _decide(self, route: Route, key: bytes) -> bytes:
        # nginx could not look up a name, and to an IPv6 address the front connects
        if not opens(key, route.session_key_hash) or not is_ipv4(route.host):
            return _NO
        self._context.touch(route)
        inner = route.inner_key.open()
        return f"{route.host} {route.port} {route.generation} {route.runtime} {route.tenant} {inner}\n".encode()

    def _doubt(self, status: bytes, name: bytes) -> None:
        runtime = runtime_id(name)
        if runtime is not None:
            log.warning("proxy.unreachable", runtime=runtime, status=status.decode("latin-1"))
            self._context.invalidate(runtime)
        self._transport.write(_OK)

    async def _count(self, names: list[bytes]) -> None:
        for runtime in {found for name in names if (found := runtime_id(name)) is not None}:
            with suppress(NestorError, TimeoutError):
                route = await self._context.find(runtime)
                if isinstance(route, Route):
                    self._context.touch(route)
        self._task = None
        if not self._transport.is_closing():
            self._transport.write(_OK)


async def listen(context: FrontContext, path: str) -> asyncio.AbstractServer:
    """Answer decisions on the socket `path`. Raises OSError.

    Whoever can open it gets inner keys for session keys: it is for a folder that only this user reaches.
    """
    with suppress(FileNotFoundError):
        os.unlink(path)
    loop = asyncio.get_running_loop()
    return await loop.create_unix_server(lambda: DecisionProtocol(context), path, backlog=1024)
