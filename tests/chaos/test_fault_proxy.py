"""The fault proxy itself: what a seed decides, and that each fault is the one that it is called."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from chaos.faults import Fault, Kind, Plan, Rates
from chaos.relay import Front

SOME = Rates(latency=0.1, cut=0.1, reset=0.1, lost_reply=0.1, refused=0.3)


def drawn(seed: int, place: str, rates: Rates, count: int = 300) -> list[Fault | None]:
    plan = Plan(seed, place, rates)
    return [draw for _ in range(count) for draw in (plan.at_connection(), plan.at_request())]


def test_a_seed_and_a_place_decide_the_faults() -> None:
    assert drawn(1, "redis/0", SOME) == drawn(1, "redis/0", SOME)
    assert drawn(1, "redis/0", SOME) != drawn(2, "redis/0", SOME)
    assert drawn(1, "redis/0", SOME) != drawn(1, "redis/1", SOME)
    assert {fault.kind for fault in drawn(1, "redis/0", SOME) if fault is not None} == set(Kind)


def test_requests_meet_the_same_however_many_connections_come_between() -> None:
    quiet, busy = Plan(3, "engine", SOME), Plan(3, "engine", SOME)
    found = []
    for _ in range(50):
        busy.at_connection()
        found.append(busy.at_request())
    assert found == [quiet.at_request() for _ in range(50)]


def test_rates_are_how_often() -> None:
    count = Counter(fault and fault.kind for fault in drawn(5, "x", SOME, 5000)[1::2])
    for kind in set(Kind) - {Kind.REFUSED}:
        assert 400 < count[kind] < 600
    assert drawn(5, "x", Rates()) == [None] * 600


@dataclass
class Echo:
    """A server that answers each line, and what came to it."""

    heard: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(b"you said " + line)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def fronted(*faults: Fault | None, refused: bool = False) -> AsyncIterator[tuple[Echo, Front, Counter[str]]]:
    echo, done, script = Echo(), Counter[str](), list(faults)

    class Scripted(Plan):
        def at_connection(self) -> Fault | None:
            return Fault(Kind.REFUSED, seconds=0.2) if refused and not done[Kind.REFUSED] else None

        def at_request(self) -> Fault | None:
            return script.pop(0) if script else None

    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    front = Front(server.sockets[0].getsockname()[:2], Scripted(1, "echo", Rates()), done, lambda: False)
    await front.open(("127.0.0.1", 0))
    try:
        yield echo, front, done
    finally:
        await front.close()
        server.close()


async def said(front: Front, *lines: bytes) -> list[bytes]:
    """What is answered on one connection; `b""` once it has ended."""
    assert isinstance(front.address, tuple)
    reader, writer = await asyncio.open_connection(*front.address)
    found = []
    try:
        for line in lines:
            writer.write(line)
            found.append(await asyncio.wait_for(reader.readline(), 5))
    finally:
        writer.close()
    return found


async def test_nothing_is_changed_where_nothing_goes_wrong() -> None:
    async with fronted() as (echo, front, done):
        assert await said(front, b"one\n", b"two\n") == [b"you said one\n", b"you said two\n"]
        assert echo.heard == [b"one\n", b"two\n"]
        assert done == {"connections": 1, "requests": 2}


async def test_latency_holds_a_request_back() -> None:
    async with fronted(Fault(Kind.LATENCY, seconds=0.3)) as (_, front, done):
        began = asyncio.get_running_loop().time()
        assert await said(front, b"one\n") == [b"you said one\n"]
        assert asyncio.get_running_loop().time() - began >= 0.3
        assert done[Kind.LATENCY] == 1


async def test_a_reset_keeps_the_request_from_arriving() -> None:
    async with fronted(Fault(Kind.RESET)) as (echo, front, done):
        with pytest.raises(ConnectionResetError):
            await said(front, b"one\n")
        assert echo.heard == []
        assert done[Kind.RESET] == 1


async def test_of_a_lost_reply_the_request_arrives() -> None:
    async with fronted(None, Fault(Kind.LOST_REPLY)) as (echo, front, _):
        with pytest.raises(ConnectionResetError):
            await said(front, b"one\n", b"two\n")
        assert echo.heard == [b"one\n", b"two\n"]


async def test_a_cut_holds_every_byte_and_then_goes_on_or_ends() -> None:
    async with fronted(Fault(Kind.CUT, seconds=0.2), Fault(Kind.CUT, seconds=0.2, ends=True)) as (echo, front, done):
        with pytest.raises(ConnectionResetError):
            await said(front, b"one\n", b"two\n")
        assert echo.heard == [b"one\n"]
        assert done[Kind.CUT] == 2


async def test_after_a_refusal_nobody_listens_for_a_while() -> None:
    async with fronted(refused=True) as (echo, front, done):
        with pytest.raises(ConnectionResetError):
            await said(front, b"one\n")
        with pytest.raises(ConnectionRefusedError):
            await said(front, b"two\n")
        async with asyncio.timeout(10):
            while done["connections"] == 0:
                try:
                    await said(front, b"three\n")
                except OSError:
                    await asyncio.sleep(0.05)
        assert echo.heard == [b"three\n"]
