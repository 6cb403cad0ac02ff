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
from starlette.types import ASGIApp

from orchestrator.api.turnstile import Rates, Turnstile
from orchestrator.app import facing_connections
from orchestrator.app.facing import Facing
from orchestrator.app.facing_connections import Seats

pytestmark = pytest.mark.anyio
ASKS = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"


async def _served(_: Request) -> Response:
    return Response(status_code=204)


@asynccontextmanager
async def listening(seats: Seats, app: ASGIApp | None = None) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        app = app or Starlette(routes=[Route("/", _served, methods=["POST"])])
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


async def test_who_waits_to_be_refused_is_forgotten_when_it_goes_and_answered_when_the_listener_ends() -> None:
    for_ever = Rates(strangers=1 / 3600, wrong=1 / 3600, burst_seconds=3600, hold=1800, longest_hold=3600)
    turnstile = Turnstile(Response(status_code=401), for_ever)

    async def until_held(count: int) -> None:
        while sum(held.count for held in turnstile._held.values()) != count:
            await anyio.sleep(0.01)

    async def telling(port: int, tells: bytes) -> SocketStream:
        stream = await connected(port)
        await stream.send(tells)
        return stream

    with anyio.fail_after(60):
        async with listening(Seats(8), turnstile) as port:
            async with await telling(port, ASKS) as first:
                assert (await first.receive()).startswith(b"HTTP/1.1 401")
            for tells in (ASKS, ASKS.replace(b"Length: 0", b"Length: 300000") + b"x" * 200_000):
                async with await telling(port, tells):
                    await until_held(1)
                await until_held(0)
            late = await telling(port, ASKS)
            long = await telling(port, ASKS.replace(b"Length: 0", b"Length: 100000") + b"x" * 1000)
            await until_held(2)
        async with late, long:
            assert (await late.receive()).startswith(b"HTTP/1.1 429")
            assert (await long.receive()).startswith(b"HTTP/1.1 429")


def test_of_one_address_there_is_a_quarter_and_of_loopback_all() -> None:
    seats = Seats(8)
    assert [seats.take("10.0.0.1") for _ in range(3)] == [True, True, False]
    assert [seats.take("127.0.0.1") for _ in range(7)] == [True] * 6 + [False]
    assert not seats.take("10.0.0.2")
    seats.leave("127.0.0.1")
    assert seats.take("10.0.0.2")
