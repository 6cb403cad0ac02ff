"""Long answers of known length, which are read by another protocol than all else of a runtime's connection."""

import asyncio
import contextlib
import socket

import pytest
from support.front_rig import Rig

pytestmark = pytest.mark.anyio

MEBIBYTE = 1 << 20
MANY = 12 * MEBIBYTE  # more than sockets hold
LONG = bytes(range(256)) * 6144  # one and a half MiB


class Runtime:
    """Answers `/long`, `/more` (a byte more than it announces), `/half` (and hangs up), `/of/N` and anything else."""

    def __init__(self) -> None:
        self.connections = 0
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                asked = await reader.readuntil(b"\r\n\r\n")
                if b"/long" in asked or b"/more" in asked:
                    writer.write(head % len(LONG) + LONG + (b"!" if b"/more" in asked else b""))
                elif b"/of/" in asked:
                    number = int(asked.partition(b"/of/")[2].split(b" ")[0])
                    writer.write(head % MANY + bytes([number]) * MANY)
                elif b"/half" in asked:
                    writer.write(head % len(LONG) + LONG[: len(LONG) // 2])
                    await writer.drain()
                    return
                else:
                    writer.write(head % 2 + b"ok")
                await writer.drain()
        self.ended.set()


async def ask(rig: Rig, runtime: str, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    key = f"X-Session-API-Key: {rig.session_key}"
    writer.write(f"GET /runtimes/{runtime}{path} HTTP/1.1\r\nHost: h\r\n{key}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    lines = head.lower()
    assert lines.count(b"content-length") == 1
    return await reader.readexactly(int(lines.split(b"content-length: ")[1].split(b"\r")[0]))


async def test_behind_a_long_body_the_connection_carries_the_next_request(rig):
    runtime = Runtime()
    route = rig.publish(await rig.raw(runtime.serve))
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    async with asyncio.timeout(60):
        for _ in range(3):
            assert await ask(rig, route.runtime, "/long", reader, writer) == LONG
            assert await ask(rig, route.runtime, "/", reader, writer) == b"ok"
    assert runtime.connections == 1
    writer.close()


async def test_of_many_at_once_each_gets_its_own(rig):
    """All are read into the same memory; clients that do not read keep some of it waiting."""
    route = rig.publish(await rig.raw(Runtime().serve))
    key, read_all = f"X-Session-API-Key: {rig.session_key}", asyncio.Event()

    async def one(number: int) -> None:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", rig.port))
        reader, writer = await asyncio.open_connection(sock=client, limit=MEBIBYTE)
        writer.write(f"GET /runtimes/{route.runtime}/of/{number} HTTP/1.1\r\nHost: h\r\n{key}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        if number % 2:
            await read_all.wait()
        left = MANY
        while left:
            piece = await reader.read(MEBIBYTE)
            assert piece == bytes([number]) * len(piece) != b""
            left -= len(piece)
        writer.close()

    async with asyncio.timeout(90):
        slow = [asyncio.ensure_future(one(number)) for number in (1, 3)]
        await asyncio.gather(*map(one, (0, 2, 4)))
        read_all.set()
        await asyncio.gather(*slow)


async def test_a_byte_more_than_was_announced_is_nobodys(rig):
    runtime = Runtime()
    route = rig.publish(await rig.raw(runtime.serve))
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    async with asyncio.timeout(60):
        assert await ask(rig, route.runtime, "/more", reader, writer) == LONG
        await runtime.ended.wait()  # the front has hung up
        assert await ask(rig, route.runtime, "/", reader, writer) == b"ok"
    assert runtime.connections == 2
    writer.close()


async def test_a_long_body_that_is_cut_off_is_cut_off_for_the_client(rig):
    runtime = Runtime()
    route = rig.publish(await rig.raw(runtime.serve))
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    async with asyncio.timeout(60):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await ask(rig, route.runtime, "/half", reader, writer)
    writer.close()


async def test_a_client_that_leaves_a_long_body_ends_it_at_the_runtime(rig):
    runtime = Runtime()
    route = rig.publish(await rig.raw(runtime.serve))
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1024)
        async with asyncio.timeout(60):
            key = f"X-Session-API-Key: {rig.session_key}"
            writer.write(f"GET /runtimes/{route.runtime}/long HTTP/1.1\r\nHost: h\r\n{key}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
    await rig.eventually(lambda: not rig.context.upstreams.in_use())
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    async with asyncio.timeout(60):
        assert await ask(rig, route.runtime, "/long", reader, writer) == LONG
    writer.close()
