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
