"""Links to a port and to files of a runtime, through the whole of an orchestrator and a runtime of its own process."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
import websockets
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_sockets

from orchestrator.demo.orchestrator_process import RunningOrchestrator, orchestrator_process

pytestmark = pytest.mark.anyio

DOMAIN = "runtimes.example"
MODEL = {"agent_settings": {"llm": {"model": "openai/none", "api_key": "sk-none"}}}
PAGE = b"<script>1</script>"


class Page:
    """What an agent may serve at a port: it writes down what it is told, and answers what a browser should not get."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        named = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        body = await reader.readexactly(int(named.get(b"content-length", b"0"))) or PAGE
        status = b"401 No" if b" /private " in head else b"200 OK"
        writer.write(
            b"HTTP/1.1 %b\r\ncontent-type: text/html\r\nset-cookie: a=b; Domain=example\r\ncontent-length: %d\r\n"
            b"referrer-policy: unsafe-url\r\nconnection: close\r\n\r\n%b" % (status, len(body), body)
        )
        await writer.drain()
        writer.close()


async def echo(socket: ServerConnection) -> None:
    async for frame in socket:
        await socket.send(frame)


@asynccontextmanager
async def page() -> AsyncIterator[Page]:
    made = Page()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


@asynccontextmanager
async def nestor(data_plane: str) -> AsyncIterator[RunningOrchestrator]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        settings = {"NESTOR_DOMAIN": DOMAIN, "NESTOR_DATA_PLANE": data_plane}
        async with orchestrator_process(Path(folder), driver="process", settings=settings) as running:
            yield running


class Client:
    """Of one tenant's key; by links it goes without any."""

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self.http, self.key = http, key

    async def call(self, method: str, path: str, *, status: int, key: str | None = None, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        answer = await self.http.request(method, f"/api/v2{path}", headers=headers, **more)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def by(self, link: Mapping[str, Any], path: str = "/", method: str = "GET", **more: Any) -> httpx.Response:
        """In its own host."""
        host = urlsplit(link["url"]).netloc
        return await self.http.request(method, path, headers={"Host": host} | more.pop("headers", {}), **more)

    async def until_gone(self, link: Mapping[str, Any]) -> httpx.Response:
        with anyio.fail_after(60):
            while (answer := await self.by(link)).status_code != 404:
                await anyio.sleep(0.05)
        return answer


@asynccontextmanager
async def tenant(running: RunningOrchestrator) -> AsyncIterator[Client]:
    async with httpx.AsyncClient(base_url=running.url, timeout=120, trust_env=False) as http:
        client = Client(http, running.operator_key.open())
        made = await client.call("POST", "/tenants", status=201, json={"name": "acme"})
        key = await client.call("POST", f"/tenants/{made['id']}/api-keys", status=201, json={"name": "k"})
        client.key = key["key"]
        await client.call("PATCH", "/settings", status=200, json=MODEL)
        yield client


def unlike(answer: httpx.Response) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name not in ("request_id", "instance")}


