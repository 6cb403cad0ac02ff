"""The load of `bench/proxy.py`.

`python bench/proxy_load.py small|fresh|strange|socket|big|push|up|down|idle|slow|cut PORT ...`.

Prints one JSON object when it is done. `idle` holds its sockets, and `slow` its stalled transfers, until its input
ends.
"""

import asyncio
import base64
import itertools
import json
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvloop
from proxy_servers import BODY, KEY, MEBIBYTE, PREFIX

HEADERS = f"Host: h\r\nX-Session-API-Key: {KEY}\r\nAccept: */*\r\nUser-Agent: b\r\n"
LINE = f"GET {PREFIX}/api/bash/bash_events/search?limit=%d HTTP/1.1\r\n{HEADERS}"
SMALL = (LINE % 1 + "\r\n").encode()
TARGETS = [(LINE % number + "\r\n").encode() for number in range(1, 101)]  #: as clients do: other targets, same lines
PUSH = f"POST {PREFIX}/up HTTP/1.1\r\n{HEADERS}Content-Length: {MEBIBYTE}\r\n\r\n".encode() + b"x" * MEBIBYTE
FRAME = b"\x81\xe4" + bytes(4) + b"x" * 100
ECHO_SIZE = 102


def fresh() -> Iterator[bytes]:
    """Another id with each request, as clients do that are traced."""
    for number in itertools.count():
        yield (LINE % 1 + f"X-Request-Id: {number:032x}\r\n\r\n").encode()


def strange() -> Iterator[bytes]:
    """No head twice, and in a way that a proxy cannot foresee: it has to read each in full."""
    for number in itertools.count():
        yield (LINE % 1 + f"X-Note: request {number}\r\n\r\n").encode()


class Asking(asyncio.Protocol):
    """One request or frame after the other, each when the last was answered."""

    def __init__(self, questions: Iterator[bytes], until: float, times: list[float], opening: bytes = b"") -> None:
        self.questions, self.until, self.times, self.opening = questions, until, times, opening
        self.frames = bool(opening)
        self.over = asyncio.get_running_loop().create_future()
        self.got = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.began = time.perf_counter()
        transport.write(self.opening or next(self.questions))

    def data_received(self, data: bytes) -> None:
        self.got += data
        if self.opening:
            if b"\r\n\r\n" not in self.got:
                return
            assert self.got.startswith(b"HTTP/1.1 101"), self.got[:200]
            self.opening, self.got = b"", b""
        elif self.frames:
            if len(self.got) < ECHO_SIZE:
                return
            self.times.append(time.perf_counter() - self.began)
            self.got = b""
        else:
            if not self.got.endswith(BODY) and not self.got.endswith(b"\r\n0\r\n\r\n"):
                return
            assert self.got.startswith(b"HTTP/1.1 200"), self.got[:200]
            self.times.append(time.perf_counter() - self.began)
            self.got = b""
        self.began = time.perf_counter()
        if self.began < self.until:
            self.transport.write(next(self.questions))
        elif not self.over.done():
            self.over.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(ConnectionError("the proxy hung up"))


def handshake() -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}"
    return f"GET {PREFIX}/ws HTTP/1.1\r\n{HEADERS}{upgrade}\r\n\r\n".encode()


