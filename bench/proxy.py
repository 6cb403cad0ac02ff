"""What a proxied request costs: the front, nginx where it is installed, and FastAPI with httpx, in one run.

    python bench/proxy.py [--seconds 3] [--rounds 2] [--connections 32]

Each proxy is a process of its own in front of the same upstream; the load comes from a third process. The column to
trust is CPU time per request of the proxy; rates depend on what else the machine does. Ratios are against nginx, or
against the front where there is no nginx.
"""

import argparse
import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

KEY = "bench-session-key"
RUNTIME = "5e2f2c0e-3a52-4a3e-9a0b-0d3d3b7a1c11"
PATH = f"/runtimes/{RUNTIME}/api/bash/bash_events/search?limit=1"
BODY = b'{"items":[],"next_page_id":null}'
TICK = os.sysconf("SC_CLK_TCK")


class Upstream(asyncio.Protocol):
    """The cheapest runtime there is."""

    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer * data.count(b"\r\n\r\n"))


async def upstream(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


async def front(port: int, behind: int) -> None:
    import uvicorn
    from fastapi import FastAPI

    from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
    from orchestrator.domain.secrets import SecretText
    from orchestrator.proxy.cache import RouteCache
    from orchestrator.proxy.context import FrontContext
    from orchestrator.proxy.protocol import front_protocol
    from orchestrator.proxy.route import Route

    hashed = hashlib.sha256(KEY.encode()).hexdigest()
    place = (TenantId("t"), ConversationId("c"), 1, "127.0.0.1", behind, hashed, SecretText("inner"))
    cache = RouteCache(lambda runtime: _found(Route(runtime, *place)))
    context = FrontContext(cache.resolve, lambda _: None, cache.invalidate, known=cache.known)
    assert await cache.resolve(RuntimeId(RUNTIME)) is not None
    protocol = front_protocol(context)
    await uvicorn.Server(uvicorn.Config(FastAPI(), port=port, http=protocol, log_config=None, lifespan="off")).serve()


async def _found(route: object) -> object:
    return route


async def floor(port: int, behind: int) -> None:
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


async def load(port: int, seconds: float, connections: int) -> None:
    """Print how many requests were answered in `seconds`, and the median latency in milliseconds."""
    request = (
        f"GET {PATH} HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {KEY}\r\nAccept: */*\r\nUser-Agent: b\r\n\r\n".encode()
    )
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(len(BODY))
            times.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    print(len(times), sorted(times)[len(times) // 2] * 1000)


def nginx_command(folder: Path, port: int, behind: int) -> list[str]:
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; upstream u {{ server 127.0.0.1:{behind}; keepalive 64; }}\n"
        f"server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000; location /runtimes/{RUNTIME}/ {{\n"
        'proxy_pass http://u/; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; } } }\n'
    )
    return ["nginx", "-p", str(folder), "-c", str(config)]


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])


def measure(arguments: argparse.Namespace) -> None:
    behind, me = free_port(), [sys.executable, __file__]
    with tempfile.TemporaryDirectory() as folder, running([*me, "upstream", str(behind)], behind):
        commands = {"front": lambda port: [*me, "front", str(port), str(behind)]}
        commands["FastAPI + httpx"] = lambda port: [*me, "floor", str(port), str(behind)]
        if shutil.which("nginx"):
            commands["nginx"] = lambda port: nginx_command(Path(folder), port, behind)
        else:
            print("nginx is not installed: ratios are against the front")
        best: dict[str, tuple[float, float, float]] = {}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                port = free_port()
                with running(command(port), port) as pid:
                    shot = [*me, "load", str(port), str(arguments.seconds), str(arguments.connections)]
                    subprocess.run([*shot[:-2], "0.3", "2"], check=True, capture_output=True)
                    before = cpu_seconds(pid)
                    count, median = subprocess.run(shot, check=True, capture_output=True, text=True).stdout.split()
                    spent = (cpu_seconds(pid) - before) / int(count) * 1e6
                best[name] = min(
                    best.get(name, (float("inf"), 0.0, 0.0)), (spent, int(count) / arguments.seconds, float(median))
                )
    unit = best["nginx" if "nginx" in best else "front"][0]
    print(f"{'':18}{'CPU us/request':>16}{'ratio':>8}{'requests/s':>12}{'p50 ms':>9}")
    for name, (spent, rate, median_ms) in sorted(best.items(), key=lambda item: item[1]):
        print(f"{name:18}{spent:16.0f}{spent / unit:8.1f}{rate:12.0f}{median_ms:9.2f}")


def main() -> None:
    parts = {"upstream": upstream, "front": front, "floor": floor}
    if len(sys.argv) > 1 and sys.argv[1] in parts:
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(parts[sys.argv[1]](*map(int, sys.argv[2:])))
    elif sys.argv[1:2] == ["load"]:
        uvloop.run(load(int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--seconds", type=float, default=3)
        parser.add_argument("--rounds", type=int, default=2)
        parser.add_argument("--connections", type=int, default=32)
        measure(parser.parse_args())


if __name__ == "__main__":
    main()
