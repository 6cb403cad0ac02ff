"""How the server ends while bytes are under way."""

import asyncio

import pytest

pytestmark = pytest.mark.anyio


def request(rig, route, path="/"):
    head = f"GET /runtimes/{route.runtime}{path} HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}"
    return f"{head}\r\n\r\n".encode()


async def test_a_download_under_way_is_finished(rig):
    go_on = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"a" * 500_000)
        await go_on.wait()
        writer.write(b"b" * 500_000)
        await reader.read()

    route = rig.publish(await rig.raw(serve))
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(request(rig, route))
    async with asyncio.timeout(20):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(500_000)
        rig.server.should_exit = True
        await rig.eventually(lambda: not rig.server.servers[0].is_serving())
        go_on.set()
        assert await reader.read() == b"b" * 500_000  # and then the connection is closed
    writer.close()


async def test_an_event_stream_is_ended_in_order(rig):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"9\r\ndata: 0\n\n\r\n")
        await reader.read()

    route = rig.publish(await rig.raw(serve))
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(request(rig, route))
    async with asyncio.timeout(20):
        await reader.readuntil(b"data: 0\n\n\r\n")
        rig.server.should_exit = True
        assert await reader.read() == b"0\r\n\r\n"
    writer.close()


async def test_idle_connections_are_closed(rig, recorder):
    route = rig.publish(recorder["port"])
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(request(rig, route))
    async with asyncio.timeout(20):
        await reader.readuntil(b"ok")
        rig.server.should_exit = True
        assert await reader.read() == b""
    writer.close()


async def test_a_withdrawn_route_ends_a_stream_and_drops_idle_connections(rig):
    async def serve(reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/stream" in head:
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    route = rig.publish(await rig.raw(serve))
    assert (await rig.talk(request(rig, route), until=b"ok")).endswith(b"ok")
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(request(rig, route, "/stream"))
    async with asyncio.timeout(20):
        await reader.readuntil(b"abc\r\n")
        del rig.table[route.runtime]
        rig.cache.invalidate(route.runtime)
        assert await reader.read() == b""  # cut off: an end in order would say that this was all
    writer.close()
    assert rig.context.upstreams.open_for(route.runtime) == ()
