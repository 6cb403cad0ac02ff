"""WebSocket faults through the front: what is wrong comes to its other end as it was sent, and so does the close code.

The cases are those of the usual conformance suites; an untouched server of the websockets library is behind the front.
"""

import asyncio
import base64
import hashlib
import os

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as serve_sockets
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.anyio

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
LARGEST = 64 * 1024


def frame(opcode, payload=b"", *, final=True, reserved=0, masked=True):
    mask = os.urandom(4) if masked else b""
    first = bytes([(0x80 if final else 0) | reserved | opcode])
    bit, size = (0x80 if masked else 0), len(payload)
    if size < 126:
        length = bytes([bit | size])
    elif size < 65536:
        length = bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([bit | 127]) + size.to_bytes(8, "big")
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)) if masked else payload
    return first + length + mask + body


def closing(code, reason=b""):
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


FAULTS = {
    "not masked": (frame(TEXT, b"x", masked=False), 1002),
    "first reserved bit": (frame(TEXT, b"x", reserved=0x40), 1002),
    "last reserved bit": (frame(TEXT, b"x", reserved=0x10), 1002),
    "reserved kind of data": (frame(0x3, b"x"), 1002),
    "reserved kind of control": (frame(0xB, b"x"), 1002),
    "long ping": (frame(PING, b"x" * 126), 1002),
    "ping in pieces": (frame(PING, b"x", final=False), 1002),
    "nothing to continue": (frame(CONTINUED, b"x"), 1002),
    "a message within another": (frame(TEXT, b"x", final=False) + frame(TEXT, b"y"), 1002),
    "text that is none": (frame(TEXT, b"\xff\xfe"), 1007),
    "text that ends within a character": (frame(TEXT, "ä".encode()[:1]), 1007),
    "text whose second piece is none": (frame(TEXT, b"x", final=False) + frame(CONTINUED, b"\xff"), 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "too large": (frame(BINARY, b"x" * (LARGEST + 1)), 1009),
    "too large in pieces": (
        frame(BINARY, b"x" * LARGEST, final=False) + frame(CONTINUED, b"x", final=False) + frame(CONTINUED, b"x"), 1009,
    ),
    "half a close code": (frame(CLOSE, b"\x03"), 1002),
    "a close code that nobody may send": (closing(1005), 1002),
    "a close code that is none": (closing(999), 1002),
    "a close reason that is no text": (closing(1000, b"\xff"), 1007),
    "a normal close": (closing(1000, b"done"), 1000),
    "a close of an application": (closing(4321, "grüße".encode()), 4321),
    "a close without a code": (frame(CLOSE), None),
}  # fmt: skip
SOUND = {
    "empty text": ([frame(TEXT)], [(TEXT, b"")]),
    "all of a text's sizes": (
        [frame(TEXT, b"x" * size) for size in (1, 125, 126, 127, 128, 65535, 65536)],
        [(TEXT, b"x" * size) for size in (1, 125, 126, 127, 128, 65535, 65536)],
    ),
    "pieces with a ping between": (
        [frame(TEXT, b"gr", final=False), frame(PING, b"p"), frame(CONTINUED, "üß".encode()[:3], final=False),
         frame(CONTINUED, "üß".encode()[3:])],
        [(PONG, b"p"), (TEXT, "grüß".encode())],
    ),
    "empty pieces": ([frame(BINARY, final=False), frame(CONTINUED, final=False), frame(CONTINUED)], [(BINARY, b"")]),
    "a pong that nobody asked for": ([frame(PONG, b"x"), frame(TEXT, b"y")], [(TEXT, b"y")]),
    "the longest ping": ([frame(PING, b"x" * 125)], [(PONG, b"x" * 125)]),
}  # fmt: skip


@pytest.fixture
async def behind(rig):
    """The route of an echo, and the sockets that it had as they ended."""

    async def echo(socket):
        async for message in socket:
            await socket.send(message)

    async with serve_sockets(echo, "127.0.0.1", 0, max_size=LARGEST, compression=None) as server:
        yield rig.publish(server.sockets[0].getsockname()[1])


async def opened(rig, route):
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    lines = (
        f"GET /runtimes/{route.runtime}/ws HTTP/1.1",
        "Host: h",
        f"X-Session-API-Key: {rig.session_key}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
    )
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return reader, writer


async def next_frame(reader):
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size > 125:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return first & 0x0F, await reader.readexactly(size)


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_the_other_ends_to_judge(rig, behind, name):
    data, code = FAULTS[name]
    reader, writer = await opened(rig, behind)
    async with asyncio.timeout(30):
        writer.write(data)
        opcode, payload = await next_frame(reader)
        while opcode == PONG:
            opcode, payload = await next_frame(reader)
        assert opcode == CLOSE
        assert (int.from_bytes(payload[:2], "big") if payload else None) == code
        if code == 4321:
            assert payload[2:].decode() == "grüße"
        writer.write(closing(1000))
        assert await reader.read() == b""  # and the connection ends
    writer.close()


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", SOUND)
async def test_sound_frames_arrive_as_they_were_sent(rig, behind, name, torn):
    sent, expected = SOUND[name]
    reader, writer = await opened(rig, behind)
    writer.transport.get_extra_info("socket").setsockopt(6, 1, 1)  # no delay: each write is a segment
    async with asyncio.timeout(30):
        for data in sent:
            if torn and len(data) < 200:
                for byte in data:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0)
            else:
                writer.write(data)
        assert [await next_frame(reader) for _ in expected] == expected
        writer.write(closing(1000))
        assert (await next_frame(reader))[0] == CLOSE
    writer.close()


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
        reader, writer = await opened(rig, route)
        async with asyncio.timeout(60):
            writer.transport.pause_reading()
            before = -1
            while len(sent) != before:  # until nothing moves any more
                before = len(sent)
                await asyncio.sleep(0.2)
            assert len(sent) < count
            writer.transport.resume_reading()
            for number in range(count):
                opcode, payload = await next_frame(reader)
                assert (opcode, int.from_bytes(payload[:4], "big"), len(payload)) == (BINARY, number, 50_004)
        writer.close()


def _accept(key):
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest())
