"""The proxies that `bench/proxy.py` compares, and the upstream that all of them stand in front of.

Each is a process: `python bench/proxy_servers.py upstream|front|floor PORT [UPSTREAM_PORT]`.
"""

import asyncio
import base64
import hashlib
import shutil
import socket
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from pathlib import Path

import uvloop

KEY = "bench-session-key"
RUNTIME = "5e2f2c0e-3a52-4a3e-9a0b-0d3d3b7a1c11"
PREFIX = f"/runtimes/{RUNTIME}"
BODY = b'{"items":[],"next_page_id":null}'
MEBIBYTE = 1 << 20
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


class Upstream(asyncio.Protocol):
    """The cheapest runtime there is: a small answer, `/down?BYTES`, uploads that are counted, sockets that echo."""

    @property
    def small(self) -> bytes:
        """With the date in it, as servers say it."""
        lines = b"content-type: application/json\r\ncontent-length: %d" % len(BODY)
        return b"HTTP/1.1 200 OK\r\ndate: %b\r\n%b\r\n\r\n%b" % (_date(int(time.time())), lines, BODY)

    block = b"x" * MEBIBYTE

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""
        self.upload = 0
        self.socket = False
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.task: asyncio.Task[None] | None = None

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def data_received(self, data: bytes) -> None:
        if self.socket:
            self._echo(data)
        elif self.upload:
            self._take(len(data))
        elif data.startswith(b"GET /api") and data.endswith(b"\r\n\r\n"):
            self.transport.write(self.small * data.count(b"\r\n\r\n"))
        else:
            self._head(data)

    def _head(self, data: bytes) -> None:
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        self.buffer = b""
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if b"sec-websocket-key" in lines:
            key = next(line[19:] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
            accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
            start = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            self.transport.write(start + b"sec-websocket-accept: " + accept + b"\r\n\r\n")
            self.socket = True
        elif head.startswith(b"POST"):
            self.upload = int(lines[b"content-length"])
            self._take(len(rest))
        elif b"/down?" in head:
            size = int(head.split(b"/down?", 1)[1].split(b" ", 1)[0])
            self.task = asyncio.get_running_loop().create_task(self._down(size))
        else:
            self.transport.write(self.small)

    def _take(self, size: int) -> None:
        self.upload -= size
        if self.upload <= 0:
            self.transport.write(self.small)

    def _echo(self, data: bytes) -> None:
        """Frames of at most 125 bytes, masked with zeros."""
        self.buffer += data
        out = []
        while len(self.buffer) >= 6 and len(self.buffer) >= 6 + (self.buffer[1] & 0x7F):
            size = self.buffer[1] & 0x7F
            out.append(bytes((self.buffer[0], size)) + self.buffer[6 : 6 + size])
            self.buffer = self.buffer[6 + size :]
        self.transport.write(b"".join(out))

    async def _down(self, size: int) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while size and not self.transport.is_closing():
            await self.may_write.wait()
            if self.transport.is_closing():
                return
            self.transport.write(self.block[:size])
            size -= min(size, MEBIBYTE)

    def connection_lost(self, exc: Exception | None) -> None:
        self.may_write.set()


async def upstream(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def front(port: int, behind: int) -> None:
    """The front as `nestor up` has it: a route cache, activity, and uvicorn around it; without a store."""
    import uvicorn
    from fastapi import FastAPI

    from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
    from orchestrator.domain.secrets import SecretText
    from orchestrator.proxy.cache import RouteCache
    from orchestrator.proxy.context import FrontContext
    from orchestrator.proxy.limits import FrontLimits
    from orchestrator.proxy.protocol import front_protocol
    from orchestrator.proxy.route import Found, Route

    hashed = hashlib.sha256(KEY.encode()).hexdigest()
    place = (TenantId("t"), ConversationId("c"), 1, "127.0.0.1", behind, hashed, SecretText("inner"))

    async def load(runtime: RuntimeId) -> Found:
        return Route(runtime, *place)

    used: set[tuple[str, str]] = set()
    cache = RouteCache(load)
    context = FrontContext(
        cache.resolve,
        lambda route: used.add((route.tenant, route.conversation)),
        cache.invalidate,
        known=cache.known,
        limits=FrontLimits(connections_per_runtime=20_000),
    )
    config = uvicorn.Config(FastAPI(), port=port, http=front_protocol(context), log_config=None, lifespan="off")
    # Shared, as the workers of `nestor up --workers` share their port.
    with socket.create_server(("127.0.0.1", port), backlog=4096, reuse_port=True) as listener:
        await uvicorn.Server(config).serve(sockets=[listener])


async def floor(port: int, behind: int) -> None:
    """What a proxy is when it is written as a route."""
    import httpx
    import uvicorn
    from fastapi import FastAPI, Request, Response

    app, client = FastAPI(), httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=100))

    @app.get("/runtimes/{runtime}/{rest:path}")
    async def proxied(runtime: str, rest: str, request: Request) -> Response:
        url = f"http://127.0.0.1:{behind}/{rest}?{request.url.query}"
        answer = await client.get(url, headers={"x-session-api-key": "inner"})
        return Response(answer.content, answer.status_code, media_type="application/json")

    await uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off")).serve()


def nginx_command(folder: Path, port: int, behind: int) -> list[str]:
    """nginx with one worker and its defaults; bodies go through its buffers."""
    config, places = folder / f"nginx-{port}.conf", ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in places)
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid-{port}; error_log {folder}/error.log; user root;\n"
        "worker_rlimit_nofile 20000; events { worker_connections 10000; }\n"
        f"http {{ access_log off; {temporary} client_max_body_size 0; \n"
        "map $http_upgrade $up { default upgrade; '' ''; }\n"
        f"upstream u {{ server 127.0.0.1:{behind}; keepalive 64; keepalive_requests 1000000; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; keepalive_requests 1000000; location {PREFIX}/ {{\n"
        "proxy_pass http://u/; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;\n"
        "proxy_set_header Connection $up; proxy_read_timeout 1h; } } }\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]


def commands(folder: Path, behind: int, chp: str) -> dict[str, Callable[[int], list[str]]]:
    """How each proxy that this machine has is started on a port."""
    from servers import free_port  # not on top: what it imports would count as memory of a proxy

    me = [sys.executable, __file__]
    found: dict[str, Callable[[int], list[str]]] = {"front": lambda port: [*me, "front", str(port), str(behind)]}
    if shutil.which("nginx"):
        found["nginx"] = lambda port: nginx_command(folder, port, behind)
    if chp:
        options = ["--ip", "127.0.0.1", "--log-level", "error", "--no-include-prefix", "--api-port", f"{free_port()}"]
        target = ["--default-target", f"http://127.0.0.1:{behind}", *options]
        found["configurable-http-proxy"] = lambda port: ["node", chp, "--port", str(port), *target]
    found["FastAPI + httpx"] = lambda port: [*me, "floor", str(port), str(behind)]
    return found


if __name__ == "__main__":
    uvloop.run({"upstream": upstream, "front": front, "floor": floor}[sys.argv[1]](*map(int, sys.argv[2:])))
