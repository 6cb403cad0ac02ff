"""WebSockets through the front: three ways to say the key, and every way to end."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import socket as socket_module
import struct
import time

import pytest
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from orchestrator.proxy.limits import FrontLimits
from orchestrator.proxy.route import Unavailable

pytestmark = pytest.mark.anyio


class Runtime:
    """A real server that answers what it is told, and remembers what it saw of the handshake."""

    def __init__(self, inner_key: str) -> None:
        self.inner_key = inner_key
        self.seen = []
        self.closed = asyncio.Queue()

    async def socket(self, websocket: WebSocket) -> None:
        self.seen.append(websocket)
        if websocket.headers.get("x-session-api-key") != self.inner_key:
            await websocket.close()
            return
        await websocket.accept(subprotocol="b" if "b" in websocket.scope["subprotocols"] else None)
        if websocket.path_params["id"] == "unknown":
            await websocket.close(4004, "Conversation not found")
            return
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.send_text("welcome")
            while True:
                text = await websocket.receive_text()
                await websocket.send_text(text if text != "big" else "x" * 300_000)
        self.closed.put_nowait(True)


@pytest.fixture
async def runtime(rig):
    runtime = Runtime(rig.inner_key)
    _, port = await rig.serve(Starlette(routes=[WebSocketRoute("/sockets/events/{id}", runtime.socket)]))
    runtime.route = rig.publish(port)
    return runtime


def url(rig, route, rest="c1"):
    return f"ws://127.0.0.1:{rig.port}/runtimes/{route.runtime}/sockets/events/{rest}"


def connect(address, **options):
    return websockets.connect(address, proxy=None, max_size=None, **options)


def auth(key):
    return json.dumps({"type": "auth", "session_api_key": key})


async def converse(socket):
    assert await socket.recv() == "welcome"
    for text in ("hello", "y" * 300_000):
        await socket.send(text)
        assert await socket.recv() == text
    await socket.send("big")
    assert await socket.recv() == "x" * 300_000
    await (await socket.ping())


async def test_the_key_in_a_header(rig, runtime):
    async with connect(url(rig, runtime.route), additional_headers={"X-Session-API-Key": rig.session_key}) as socket:
        await converse(socket)
    await asyncio.wait_for(runtime.closed.get(), 20)
    assert rig.touched[0] == runtime.route.runtime


async def test_the_key_in_the_query_is_not_passed_on(rig, runtime):
    address = url(rig, runtime.route, f"c1?a=%20b&session_api_key={rig.session_key}&resend_mode=all")
    async with connect(address) as socket:
        await converse(socket)
    assert runtime.seen[0].scope["query_string"] == b"a=%20b&resend_mode=all"


async def test_the_key_in_the_first_frame_is_swallowed(rig, runtime):
    async with connect(url(rig, runtime.route, "c1?resend_mode=all")) as socket:
        await socket.send(auth(rig.session_key))
        await converse(socket)
    assert runtime.seen[0].scope["query_string"] == b"resend_mode=all"
    assert runtime.seen[0].headers["x-generation"] == "1"
    await asyncio.wait_for(runtime.closed.get(), 20)


async def test_frames_behind_the_key_are_not_lost(rig, runtime):
    async with connect(url(rig, runtime.route)) as socket:
        await asyncio.gather(socket.ping(), socket.send(auth(rig.session_key)), socket.send("one"), socket.send("two"))
        assert [await socket.recv() for _ in range(3)] == ["welcome", "one", "two"]


async def test_a_subprotocol_is_negotiated_with_the_runtime(rig, runtime):
    headers = {"X-Session-API-Key": rig.session_key}
    async with connect(url(rig, runtime.route), additional_headers=headers, subprotocols=["a", "b"]) as socket:
        assert socket.subprotocol == "b"
        await converse(socket)


@pytest.mark.parametrize("way", ["header", "query", "both"])
async def test_a_wrong_key_in_the_handshake_is_403(rig, runtime, way):
    query = {"header": "", "query": "?session_api_key=wrong", "both": "?session_api_key=wrong"}[way]
    headers = {"header": {"X-Session-API-Key": "wrong"}, "query": {}, "both": {"X-Session-API-Key": rig.session_key}}[
        way
    ]
    with pytest.raises(InvalidStatus) as refused:
        await connect(url(rig, runtime.route, "c1" + query), additional_headers=headers)
    assert refused.value.response.status_code == 403
    assert runtime.seen == []


@pytest.mark.parametrize(
    "first",
    [
        auth("wrong"),
        auth("")[:-5],
        "[]",
        json.dumps({"type": "hello", "session_api_key": "session-key-of-the-client"}),
        json.dumps({"type": "auth", "session_api_key": 7}),
        auth("session-key-of-the-client").encode(),
        "[" * 8000,
        "x" * 9000,
        ["in", "pieces"],
    ],
    ids=["wrong", "no JSON", "no object", "other type", "no text", "binary", "deep", "long", "fragmented"],
)
async def test_a_wrong_first_frame_is_closed_4001(rig, runtime, first):
    socket = await connect(url(rig, runtime.route))
    with contextlib.suppress(ConnectionClosed):
        await socket.send(first)
    with pytest.raises(ConnectionClosed) as closed:
        await socket.recv()
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "Authentication failed")
    assert (runtime.seen, rig.touched) == ([], [])
    await rig.eventually(lambda: not rig.context.waiting_sockets)


async def test_silent_sockets_are_closed_4001_while_others_are_served(bare_rig):
    rig = bare_rig
    await rig.open(FrontLimits(first_frame_seconds=2, unauthenticated_sockets=60))
    runtime = Runtime(rig.inner_key)
    _, port = await rig.serve(Starlette(routes=[WebSocketRoute("/sockets/events/{id}", runtime.socket)]))
    runtime.route = rig.publish(port)
    silent = [await connect(url(rig, runtime.route)) for _ in range(50)]
    await silent[0].send(auth(rig.session_key))
    assert await silent[0].recv() == "welcome"
    for socket in silent[1:]:
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 20)
        assert closed.value.rcvd.code == 4001
    await silent[0].send("still here")
    assert await silent[0].recv() == "still here"
    await silent[0].close()
    assert len(runtime.seen) == 1


async def test_the_number_of_waiting_sockets_of_one_address_is_bounded(bare_rig):
    rig = bare_rig
    await rig.open(FrontLimits(unauthenticated_sockets=3))
    route = rig.publish(1)
    waiting = [await connect(url(rig, route)) for _ in range(3)]
    with pytest.raises(InvalidStatus) as refused:
        await connect(url(rig, route))
    assert refused.value.response.status_code == 503
    for socket in waiting:
        await socket.close()
    await rig.eventually(lambda: not rig.context.waiting_sockets)


async def test_pings_are_answered_and_a_close_is_returned_before_the_key(rig, runtime):
    socket = await connect(url(rig, runtime.route))
    await asyncio.wait_for(await socket.ping(), 20)
    await socket.close()
    assert socket.close_code == 1000
    assert runtime.seen == []


async def test_a_conversation_that_the_runtime_does_not_know(rig, runtime):
    headers = {"X-Session-API-Key": rig.session_key}
    for options, first in (({"additional_headers": headers}, None), ({}, auth(rig.session_key))):
        socket = await connect(url(rig, runtime.route, "unknown"), **options)
        if first is not None:
            await socket.send(first)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd.code == 4004


@pytest.mark.parametrize(("status", "code"), [(403, 4004), (404, 4004), (500, 1013), (401, 1013), (200, 1013)])
async def test_a_handshake_that_the_runtime_refuses(rig, status, code):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d No\r\ncontent-length: 4\r\n\r\nbody" % status)
        await reader.read()

    route = rig.publish(await rig.raw(serve))
    socket = await connect(url(rig, route))
    await socket.send(auth(rig.session_key))
    with pytest.raises(ConnectionClosed) as closed:
        await socket.recv()
    assert closed.value.rcvd.code == code
    with pytest.raises(InvalidStatus) as refused:
        await connect(url(rig, route), additional_headers={"X-Session-API-Key": rig.session_key})
    assert refused.value.response.status_code == {401: 502, 200: 502}.get(status, status)
    assert bool(rig.invalidated) is (status == 401)
    assert rig.context.upstreams.open_for(route.runtime) == ()


async def test_a_handshake_with_a_wrong_proof_is_no_socket(rig):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 S\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n\r\n")
        await reader.read()

    route = rig.publish(await rig.raw(serve))
    socket = await connect(url(rig, route))
    await socket.send(auth(rig.session_key))
    with pytest.raises(ConnectionClosed) as closed:
        await socket.recv()
    assert closed.value.rcvd.code == 1013


async def test_unknown_runtimes_and_init_are_404_and_unready_ones_503(rig, runtime):
    rig.table[(away := rig.publish(1)).runtime] = Unavailable("soon")
    base = f"ws://127.0.0.1:{rig.port}/runtimes"
    for address, status in (
        (f"{base}/5e2f2c0e-3a52-4a3e-9a0b-0d3d3b7a1c11/sockets/x", 404),
        (f"{base}/nobody/sockets/x", 404),
        (f"{base}/{runtime.route.runtime}/api/init", 404),
        (url(rig, away), 503),
    ):
        with pytest.raises(InvalidStatus) as refused:
            await connect(address)
        assert refused.value.response.status_code == status


async def test_nobody_listening(rig):
    with contextlib.closing(socket_module.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    route = rig.publish(port)
    socket = await connect(url(rig, route))
    await socket.send(auth(rig.session_key))
    with pytest.raises(ConnectionClosed) as closed:
        await socket.recv()
    assert closed.value.rcvd.code == 1013
    with pytest.raises(InvalidStatus) as refused:
        await connect(url(rig, route), additional_headers={"X-Session-API-Key": rig.session_key})
    assert refused.value.response.status_code == 502
    assert set(rig.invalidated) == {route.runtime}


async def test_a_socket_wakes_only_after_its_key_was_right(bare_rig):
    rig = bare_rig
    woken = []

    async def wake(runtime_id, seconds):
        woken.append(runtime_id)
        rig.table[runtime_id] = route
        return route

    await rig.open(wake=wake)
    runtime = Runtime(rig.inner_key)
    _, port = await rig.serve(Starlette(routes=[WebSocketRoute("/sockets/events/{id}", runtime.socket)]))
    route = rig.publish(port)
    rig.table[route.runtime] = Unavailable("asleep", session_key_hash=route.session_key_hash)
    socket = await connect(url(rig, route))
    await socket.send(auth("wrong"))
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    assert woken == []
    async with connect(url(rig, route)) as socket:
        await socket.send(auth(rig.session_key))
        assert await socket.recv() == "welcome"
    assert woken == [route.runtime]


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://evil.example", False),
        ("null", False),
        ("http://127.0.0.1.evil.example", False),
        ("file://", False),
        ("http://localhost:3000", True),
        ("http://127.0.0.1:5173", True),
        ("SAME", True),
        ("https://console.example", True),
    ],
)
@pytest.mark.parametrize("api", [False, True], ids=["runtime", "api"])
async def test_a_browser_socket_needs_an_allowed_origin(bare_rig, origin, allowed, api):
    rig = bare_rig
    await rig.open(FrontLimits(allowed_origins=frozenset({"https://console.example"})))
    route = rig.publish(1)
    address = f"ws://127.0.0.1:{rig.port}/api/v2/socket" if api else url(rig, route)
    origin = f"http://127.0.0.1:{rig.port}" if origin == "SAME" else origin
    if allowed:
        async with connect(address, origin=origin):
            pass
    else:
        with pytest.raises(InvalidStatus) as refused:
            await connect(address, origin=origin)
        assert refused.value.response.status_code == 403


async def test_sockets_of_the_api_are_untouched_even_with_an_early_frame(rig):
    async with connect(f"ws://127.0.0.1:{rig.port}/api/v2/socket") as socket:
        await socket.send("hi")
        assert await socket.recv() == "api:hi"
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        "GET /api/v2/socket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    frame = b"\x81\x82\x00\x00\x00\x00hi"
    got = await rig.talk(head.encode() + frame, until=b"api:hi")
    assert got.startswith(b"HTTP/1.1 101 ")
    assert b"api:hi" in got


async def test_a_runtime_that_dies_between_frames_closes_the_socket_at_once(rig):
    route, died = await dying_runtime(rig, b"\x81\x02hi")
    socket = await opened(rig, route)
    assert await socket.recv() == "hi"
    died.set()
    began = time.monotonic()
    with pytest.raises(ConnectionClosed) as closed:
        await socket.recv()
    assert closed.value.rcvd.code == 1011
    assert time.monotonic() - began < 15


async def test_a_runtime_that_dies_within_a_frame_cuts_the_socket(rig):
    route, died = await dying_runtime(rig, b"\x81\x05hi")
    socket = await opened(rig, route)
    died.set()
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(socket.recv(), 20)
    assert closed.value.rcvd is None


async def test_stopping_the_server_closes_sockets_with_1012(rig, runtime):
    socket = await opened(rig, runtime.route)
    assert await socket.recv() == "welcome"
    silent = await connect(url(rig, runtime.route))
    rig.server.should_exit = True
    for one in (socket, silent):
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(one.recv(), 20)
        assert closed.value.rcvd.code == 1012
    await asyncio.wait_for(runtime.closed.get(), 20)


async def test_stopping_the_server_waits_for_the_end_of_a_frame(rig):
    go_on = asyncio.Event()
    payload = os.urandom(70_000).hex().encode()

    async def serve(reader, writer):
        await shake(reader, writer)
        writer.write(b"\x81\x7f" + struct.pack("!Q", len(payload)) + payload[:1000])
        await writer.drain()
        await go_on.wait()
        writer.write(payload[1000:] + b"\x81\x04next")
        await reader.read()

    route = rig.publish(await rig.raw(serve))
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(await handshake(rig, route))
    async with asyncio.timeout(20):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(10 + 1000)
        rig.server.should_exit = True
        await rig.eventually(lambda: not rig.server.servers[0].is_serving())
        go_on.set()
        assert await reader.readexactly(len(payload) - 1000) == payload[1000:]
        opcode, length = await reader.readexactly(2)
        assert opcode == 0x88
        assert struct.unpack("!H", (await reader.readexactly(length))[:2]) == (1012,)
        assert await reader.read() == b""
    writer.close()


async def test_a_client_that_vanishes_frees_the_runtime(rig, runtime):
    socket = await opened(rig, runtime.route)
    socket.transport.abort()
    await asyncio.wait_for(runtime.closed.get(), 20)
    await rig.eventually(lambda: not rig.server.server_state.connections)
    assert rig.context.upstreams.open_for(runtime.route.runtime) == ()


async def test_a_withdrawn_route_closes_its_sockets_and_no_others(rig, runtime):
    other = rig.publish(runtime.route.port)
    socket, others = await opened(rig, runtime.route), await opened(rig, other)
    for one in (socket, others):
        assert await one.recv() == "welcome"
    rig.cache.invalidate(runtime.route.runtime)
    await socket.send("unchanged")
    assert await socket.recv() == "unchanged"  # a mere doubt ends nothing
    del rig.table[runtime.route.runtime]
    rig.cache.invalidate(runtime.route.runtime)
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(socket.recv(), 20)
    assert closed.value.rcvd.code == 1012
    await others.send("still")
    assert await others.recv() == "still"
    await others.close()


async def test_a_slow_reader_slows_the_runtime_down(rig):
    sent = 0

    async def serve(reader, writer):
        nonlocal sent
        await shake(reader, writer)
        frame = b"\x82\x7f" + struct.pack("!Q", 65536) + bytes(65536)
        for _ in range(1000):
            writer.write(frame)
            await writer.drain()
            sent += 1

    route = rig.publish(await rig.raw(serve))
    head = await handshake(rig, route)
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1024)
    writer.write(head)
    settled = -1
    async with asyncio.timeout(10):
        while sent != settled or not sent:
            settled = sent
            await asyncio.sleep(0.3)
    assert sent < 400  # of 1000: the rest waits at the runtime
    writer.close()


async def opened(rig, route):
    return await connect(url(rig, route), additional_headers={"X-Session-API-Key": rig.session_key})


async def handshake(rig, route):
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET /runtimes/{route.runtime}/s HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"X-Session-API-Key: {rig.session_key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()


async def shake(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    key = next(line[19:] for line in head.split(b"\r\n") if line.startswith(b"sec-websocket-key"))
    accept = base64.b64encode(
        hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    )
    writer.write(
        b"HTTP/1.1 101 S\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: " + accept + b"\r\n\r\n"
    )


async def dying_runtime(rig, last):
    died = asyncio.Event()

    async def serve(reader, writer):
        await shake(reader, writer)
        writer.write(last)
        await died.wait()

    return rig.publish(await rig.raw(serve)), died
