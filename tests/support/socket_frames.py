"""WebSocket frames by hand, right and wrong ones, and a client that sends them and takes down what it is answered."""

import asyncio
import base64
import os

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
Frame = tuple[int, bytes]  #: the first byte, and the payload


def frame(
    opcode: int, payload: bytes = b"", *, final: bool = True, reserved: int = 0, masked: bool = True, size: int = -1
) -> bytes:
    """One frame, of a client unless `masked` is False. `size`: what it claims as its length, where that is not so."""
    mask = os.urandom(4) if masked else b""
    first = bytes([(0x80 if final else 0) | reserved | opcode])
    bit, length = (0x80 if masked else 0), len(payload) if size < 0 else size
    if length < 126:
        told = bytes([bit | length])
    elif length < 65536:
        told = bytes([bit | 126]) + length.to_bytes(2, "big")
    else:
        told = bytes([bit | 127]) + length.to_bytes(8, "big")
    return first + told + mask + (_masked(payload, mask) if masked else payload)


def _masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    stream = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


async def opened(
    port: int, target: str, *lines: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, dict[str, str]]:
    """An open socket, and the lines of the answer to its handshake by their names."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"GET {target} HTTP/1.1",
        "Host: h",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *lines,
    )
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
    answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert answer.startswith("HTTP/1.1 101 "), answer
    told = (line.partition(": ") for line in answer.split("\r\n")[1:-2])
    return reader, writer, {name.lower(): value for name, _, value in told}


async def next_frame(reader: asyncio.StreamReader) -> Frame:
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size > 125:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return first, await reader.readexactly(size)
