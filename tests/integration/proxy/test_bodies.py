"""HTTP through the front: bodies and answers as they flow, large, late, cut off, and without end."""

import asyncio
import hashlib
import os
import uuid
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route as StarletteRoute
from support.front_rig import get

pytestmark = pytest.mark.anyio


async def echo(request: Request) -> Response:
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    framing = request.headers.get("content-length") or request.headers.get("transfer-encoding")
    return JSONResponse({"sha": digest.hexdigest(), "size": size, "framing": framing})


async def download(request: Request) -> Response:
    size, piece = int(request.query_params["size"]), bytes(range(256)) * 256

    async def body():
        for _ in range(size // len(piece)):
            yield piece

    headers = {"content-length": str(size)} if "length" in request.query_params else {}
    return StreamingResponse(body(), headers=headers)


async def nothing(request: Request) -> Response:
    return Response(status_code=int(request.path_params["status"]), headers={"x-way": "through"})


async def runtime_app(rig):
    routes = [
        StarletteRoute("/echo", echo, methods=["POST", "PUT"]),
        StarletteRoute("/download", download),
        StarletteRoute("/status/{status}", nothing, methods=["GET", "POST"]),
    ]
    _, port = await rig.serve(Starlette(routes=routes))
    return rig.publish(port)


def memory() -> int:
    """What this process has resident now, in MiB: client, front and runtime together."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024**2


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_bodies_go_up_in_flat_memory(rig, chunked):
    route = await runtime_app(rig)
    piece = bytes(range(256)) * 1024
    total = 100 * len(piece)
    expected = hashlib.sha256()
    resident = [memory()]

    async def pieces():
        for _ in range(100):
            expected.update(piece)
            resident.append(memory())
            yield piece

    headers = {"X-Session-API-Key": rig.session_key} | ({} if chunked else {"content-length": str(total)})
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        url = f"{rig.origin}/runtimes/{route.runtime}/echo"
        answer = (await client.post(url, content=pieces(), headers=headers)).json()
    assert answer == {
        "sha": expected.hexdigest(),
        "size": total,
        "framing": "chunked" if chunked else str(total),
    }
    assert max(resident) - resident[0] < 12  # of 25 sent


@pytest.mark.parametrize("length", ["", "&length"])
async def test_large_bodies_come_down_whole_to_a_slow_reader_in_flat_memory(rig, length):
    route = await runtime_app(rig)
    size = 40 * 1024 * 1024
    resident = [memory()]
    digest, expected, got = hashlib.sha256(), hashlib.sha256(), 0
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        headers = {"X-Session-API-Key": rig.session_key}
        url = f"{rig.origin}/runtimes/{route.runtime}/download?size={size}{length}"
        async with client.stream("GET", url, headers=headers) as answer:
            await asyncio.sleep(0.2)  # the sender is far faster than this reader
            async for piece in answer.aiter_bytes():
                digest.update(piece)
                got += len(piece)
                resident.append(memory())
    for _ in range(size // 65536):
        expected.update(bytes(range(256)) * 256)
    assert (got, digest.hexdigest()) == (size, expected.hexdigest())
    assert max(resident) - resident[0] < 12  # of 40 sent


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_leave_the_connection_in_step(rig, status):
    route = await runtime_app(rig)
    async with httpx.AsyncClient(trust_env=False, headers={"X-Session-API-Key": rig.session_key}) as client:
        url = f"{rig.origin}/runtimes/{route.runtime}"
        for _ in range(3):
            answer = await client.get(f"{url}/status/{status}")
            assert (answer.status_code, answer.content, answer.headers["x-way"]) == (status, b"", "through")
            head = await client.head(f"{url}/download?size=65536&length")
            assert (head.status_code, head.headers["content-length"], head.content) == (200, "65536", b"")
            assert (await client.get(f"{url}/download?size=65536")).content == bytes(range(256)) * 256


async def test_a_client_that_waits_for_100_is_told_to_continue(rig):
    route = await runtime_app(rig)
    head = (
        f"POST /runtimes/{route.runtime}/echo HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n"
        "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(head.encode())
    async with asyncio.timeout(20):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_an_old_client_gets_its_answer_unchunked_and_closed(rig):
    route = await runtime_app(rig)
    head = f"GET /runtimes/{route.runtime}/download?size=65536 HTTP/1.0\r\nX-Session-API-Key: {rig.session_key}\r\n\r\n"
    got = await rig.talk(head.encode())
    headers, _, body = got.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in headers.lower()
    assert b"connection: close" in headers.lower()
    assert body == bytes(range(256)) * 256


async def test_an_answer_that_ends_with_its_connection_becomes_chunked(rig):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nold ")
        await writer.drain()
        writer.write(b"server")

    route = rig.publish(await rig.raw(serve))
    for _ in range(2):
        assert (await get(rig, route)).text == "old server"


async def test_an_answer_that_is_cut_off_is_cut_off_for_the_client(rig):
    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        chunked = b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n" + (chunked if b"/c" in head else b"content-length: 9\r\n\r\nabc"))
        await writer.drain()

    route = rig.publish(await rig.raw(serve))
    for path in ("/c", "/l"):
        with pytest.raises(httpx.RemoteProtocolError):
            await get(rig, route, path)


async def test_events_arrive_as_they_are_sent(rig):
    go_on = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(3):
            writer.write(b"9\r\ndata: %d\n\n\r\n" % number)
            await writer.drain()
            await go_on.wait()
            go_on.clear()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    route = rig.publish(await rig.raw(serve))
    got = []
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream(
            "GET", f"{rig.origin}/runtimes/{route.runtime}/s", headers={"X-Session-API-Key": rig.session_key}
        ) as answer,
    ):
        async for piece in answer.aiter_bytes():
            got.append(piece)
            go_on.set()  # the next one is only sent when this one was received
    assert got == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]


async def test_a_client_that_goes_away_ends_the_request_at_the_runtime(rig):
    seen = asyncio.Queue()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        seen.put_nowait("request")
        assert await reader.read() == b""
        seen.put_nowait("gone")

    route = rig.publish(await rig.raw(serve))
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    head = f"GET /runtimes/{route.runtime}/ HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(20):
        assert await seen.get() == "request"
        writer.close()
        assert await seen.get() == "gone"
    await rig.eventually(lambda: not rig.context.upstreams.open_for(route.runtime))


async def test_a_refused_request_whose_body_came_along_leaves_the_connection_usable(rig):
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    unknown = f"PUT /runtimes/{uuid.uuid4()}/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx".encode()
    known = b"GET /api/v2/hello HTTP/1.1\r\nHost: h\r\n\r\n"
    try:
        async with asyncio.timeout(20):
            for request, status in ((unknown, b"404"), (known, b"200"), (unknown, b"404"), (known, b"200")):
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 " + status), head
                (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(length.partition(b":")[2]))
    finally:
        writer.close()


async def test_an_early_refusal_of_an_upload_reaches_the_client(rig):
    """The rest, which nobody sends, is not waited for, and what follows is no request."""
    over = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        while await reader.read(65536):  # as a server should that gives up early: until the other side has noticed
            pass
        over.set()

    route = rig.publish(await rig.raw(serve))
    head = (
        f"POST /runtimes/{route.runtime}/ HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n"
        "Content-Length: 50000000\r\n\r\n"
    )
    smuggled = b"\r\n\r\nGET /api/v2/hello HTTP/1.1\r\nHost: h\r\n\r\n"
    got = await rig.talk(head.encode() + b"x" * 2_000_000 + smuggled)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert got.endswith(b"big")
    await asyncio.wait_for(over.wait(), 20)
