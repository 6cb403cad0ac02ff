"""Many WebSocket listeners in one process, as cheap as they can be made: when did each frame come to each of them."""

import asyncio
import base64
import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvloop
from servers import KEY, Server

_MARK = b"event-of-the-bench-"


class Listener(asyncio.Protocol):
    """Reads frames of one socket; notes the arrival of every marked one, once."""

    def __init__(self, path: str, arrivals: dict[int, list[float]]) -> None:
        self._path = path
        self._arrivals = arrivals
        self._buffer = bytearray()
        self._open = False
        self.first = asyncio.get_running_loop().create_future()
        self.closed = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        nonce = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._buffer += data
        if not self._open:
            head, found, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not found:
                return
            self._open = b" 101 " in head.split(b"\r\n")[0]
            self._buffer = bytearray(rest)
        while (frame := self._frame()) is not None:
            self._take(*frame, now)

    def _frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1] & 127, 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + size:
            return None
        payload = bytes(buffer[start : start + size])
        code = buffer[0] & 15
        del buffer[: start + size]
        return code, payload

    def _take(self, code: int, payload: bytes, now: float) -> None:
        if code == 9:  # a client that does not answer pings is dropped
            self.transport.write(bytes([0x8A, 0x80 | len(payload)]) + b"\0\0\0\0" + payload)
        elif code == 8:
            self.transport.close()  # as an answer it is good enough
            self.connection_lost(None)
        elif code == 1:
            if not self.first.done():
                self.first.set_result(None)
            at = payload.find(_MARK)
            if at >= 0:
                self._arrivals.setdefault(int(payload[at + len(_MARK) :][:6]), []).append(now)

    def connection_lost(self, exc: Exception | None) -> None:
        """Idempotent."""
        self.closed = True
        if not self.first.done():
            self.first.set_result(None)


async def _measure(server: Server, conversation: str, sockets: int, messages: int) -> tuple[list[float], int, int]:
    loop = asyncio.get_running_loop()
    arrivals: dict[int, list[float]] = {}
    path = f"/sockets/events/{conversation}?session_api_key={quote(KEY)}"
    listeners = []
    for _ in range(sockets):
        _, listener = await loop.create_connection(lambda: Listener(path, arrivals), "127.0.0.1", server.port)
        listeners.append(listener)
        await asyncio.wait_for(listener.first, 30)
    kept = sum(not listener.closed for listener in listeners)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    lasts, lost = [], 0
    for number in range(messages):
        text = f"{_MARK.decode()}{number:06d}"
        body = json.dumps({"role": "user", "content": [{"type": "text", "text": text}], "run": False}).encode()
        head = (
            f"POST /api/conversations/{conversation}/events HTTP/1.1\r\nHost: bench\r\nX-Session-API-Key: {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        began = time.perf_counter()
        writer.write(head + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in answer.split(b"\r\n")[0], answer
        size = next(int(line[15:]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(size)
        until = time.perf_counter() + 5
        # Looking costs less here than being told by every arrival.
        while len(arrivals.get(number, [])) < kept and time.perf_counter() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.0005)
        came = arrivals.get(number, [])
        lost += kept - len(came)
        if came:
            lasts.append(max(came) - began)
    writer.close()
    for listener in listeners:
        listener.transport.abort()
    return lasts, kept, lost


def event_to_frame(server: Server, conversation: str, *, sockets: int, messages: int) -> tuple[list[float], int, int]:
    """Seconds from a POST to the frame on the last socket, how many sockets were served, and how many frames lost."""
    return uvloop.run(_measure(server, conversation, sockets, messages))


def work_folder(server: Server, name: str) -> str:
    """A working directory for a conversation of this server."""
    folder: Path = server.folder / "work" / name
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)
