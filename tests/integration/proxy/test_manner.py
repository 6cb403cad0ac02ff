"""The manner of the embedded front where another data plane keeps the same promise in another way: what it says, which
refusal comes first, what it counts. The promises themselves are tested of each plane in the files beside this one.
"""

import asyncio
import re

import pytest
from support.front_rig import get, paths

from orchestrator.domain.ids import TenantId
from orchestrator.proxy.limits import FrontLimits

pytestmark = pytest.mark.anyio

API = "/api/v2/echo"
STATUS = re.compile(rb"HTTP/1\.1 \d\d\d ")


async def test_runtimes_of_one_tenant_have_a_bounded_number_of_connections_together(bare_rig):
    """Those that carry nothing make room, those that do stay, and other tenants notice nothing."""
    rig = bare_rig
    await rig.open(FrontLimits(connections_per_tenant=2))
    go_on = asyncio.Event()

    async def serve(reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/held" in head:
                await go_on.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    port = await rig.raw(serve)
    other = rig.publish(port)
    mine = [rig.republish(rig.publish(port), tenant=TenantId("one")) for _ in range(4)]
    for route in mine:  # each leaves a connection for the next request
        assert (await get(rig, route)).status_code == 200
    assert len(rig.context.upstreams.all_open()) == 2
    held = [asyncio.create_task(get(rig, route, "/held")) for route in mine[:2]]
    await rig.eventually(lambda: len(rig.context.upstreams.in_use()) == 2, deadline=30)
    refused = await get(rig, mine[2])
    assert refused.status_code == 503
    assert "this tenant" in refused.json()["detail"]
    assert (await get(rig, other)).status_code == 200
    go_on.set()
    assert {(await one).status_code for one in held} == {200}
    assert (await get(rig, mine[2])).status_code == 200
    for user in rig.context.upstreams.all_open():
        user.discard()
    assert not rig.context.upstreams._of_tenant


async def test_another_generation_never_gets_an_old_connection(rig, recorder):
    route = rig.publish(recorder["port"])
    await get(rig, route)
    rig.republish(route, generation=2)
    rig.cache.invalidate(route.runtime)
    await get(rig, route)
    assert recorder["connections"] == 2


async def test_an_early_refusal_of_an_upload_reaches_the_client(rig):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await writer.drain()
        await reader.read(1)

    route = rig.publish(await rig.raw(serve))
    head = (
        f"POST /runtimes/{route.runtime}/ HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n"
        "Content-Length: 50000000\r\n\r\n"
    )
    got = await rig.talk(head.encode() + b"x" * 2_000_000)
    assert got.startswith(b"HTTP/1.1 413 Too Large\r\n")
    assert b"connection: close" in got
    assert got.endswith(b"big")


async def test_trailers_reach_nobody(rig):
    seen = asyncio.Queue()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        seen.put_nowait(await reader.readuntil(b"0\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    route = rig.publish(await rig.raw(serve))
    body = "3\r\nabc\r\n0\r\nX-Session-API-Key: t\r\nHost: t\r\n\r\n"
    key = f"X-Session-API-Key: {rig.session_key}\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = await rig.talk(f"POST /runtimes/{route.runtime}/ HTTP/1.1\r\nHost: h\r\n{key}{body}".encode(), until=b"ok")
    assert got.startswith(b"HTTP/1.1 200")
    assert await seen.get() == b"3\r\nabc\r\n0\r\n\r\n"
    got = await rig.talk(f"POST {API} HTTP/1.1\r\nHost: h\r\n{key}{body}".encode(), until=b"}")
    assert got.endswith(b'{"size":3}')


async def test_nothing_is_done_for_a_client_that_was_just_refused(rig, recorder):
    route = rig.publish(recorder["port"])
    body = b"x" * 100
    refused = f"POST /runtimes/{route.runtime}/x HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n".encode() + body
    key = f"X-Session-API-Key: {rig.session_key}\r\n\r\n"
    for path in (f"/runtimes/{route.runtime}/x", "/api/v2/hello"):
        got = await rig.talk(refused + f"GET {path} HTTP/1.1\r\nHost: h\r\n{key}".encode())
        assert got.startswith(b"HTTP/1.1 401 ")
        assert len(STATUS.findall(got)) == 1
    assert recorder["requests"] == []


async def test_a_request_pipelined_behind_a_runtimes_is_not_answered_and_the_connection_closes(rig, recorder):
    for first, second in await mixed(rig, recorder):
        got = await rig.talk(first + second)
        assert got.count(b"HTTP/1.1 200 OK") == 1, got
        assert b"nestor" in got or got.endswith(b"ok")
        await asyncio.sleep(0)
    assert len(recorder["requests"]) == 2


@pytest.mark.parametrize(
    "start",
    [
        "GET / HTTP/1.1\r\nHost: h\r\nX-A: ",
        "GET / HTTP/1.1\r\nHost: h\r\nX",
        "POST {} HTTP/1.1\r\nHost: h\r\n{}Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: ",
        "POST {} HTTP/1.1\r\nHost: h\r\n{}Transfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["value", "name", "trailer", "chunk extension"],
)
async def test_a_line_without_end_is_refused_before_it_fills_the_memory(rig, recorder, start):
    for path, key in paths(rig, recorder["port"]):
        got = await rig.talk(start.format(path, key).encode() + b"a" * 1_000_000)
        assert got.startswith(b"HTTP/1.1 431 "), got


async def test_a_changed_route_counts_from_the_next_request_on_and_each_is_use(rig, recorder):
    route = rig.publish(recorder["port"])
    for _ in range(3):
        assert (await get(rig, route)).status_code == 200
    assert rig.touched == [route.runtime] * 3
    rig.republish(route, session_key_hash="0" * 64)
    rig.cache.invalidate(route.runtime)
    assert (await get(rig, route)).status_code == 401
    assert len(recorder["requests"]) == 3


async def mixed(rig, recorder):
    route = rig.publish(recorder["port"])
    end = f" HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n\r\n"
    proxied, api = f"GET /runtimes/{route.runtime}/x{end}".encode(), f"GET /api/v2/hello{end}".encode()
    return [(proxied, proxied), (proxied, api), (api, proxied)]
