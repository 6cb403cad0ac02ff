"""Runtimes cannot take the descriptors that the orchestrator needs: connections to their listener are counted."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketStream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.app import facing_connections
from orchestrator.app.facing import Facing
from orchestrator.app.facing_connections import Seats

pytestmark = pytest.mark.anyio
ASKS = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"


async def _served(_: Request) -> Response:
    return Response(status_code=204)


@asynccontextmanager
async def listening(seats: Seats) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        app = Starlette(routes=[Route("/", _served, methods=["POST"])])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Facing(listener, f"http://127.0.0.1:{port}").serve, app, seats)
            yield port
            tasks.cancel_scope.cancel()


async def connected(port: int) -> SocketStream:
    return await anyio.connect_tcp("127.0.0.1", port)


async def is_served(stream: SocketStream) -> bool:
    try:
        await stream.send(ASKS)
        return (await stream.receive()).startswith(b"HTTP/1.1 204")
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return False


async def until_served(port: int) -> None:
    while True:
        async with await connected(port) as later:
            if await is_served(later):
                return


async def test_there_are_so_many_and_one_that_is_over_makes_room() -> None:
    with anyio.fail_after(60):
        async with listening(Seats(2)) as port, await connected(port) as first:
            async with await connected(port) as second:
                async with await connected(port) as third:
                    assert not await is_served(third)
                assert await is_served(first), "who is there notices nothing"
                assert await is_served(second)
            await until_served(port)


async def test_one_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facing_connections, "SILENT_SECONDS", 0.05)
    with anyio.fail_after(60):
        async with listening(Seats(1)) as port, await connected(port) as silent:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await silent.receive()
            await until_served(port)


def test_of_one_address_there_is_a_quarter_and_of_loopback_all() -> None:
    seats = Seats(8)
    assert [seats.take("10.0.0.1") for _ in range(3)] == [True, True, False]
    assert [seats.take("127.0.0.1") for _ in range(7)] == [True] * 6 + [False]
    assert not seats.take("10.0.0.2")
    seats.leave("127.0.0.1")
    assert seats.take("10.0.0.2")
