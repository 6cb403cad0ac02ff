"""A real front with real runtimes behind it: uvicorn on uvloop, sockets on loopback, nothing replaced."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request, WebSocket

from orchestrator.app.nginx_child import Nginx, claimed
from orchestrator.app.nginx_plan import Plan, run_folder
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import SecretText
from orchestrator.proxy import decision
from orchestrator.proxy.behind import behind_protocol
from orchestrator.proxy.cache import RouteCache
from orchestrator.proxy.context import FrontContext
from orchestrator.proxy.limits import FrontLimits
from orchestrator.proxy.protocol import front_protocol
from orchestrator.proxy.route import Found, Route

SESSION_KEY = "session-key-of-the-client"
INNER_KEY = "inner-key-of-the-runtime"
DOMAIN = "runtimes.example"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def loopback() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def api() -> FastAPI:
    app = FastAPI()

    @app.get("/api/v2/hello")
    async def hello(request: Request) -> dict[str, Any]:
        return {"app": "nestor", "headers": [[k.decode(), v.decode()] for k, v in request.scope["headers"]]}

    @app.post("/api/v2/echo")
    async def echo(request: Request) -> dict[str, Any]:
        return {"size": len(await request.body())}

    @app.websocket("/api/v2/socket")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("api:" + await websocket.receive_text())
        await websocket.close()

    return app


class Rig:
    """The front, the table that `resolve` reads, and whatever upstreams a test starts."""

    def __init__(self, data_plane: str = "embedded") -> None:
        self.data_plane = data_plane
        self.table: dict[RuntimeId, Found] = {}
        self.touched: list[RuntimeId] = []
        self.invalidated: list[RuntimeId] = []
        self.loads = 0
        self._ends: list[Callable[[], Awaitable[None]]] = []
        self.session_key = SESSION_KEY
        self.inner_key = INNER_KEY
        self.domain = DOMAIN
        self.app: Any = None  #: in place of the small API of `api`

    async def load(self, runtime: RuntimeId) -> Found:
        self.loads += 1
        return self.table.get(runtime)

    async def open(self, limits: FrontLimits | None = None, **options: Any) -> None:
        self.cache = RouteCache(self.load)
        self.context = FrontContext(
            resolve=self.cache.resolve,
            known=self.cache.known,
            touch=lambda route: self.touched.append(route.runtime),
            invalidate=self._invalidate,
            domain=DOMAIN,
            limits=limits or FrontLimits(),
            **options,
        )
        self.cache.subscribe(self.context.recheck)
        if self.data_plane == "nginx":
            await self._open_behind_nginx()
        else:
            self.server, self.port = await self.serve(self.app or api(), http=front_protocol(self.context), grace=5)
        self.origin = f"http://127.0.0.1:{self.port}"
        self._ends.insert(0, self.context.close)

    async def _open_behind_nginx(self) -> None:
        folder, listening = Path(tempfile.mkdtemp(prefix="nestor-rig-")), loopback()
        self.plan = Plan(folder, run_folder(folder), DOMAIN, workers=1, drain_seconds=1, limits=self.context.limits)
        self.context.limits = replace(self.context.limits, connections_per_address=0)
        claim = claimed(self.plan)
        await claim.__aenter__()
        deciding = await decision.listen(self.context, str(self.plan.decision))
        self.server, _ = await self.serve(
            self.app or api(), http=behind_protocol(self.context), grace=5, uds=str(self.plan.front)
        )
        self.nginx = Nginx(self.plan, listening)
        self.port = listening.getsockname()[1]

        async def end() -> None:
            await self.nginx.stop()
            deciding.close()
            listening.close()
            await claim.__aexit__(None, None, None)
            for one in (folder, self.plan.run):
                shutil.rmtree(one, ignore_errors=True)

        self._ends.insert(0, end)
        await self.nginx.start()

    def _invalidate(self, runtime: RuntimeId) -> None:
        self.invalidated.append(runtime)
        self.cache.invalidate(runtime)

    async def serve(self, app: Any, *, http: Any = "httptools", grace: int = 1, **tls: Any) -> tuple[QuietServer, int]:
        config = uvicorn.Config(
            app,
            http=http,
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=grace,
            **tls,
        )
        server, bound = QuietServer(config), None if config.uds else loopback()
        task = asyncio.create_task(server.serve(sockets=[bound] if bound else None))
        while not server.started:
            await asyncio.sleep(0.005)

        async def end() -> None:
            server.should_exit = True
            await task

        self._ends.append(end)
        return server, bound.getsockname()[1] if bound else 0

    async def raw(self, serve: Serve) -> int:
        """An upstream that a test writes byte by byte; its port."""
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await serve(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()
                tasks.discard(task)

        server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)

        async def end() -> None:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()

        self._ends.append(end)
        return int(server.sockets[0].getsockname()[1])

    def publish(self, port: int, *, generation: int = 1, runtime: str | None = None, key: str = SESSION_KEY) -> Route:
        """Route a runtime to `port`."""
        route = Route(
            runtime=RuntimeId(runtime or str(uuid.uuid4())),
            tenant=TenantId(str(uuid.uuid4())),
            conversation=ConversationId(str(uuid.uuid4())),
            generation=generation,
            host="127.0.0.1",
            port=port,
            session_key_hash=hashlib.sha256(key.encode()).hexdigest(),
            inner_key=SecretText(INNER_KEY),
        )
        self.table[route.runtime] = route
        return route

    def republish(self, route: Route, **changes: Any) -> Route:
        changed = replace(route, **changes)
        self.table[route.runtime] = changed
        return changed

    async def talk(self, data: bytes, *, then: bytes = b"", until: bytes | None = None, deadline: float = 20) -> bytes:
        """Send bytes to the front, and `then` in a later packet; what it answers until `until` arrived or it closed the
        connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        if then:
            await asyncio.sleep(0.02)
            writer.write(then)
        got = b""
        try:
            async with asyncio.timeout(deadline):
                while until is None or until not in got:
                    piece = await reader.read(65536)
                    if not piece:
                        break
                    got += piece
        finally:
            writer.close()
        return got

    def memory(self) -> int:
        """Bytes that the front has resident: this process, and nginx's."""
        pids = ["self"]
        if self.data_plane == "nginx":
            pids += Path(f"/proc/{self.nginx.pid}/task/{self.nginx.pid}/children").read_text().split()
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def eventually(self, condition: Callable[[], bool], *, deadline: float = 5) -> None:
        async with asyncio.timeout(deadline):
            while not condition():
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for end in self._ends:
            await end()


def head_of(request: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The first line, and the headers by their names in lower case."""
    first, *lines = request.removesuffix(b"\r\n\r\n").split(b"\r\n")
    named = (line.split(b": ", 1) for line in lines)
    return first, {name.lower(): value for name, value in named}


async def get(rig: Rig, route: Route, path: str = "/x", **headers: str) -> httpx.Response:
    """What a client with the right key is answered, on a connection of its own."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(
            f"{rig.origin}/runtimes/{route.runtime}{path}",
            headers={"X-Session-API-Key": rig.session_key, **headers},
        )


def paths(rig: Rig, port: int) -> list[tuple[str, str]]:
    """A path of the API and one of a runtime at that port, each with the line of its key."""
    key = f"X-Session-API-Key: {rig.session_key}\r\n"
    return [("/api/v2/echo", key), (f"/runtimes/{rig.publish(port).runtime}/x", key)]