async def ask(port: int, seconds: float, connections: int, kind: str) -> dict[str, float]:
    loop, times = asyncio.get_running_loop(), list[float]()
    until = time.perf_counter() + seconds
    same = {"small": itertools.cycle(TARGETS), "socket": itertools.repeat(FRAME), "push": itertools.repeat(PUSH)}
    every = {**same, "fresh": fresh(), "strange": strange()}[kind]
    asking = []
    for _ in range(connections):
        opening = handshake() if kind == "socket" else b""
        asking.append(
            (await loop.create_connection(lambda o=opening: Asking(every, until, times, o), "127.0.0.1", port))[1]
        )
    await asyncio.gather(*(one.over for one in asking))
    times.sort()
    return {"count": len(times), "rate": len(times) / seconds, "p50_ms": times[len(times) // 2] * 1000}


class Pulling:
    """One MiB after the other, down. The kernel counts the bytes and drops them (MSG_TRUNC): a load that copies them
    fills its processor, which it shares with the upstream, before a proxy fills its own, and it is its rate that would
    be told."""

    question = f"GET {PREFIX}/down?{MEBIBYTE} HTTP/1.1\r\n{HEADERS}\r\n".encode()
    nowhere = bytearray(MEBIBYTE)

    def __init__(self, port: int, until: float) -> None:
        self.until, self.count, self.left, self.got = until, 0, 0, b""
        self.loop = asyncio.get_running_loop()
        self.over = self.loop.create_future()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.loop.add_reader(self.socket, self.read)
        self.socket.send(self.question)

    def read(self) -> None:
        if self.left:
            size = self.socket.recv_into(self.nowhere, self.left, socket.MSG_TRUNC)
            self.left -= size
        else:
            self.got += (some := self.socket.recv(4096))
            size = len(some)
            head, end, body = self.got.partition(b"\r\n\r\n")
            if end:
                assert head.startswith(b"HTTP/1.1 200"), head
                lengths = (one[15:] for one in head.split(b"\r\n") if one.lower().startswith(b"content-length:"))
                self.left, self.got = int(next(lengths)) - len(body), b""
        if not size:
            self.end(ConnectionError("the proxy hung up"))
        elif not self.left and not self.got:
            self.count += 1
            if time.perf_counter() < self.until:
                self.socket.send(self.question)
            else:
                self.end(None)

    def end(self, problem: Exception | None) -> None:
        self.loop.remove_reader(self.socket)
        self.socket.close()
        if problem is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(problem)


async def pull(port: int, seconds: float, connections: int) -> dict[str, float]:
    until = time.perf_counter() + seconds
    asking = [Pulling(port, until) for _ in range(connections)]
    await asyncio.gather(*(one.over for one in asking))
    count = sum(one.count for one in asking)
    return {"count": count, "rate": count / seconds}


async def up(port: int, mebibytes: int) -> dict[str, float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {PREFIX}/up HTTP/1.1\r\n{HEADERS}Content-Length: {mebibytes * MEBIBYTE}\r\n\r\n".encode())
    for _ in range(mebibytes):
        writer.write(b"x" * MEBIBYTE)
        await writer.drain()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    return {"count": mebibytes}


async def down(port: int, mebibytes: int) -> dict[str, float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MEBIBYTE)
    writer.write(f"GET {PREFIX}/down?{mebibytes * MEBIBYTE} HTTP/1.1\r\n{HEADERS}\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    left = mebibytes * MEBIBYTE
    while left:
        left -= len(piece := await reader.read(MEBIBYTE))
        assert piece
    return {"count": mebibytes}


async def idle(port: int, count: int) -> dict[str, float]:
    held = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(handshake())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        held.append(writer)
    return await _until_told(len(held))


async def slow(port: int, count: int) -> dict[str, float]:
    """Half of them read nothing of a large answer, the others send a byte of a large body now and then."""
    held = []
    for number in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        if number % 2:
            writer.write(f"POST {PREFIX}/up HTTP/1.1\r\n{HEADERS}Content-Length: 100000000\r\n\r\nx".encode())
        else:
            writer.transport.pause_reading()
            writer.write(f"GET {PREFIX}/down?100000000 HTTP/1.1\r\n{HEADERS}\r\n".encode())
        held.append(writer)
    for _ in range(5):
        await asyncio.sleep(0.5)
        for writer in held[1::2]:
            writer.write(b"x")
    return await _until_told(len(held))


async def _until_told(count: int) -> dict[str, float]:
    print("held", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    return {"count": count}


async def cut(port: int, count: int) -> dict[str, float]:
    """Connections that are reset, each somewhere between its first byte and its answer."""
    choice, done = random.Random(1), 0
    while done < count:
        writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(50)]
        for writer in writers:
            writer.write(SMALL[: choice.randrange(1, len(SMALL) + 1)] if choice.random() < 0.5 else SMALL)
        await asyncio.sleep(0)
        for writer in writers:
            writer.transport.abort()
        done += len(writers)
    return {"count": done}


def main() -> None:
    name, port, *rest = sys.argv[1:]
    numbers = [float(one) for one in rest]
    match name:
        case "small" | "fresh" | "strange" | "socket" | "push":
            work = ask(int(port), numbers[0], int(numbers[1]), name)
        case "big":
            work = pull(int(port), numbers[0], int(numbers[1]))
        case _:
            work = {"up": up, "down": down, "idle": idle, "slow": slow, "cut": cut}[name](int(port), int(numbers[0]))
    print(json.dumps(uvloop.run(work)))


if __name__ == "__main__":
    main()
