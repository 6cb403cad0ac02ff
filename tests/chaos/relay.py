"""A relay of bytes between sockets that does what a `Plan` says. It reads nothing of what it carries.

A request is what a client sends after the server has said something, or first of all: enough to lose a reply (what the
server says next is dropped and the connection ends), since every protocol here is one of questions and answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from chaos.faults import Fault, Kind, Plan

PIECE_BYTES = 65536
Address = Path | tuple[str, int]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Over(Exception):
    """This connection ends by a fault."""


class Front:
    """One address that stands before another. `open` and everything else in one event loop."""

    def __init__(self, upstream: Address, plan: Plan, done: Counter[str], calm: Callable[[], bool]) -> None:
        self.upstream = upstream
        self.address: Address = ("127.0.0.1", 0)
        self._plan, self._done, self._calm = plan, done, calm
        self._server: asyncio.Server | None = None
        self._place: socket.socket | None = None  #: keeps the port ours while nobody listens
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, address: Address) -> Address:
        """Listen there; port 0 takes a free one. Answers the address."""
        if not isinstance(address, Path):
            self._place = _socket(address)
            address = self._place.getsockname()
        self.address = address
        await self._listen()
        return address

    async def close(self) -> None:
        """End the listener and every connection."""
        tasks = list(self._tasks)
        if self._server is not None:
            self._server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._place is not None:
            self._place.close()

    async def _listen(self) -> None:
        if isinstance(self.address, Path):
            self.address.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, self.address)
        else:
            listening = _socket(self.address)
            self._server = await asyncio.start_server(self._serve, sock=listening)

    async def _shut(self, seconds: float) -> None:
        """Refuse connections for that long."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        await asyncio.sleep(seconds)
        await self._listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._carry((reader, writer))
        except asyncio.CancelledError:
            pass  # this front is closed; asyncio would tell of it
        finally:
            self._tasks.discard(task)

    async def _carry(self, client: Streams) -> None:
        fault = None if self._calm() else self._plan.at_connection()
        if fault is not None:
            self._done[fault.kind] += 1
            _reset(client[1])
            await self._shut(fault.seconds)
            return
        try:
            server = await _connected(self.upstream)
        except OSError:
            _reset(client[1])  # nobody is there: as if this front was not
            return
        self._done["connections"] += 1
        await _Line(client, server, self._fault).carry()

    def _fault(self) -> Fault | None:
        """What the next request meets, counted."""
        self._done["requests"] += 1
        fault = None if self._calm() else self._plan.at_request()
        if fault is not None:
            self._done[fault.kind] += 1
        return fault


class _Line:
    """One connection through a front."""

    def __init__(self, client: Streams, server: Streams, fault: Callable[[], Fault | None]) -> None:
        self._client, self._server, self._fault = client, server, fault
        self._asks = True  #: what the client sends next begins a request
        self._lost = False  #: what the server says next is lost
        self._flows = asyncio.Event()
        self._flows.set()

    async def carry(self) -> None:
        """Until both sides have ended, or a fault has."""
        there, back = asyncio.create_task(self._there()), asyncio.create_task(self._back())
        try:
            await asyncio.wait((there, back), return_when=asyncio.FIRST_EXCEPTION)
            failed = any(task.done() and task.exception() is not None for task in (there, back))
        except asyncio.CancelledError:
            failed = True
            raise
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
            for _, writer in (self._client, self._server):
                _reset(writer) if failed else writer.close()

    async def _there(self) -> None:
        reader, writer = self._client[0], self._server[1]
        while piece := await reader.read(PIECE_BYTES):
            if self._asks:
                self._asks = False
                await self._meet(self._fault())
            await self._flows.wait()
            writer.write(piece)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _back(self) -> None:
        reader, writer = self._server[0], self._client[1]
        while piece := await reader.read(PIECE_BYTES):
            if self._lost:
                raise _Over
            await self._flows.wait()
            self._asks = True
            writer.write(piece)
            await writer.drain()
        if self._lost:
            raise _Over
        with contextlib.suppress(OSError):
            writer.write_eof()
        await asyncio.sleep(1)  # a client that keeps its half open has nobody to talk to
        raise _Over

    async def _meet(self, fault: Fault | None) -> None:
        match fault:
            case None:
                return
            case Fault(Kind.LATENCY):
                await asyncio.sleep(fault.seconds)
            case Fault(Kind.LOST_REPLY):
                self._lost = True
            case Fault(Kind.CUT):
                self._flows.clear()
                await asyncio.sleep(fault.seconds)
                if fault.ends:
                    raise _Over
                self._flows.set()
            case _:
                raise _Over


def _socket(address: tuple[str, int]) -> socket.socket:
    """Bound, not listening: several may be bound to one port as long as none but the last one listens."""
    made = socket.socket(socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(address)
    return made


async def _connected(address: Address) -> Streams:
    if isinstance(address, Path):
        return await asyncio.open_unix_connection(address)
    return await asyncio.open_connection(*address)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End it by RST, where it is TCP; at once in any case."""
    found = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if found is not None and found.family != socket.AF_UNIX:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