@pytest.mark.parametrize("data_plane", ["embedded", "nginx"])
async def test_a_link_opens_what_it_names_until_it_is_taken_back(data_plane: str) -> None:
    async with (
        nestor(data_plane) as running,
        page() as served,
        serve_sockets(echo, "127.0.0.1", 0) as sockets,
        tenant(running) as c,
    ):
        made = await c.call(
            "POST",
            "/conversations",
            status=200,
            params={"wait": "ready", "timeout": 120},
            json={},
        )
        base = f"/conversations/{made['id']}"
        link = await c.call("POST", f"{base}/links", status=201, json={"port": served.port, "expires_in": 600})
        host = urlsplit(link["url"]).netloc
        token = host.partition(".")[0].removeprefix("l-")
        assert host.endswith(DOMAIN) or f"{DOMAIN}:" in host

        # the port, in a host of its own, without anything of the caller's
        credentials = {"Cookie": "main=1", "Authorization": "Bearer x", "X-Session-API-Key": "y", "X-Fence": "1"}
        answer = await c.by(link, "/a%2fb?c=%64", headers=credentials)
        assert (answer.status_code, answer.content) == (200, PAGE)
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in answer.headers
        [head] = served.heads
        assert head.startswith(b"GET /a%2fb?c=%64 HTTP/1.1\r\n")
        told = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line}
        assert not told & {b"cookie", b"authorization", b"x-session-api-key", b"x-fence", b"x-generation"}
        assert b"host: localhost:%d" % served.port in head.lower()
        posted = await c.by(link, "/form", "POST", content=b"x" * 100_000)
        assert posted.content == b"x" * 100_000
        assert (await c.by(link, "/private")).status_code == 401  # its own answer, and no sign of another runtime

        # the same in a path of the main origin: an opaque origin
        confined = await c.http.get(f"/links/{token}/index.html")
        assert (confined.status_code, confined.content) == (200, PAGE)
        assert confined.headers["content-security-policy"].startswith("sandbox ")
        assert "allow-same-origin" not in confined.headers["content-security-policy"]
        assert confined.headers["x-content-type-options"] == "nosniff"

        # nothing else
        served.heads.clear()
        outward = await c.by(link, "/../../api/conversations")
        assert (outward.status_code, outward.content) == (200, PAGE)  # the page's own paths, whatever they look like
        assert served.heads[0].startswith(b"GET /../../api/conversations") or served.heads[0].startswith(b"GET /api/")
        wrong = f"{token[:-4]}aaaa"
        other = "a" * len(token)
        answers = [await c.http.get(f"/links/{text}/") for text in (wrong, other, "short")]
        assert [one.status_code for one in answers] == [404, 404, 404]
        assert unlike(answers[0]) == unlike(answers[1]) == unlike(answers[2])

        # sockets, ended with their link
        talk = await c.call("POST", f"{base}/links", status=201, json={"port": sockets.sockets[0].getsockname()[1]})
        at = urlsplit(running.url).netloc
        path = urlsplit(talk["url"]).netloc.partition(".")[0].removeprefix("l-")
        async with websockets.connect(f"ws://{at}/links/{path}/s", origin="null", proxy=None) as socket:  # type: ignore[arg-type]
            await socket.send("hello")
            assert await socket.recv() == "hello"
            await c.call("DELETE", f"{base}/links/{talk['id']}", status=204)
            with anyio.fail_after(60):
                await socket.wait_closed()
        await c.call("DELETE", f"{base}/links/{talk['id']}", status=404)

        # files, to be read only
        for name in ("site/index.html", "other.txt"):
            put = await c.http.put(
                f"/api/v2{base}/files/{name}", content=PAGE, headers={"Authorization": f"Bearer {c.key}"}
            )
            assert put.status_code == 201
        site = await c.call("POST", f"{base}/links", status=201, json={"path": "site"})
        read = await c.by(site, "/index.html")
        assert (read.status_code, read.content) == (200, PAGE)
        assert read.headers["content-security-policy"] == "sandbox"
        assert (await c.by(site, "/%2e%2e/other.txt")).status_code == 400
        assert (await c.by(site, "/index.html", "PUT", content=b"x")).status_code == 404
        assert (await c.by(site, "/index.html", "DELETE")).status_code == 404

        # listed without addresses; the agent server's own port is not linked to
        listed = await c.call("GET", f"{base}/links", status=200)
        assert [(one["id"], one["port"], one["path"]) for one in listed["items"]] == [
            (link["id"], served.port, None),
            (site["id"], None, "site"),
        ]
        assert token not in str(listed)
        for body in ({}, {"port": 1, "path": "x"}, {"port": 0}, {"path": "../x"}, {"port": 1, "expires_in": 0}):
            await c.call("POST", f"{base}/links", status=422, json=body)

        # taken back, expired, of an earlier generation
        await c.call("DELETE", f"{base}/links/{link['id']}", status=204)
        assert unlike(await c.until_gone(link)) == unlike(answers[0])
        brief = await c.call("POST", f"{base}/links", status=201, json={"port": served.port, "expires_in": 1})
        await c.until_gone(brief)
        lasting = await c.call("POST", f"{base}/links", status=201, json={"port": served.port})
        assert (await c.by(lasting)).status_code == 200
        await c.call("POST", f"{base}/stop", status=202)
        await c.until_gone(lasting)
        with anyio.fail_after(60):
            while (await c.call("GET", base, status=200))["phase"] != "stopped":
                await anyio.sleep(0.05)
        await c.call("POST", f"{base}/links", status=409, json={"port": served.port})
        await c.call("POST", f"{base}/start", status=200, params={"wait": "ready", "timeout": 120})
        assert (await c.by(lasting)).status_code == 404
        assert (await c.call("GET", f"{base}/links", status=200))["items"] == []

        await of_bare_runtime(c, served)


async def of_bare_runtime(c: Client, served: Page) -> None:
    """To a port, and to files where its commands begin; taken back it is as unknown."""
    ready = {"wait": "ready", "timeout": 120}
    box = await c.call("POST", "/runtimes", status=200, params=ready, json={})
    base = f"/runtimes/{box['id']}/links"
    assert (await c.call("POST", base, status=422, json={"path": "../x"}))["field"] == "path"
    command = {"command": "mkdir site && printf '<script>1</script>' > site/index.html && echo no > other.txt"}
    done = await c.http.post(
        "/api/bash/execute_bash_command", headers={"X-Session-API-Key": box["session_key"]}, json=command
    )
    assert (done.status_code, done.json()["exit_code"]) == (200, 0), done.text
    site = await c.call("POST", base, status=201, json={"path": "site"})
    read = await c.by(site, "/index.html")
    assert (read.status_code, read.content) == (200, PAGE)
    assert read.headers["content-security-policy"] == "sandbox"
    assert [one["name"] for one in (await c.by(site)).json()["items"]] == ["index.html"]
    assert (await c.by(site, "/%2e%2e/other.txt")).status_code == 400
    assert (await c.by(site, "/index.html", "DELETE")).status_code == 404
    await c.call("DELETE", f"{base}/{site['id']}", status=204)
    await c.until_gone(site)
    link = await c.call("POST", base, status=201, json={"port": served.port})
    answer = await c.by(link)
    assert (answer.status_code, answer.content) == (200, PAGE)
    assert [one["id"] for one in (await c.call("GET", base, status=200))["items"]] == [link["id"]]
    await c.call("DELETE", f"{base}/{link['id']}", status=204)
    await c.until_gone(link)
    await c.call("DELETE", f"/conversations/{box['id']}/links/{link['id']}", status=404)
