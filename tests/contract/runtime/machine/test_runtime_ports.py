"""The way to servers beside the agent server: who may go it, and where it does not lead."""

import asyncio
from pathlib import Path

import httpx
import pytest
import websockets

from tests.support.runtimes import KEY, runtime_at

pytestmark = pytest.mark.anyio


async def test_only_the_key_opens_a_port_and_never_the_servers_own(tmp_path: Path) -> None:
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = head.replace(KEY.encode(), b"KEY!")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with runtime_at(tmp_path) as runtime, server:
        own = int(runtime.url.rpartition(":")[2])
        async with httpx.AsyncClient(base_url=runtime.url, trust_env=False) as stranger:
            assert (await stranger.get(f"/api/ports/{port}/")).status_code == 401
        there = await runtime.http.get(f"/api/ports/{port}/a/%2e%2e/b?x=1", headers={"Cookie": "a=b"})
        assert there.status_code == 200
        assert there.text.startswith("GET /a/%2e%2e/b?x=1 HTTP/1.1\r\n")
        assert "KEY!" not in there.text
        assert "cookie" not in there.text.lower()
        assert (await runtime.http.get(f"/api/ports/{own}/alive")).status_code == 403
        assert (await runtime.http.get("/api/ports/1/")).status_code == 502
        assert (await runtime.http.get("/api/ports/65536/")).status_code == 422
        for headers, at in (({}, port), ({"X-Session-API-Key": KEY}, own), ({"X-Session-API-Key": KEY}, 1)):
            with pytest.raises(websockets.InvalidStatus):
                await websockets.connect(
                    f"{runtime.url.replace('http', 'ws', 1)}/api/ports/{at}/", additional_headers=headers, proxy=None
                )


async def test_heads_pass_as_they_are_and_redirects_to_the_port_itself_as_paths(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        target = head.split(b" ")[1]
        to = b"http://localhost:%d" % port if b"own" in target else b"http://elsewhere.example"
        writer.write(
            b"HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: %b/next?a=b\r\nx-name: \xe6\x97\xa5 \xff\r\n"
            b"content-length: 0\r\n\r\n" % to
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with runtime_at(tmp_path) as runtime, server:
        own = await runtime.http.get(f"/api/ports/{port}/own%0Aline", headers=[(b"X-Name", b"\xc3\xa9 \xff")])
        assert (own.status_code, own.headers["location"]) == (302, "/next?a=b")
        assert (b"x-name", b"\xe6\x97\xa5 \xff") in [(name.lower(), value) for name, value in own.headers.raw]
        assert seen[0].startswith(b"GET /own%0Aline HTTP/1.1\r\n")
        assert b"\xc3\xa9 \xff" in seen[0]
        other = await runtime.http.get(f"/api/ports/{port}/other")
        assert other.headers["location"] == "http://elsewhere.example/next?a=b"


async def test_a_path_that_ends_in_a_line_end_is_no_route(tmp_path: Path) -> None:
    async with runtime_at(tmp_path) as runtime:
        for path in ("/api/init%0A", "/api/settings%0A", "/health%0A", "/server_info%0a"):
            for method in ("GET", "POST"):
                answer = await runtime.http.request(method, path, json={})
                assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"}), (method, path)
