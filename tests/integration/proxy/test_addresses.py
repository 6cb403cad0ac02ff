"""What one client address may take: connections at once, wrong keys in a second."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as serve_sockets

from orchestrator.proxy.limits import FrontLimits

pytestmark = pytest.mark.anyio


async def answered(reader) -> bytes:
    async with asyncio.timeout(30):
        return await reader.read(65536)


async def test_an_address_has_so_many_connections_and_each_that_ends_makes_room(bare_rig):
    rig = bare_rig
    await rig.open(FrontLimits(connections_per_address=3))
    held = [await asyncio.open_connection("127.0.0.1", rig.port) for _ in range(3)]
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    refused = await answered(reader)
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"too_many_connections" in refused
    assert await answered(reader) == b""
    writer.close()
    held.pop()[1].close()
    await rig.eventually(lambda: rig.context._connections["127.0.0.1"] == 2, deadline=30)
    assert b"200 OK" in await rig.talk(b"GET /api/v2/hello HTTP/1.1\r\nHost: h\r\n\r\n", until=b"nestor", deadline=30)
    for _, writer in held:
        writer.close()
    await rig.eventually(lambda: not rig.context._connections, deadline=30)


async def test_all_addresses_together_have_so_many_and_health_says_so(bare_rig):
    rig = bare_rig
    await rig.open(FrontLimits(connections=3))
    from_elsewhere = [("127.0.0.2", 0), ("127.0.0.3", 0), ("127.0.0.4", 0)]
    held = [await asyncio.open_connection("127.0.0.1", rig.port, local_addr=one) for one in from_elsewhere]
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    refused = await answered(reader)
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"too_many_connections" in refused
    assert rig.context.problem.startswith("3 clients are connected")
    writer.close()
    for _, writer in held:
        writer.close()
    await rig.eventually(lambda: not rig.context._connections, deadline=30)
    assert rig.context.problem is None
    assert b"200 OK" in await rig.talk(b"GET /api/v2/hello HTTP/1.1\r\nHost: h\r\n\r\n", until=b"nestor", deadline=30)


async def test_a_socket_counts_until_it_is_closed(bare_rig):
    rig = bare_rig
    await rig.open(FrontLimits(connections_per_address=1))
    async with serve_sockets(echo, "127.0.0.1", 0) as server:
        await one_socket(rig, rig.publish(server.sockets[0].getsockname()[1]))
    await rig.eventually(lambda: not rig.context._connections, deadline=30)


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def one_socket(rig, route):
    address = f"ws://127.0.0.1:{rig.port}/runtimes/{route.runtime}/ws"
    async with connect(address, additional_headers={"X-Session-API-Key": rig.session_key}) as socket:
        await socket.send("x")
        await socket.recv()
        assert (await rig.talk(b"", deadline=30)).startswith(b"HTTP/1.1 503 ")


async def test_a_socket_of_the_api_counts_until_it_is_closed(bare_rig):
    rig = bare_rig
    await rig.open(FrontLimits(connections=1))
    for _ in range(2):
        async with connect(f"ws://127.0.0.1:{rig.port}/api/v2/socket", open_timeout=30) as client:
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            assert b"too_many_connections" in await answered(reader)
            writer.close()
            await client.send("x")
            assert await client.recv() == "api:x"
        await rig.eventually(lambda: not rig.context._connections and rig.context.problem is None, deadline=30)
