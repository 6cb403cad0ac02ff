"""Faults of a runtime's sockets, and readers that are slow. The faults of clients are in `test_conformance.py`."""

import asyncio
import base64
import hashlib

import pytest
from support.socket_frames import BINARY, CLOSE, TEXT, frame, next_frame, opened
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as serve_sockets
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("bytes_sent", "code"),
    [
        (frame(0x3, b"x", masked=False), 1002),
        (frame(TEXT, b"x"), 1002),  # a server must not mask
        (frame(TEXT, b"\xff", masked=False), 1007),
        (frame(CLOSE, b"\x0f\xa1why", masked=False), 4001),
    ],
    ids=["reserved kind", "masked", "no text", "close of an application"],
)
async def test_faults_of_a_runtime_are_its_clients_to_judge(rig, bytes_sent, code):
    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        key = head.lower().split(b"sec-websocket-key: ")[1]
        key = head[len(head) - len(key) :].split(b"\r\n")[0]
        writer.write(
            b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: "
            + _accept(key)
            + b"\r\n\r\n"
            + bytes_sent
        )
        await reader.read(1)  # its close frame

    route = rig.publish(await rig.raw(serve))
    address = f"ws://127.0.0.1:{rig.port}/runtimes/{route.runtime}/ws"
    async with asyncio.timeout(30):
        async with connect(address, additional_headers={"X-Session-API-Key": rig.session_key}) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
    told = closed.value.rcvd if code == 4001 else closed.value.sent
    assert told is not None
    assert told.code == code


async def test_a_reader_that_is_slow_stops_the_other_end_and_nothing_is_lost(rig):
    """More than all buffers on the way hold."""
    count, sent = 400, []

    async def flood(socket):
        for number in range(count):
            await socket.send(number.to_bytes(4, "big") + b"x" * 50_000)
            sent.append(number)
        await socket.wait_closed()

    async with serve_sockets(flood, "127.0.0.1", 0, max_size=None, compression=None) as server:
        route = rig.publish(server.sockets[0].getsockname()[1])
        key = f"X-Session-API-Key: {rig.session_key}"
        reader, writer, _ = await opened(rig.port, f"/runtimes/{route.runtime}/ws", key)
        async with asyncio.timeout(60):
            writer.transport.pause_reading()
            before = -1
            while len(sent) != before:  # until nothing moves any more
                before = len(sent)
                await asyncio.sleep(0.2)
            assert len(sent) < count
            writer.transport.resume_reading()
            for number in range(count):
                first, payload = await next_frame(reader)
                assert (first & 0x0F, int.from_bytes(payload[:4], "big"), len(payload)) == (BINARY, number, 50_004)
        writer.close()


def _accept(key):
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest())
