"""The manner of the embedded front where another data plane keeps the same promise in another way: what it says, which
refusal comes first, what it counts. The promises themselves are tested of each plane in the files beside this one.
"""

import asyncio
import re
import time

import pytest
from support.front_rig import get

from orchestrator.domain.ids import TenantId
from orchestrator.proxy.limits import FrontLimits

pytestmark = pytest.mark.anyio

API = "/api/v2/echo"
STATUS = re.compile(rb"HTTP/1\.1 \d\d\d ")


async def test_answers_by_path_are_sandboxed_and_cleaned(rig):
    async def serve(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 200 Fine\r\nSet-Cookie: a=b\r\nServer: evil\r\nX-Session-API-Key: k\r\nX-Hop: 1\r\n"
                b"Connection: X-Hop\r\nContent-Security-Policy: default-src *\r\nAlt-Svc: h3=x\r\nX-Twice: 1\r\n"
                b"X-Twice: 2\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\nabc"
            )

    route = rig.publish(await rig.raw(serve))
    answer = await get(rig, route)
    assert sorted(answer.headers.multi_items()) == [
        ("content-length", "3"),
        ("content-security-policy", "sandbox"),
        ("content-type", "text/html"),
        ("x-content-type-options", "nosniff"),
        ("x-twice", "1"),
        ("x-twice", "2"),
    ]


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


async def test_a_refusal_before_the_end_of_a_broken_request_arrives(rig, recorder):
    route = rig.publish(recorder["port"])
    await rig.cache.resolve(route.runtime)
    head = f"POST /runtimes/{route.runtime}/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = await rig.talk(f"{head}zz\r\n".encode())
    assert got.startswith(b"HTTP/1.1 401 ")
    assert got.endswith(b'{"detail":"Unauthorized"}')


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
    for path, key in await paths(rig, recorder):
        got = await rig.talk(start.format(path, key).encode() + b"a" * 1_000_000)
        assert got.startswith(b"HTTP/1.1 431 "), got


async def test_slow_clients_are_sent_away_while_others_are_served(bare_rig):
    rig = bare_rig
    await rig.open(FrontLimits(head_seconds=0.4, idle_seconds=0.8, body_idle_seconds=0.4))
    slow = [await asyncio.open_connection("127.0.0.1", rig.port) for _ in range(100)]
    for number, (_, writer) in enumerate(slow):
        writer.write(b"GET /api/v2/hello HTTP/1.1\r\nHost: h\r\nX-A" if number % 2 else b"")
    began = time.monotonic()
    got = await rig.talk(b"GET /api/v2/hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert time.monotonic() - began < 5
    async with asyncio.timeout(10):
        answers = [await reader.read() for reader, _ in slow]
    assert {answer[:13] for answer in answers[1::2]} == {b"HTTP/1.1 408 "}
    assert set(answers[0::2]) == {b""}
    for _, writer in slow:
        writer.close()


async def test_a_head_that_drips_is_408(bare_rig):
    rig = bare_rig
    await rig.open(FrontLimits(head_seconds=0.4))
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    answer = asyncio.ensure_future(reader.read(13))
    async with asyncio.timeout(20):
        for byte in b"GET / HTTP/1.1\r\nHost: " + b"h" * 10_000:
            if answer.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        assert await answer == b"HTTP/1.1 408 "
    writer.close()


@pytest.mark.parametrize("path", [API, "/runtimes/{}/x"])
async def test_a_body_that_stalls_is_408(bare_rig, path):
    rig = bare_rig
    await rig.open(FrontLimits(head_seconds=0.4, body_idle_seconds=0.4))
    ended = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        ended.set()

    route = rig.publish(await rig.raw(serve))
    head = f"POST {path.format(route.runtime)} HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n"
    got = await rig.talk(f"{head}Content-Length: 10\r\n\r\nabc".encode())
    assert got.startswith(b"HTTP/1.1 408 ")
    if path != API:
        await asyncio.wait_for(ended.wait(), 20)
    await rig.eventually(lambda: not rig.server.server_state.tasks)


async def test_a_runtime_has_a_bounded_number_of_connections(bare_rig):
    rig = bare_rig
    await rig.open(FrontLimits(connections_per_runtime=3))

    async def serve(reader, writer):
        await reader.read()

    route = rig.publish(await rig.raw(serve))
    head = f"GET /runtimes/{route.runtime}/ HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n\r\n"
    waiting = [await asyncio.open_connection("127.0.0.1", rig.port) for _ in range(3)]
    for _, writer in waiting:
        writer.write(head.encode())
    await rig.eventually(lambda: len(rig.context.upstreams.open_for(route.runtime)) == 3)
    assert (await rig.talk(head.encode(), until=b"}")).startswith(b"HTTP/1.1 503 ")
    for _, writer in waiting:
        writer.close()
    await rig.eventually(lambda: not rig.context.upstreams.open_for(route.runtime))


async def test_a_changed_route_counts_from_the_next_request_on_and_each_is_use(rig, recorder):
    route = rig.publish(recorder["port"])
    for _ in range(3):
        assert (await get(rig, route)).status_code == 200
    assert rig.touched == [route.runtime] * 3
    rig.republish(route, session_key_hash="0" * 64)
    rig.cache.invalidate(route.runtime)
    assert (await get(rig, route)).status_code == 401
    assert len(recorder["requests"]) == 3


async def paths(rig, recorder):
    route = rig.publish(recorder["port"])
    key = f"X-Session-API-Key: {rig.session_key}\r\n"
    return [(API, key), (f"/runtimes/{route.runtime}/x", key)]


async def mixed(rig, recorder):
    route = rig.publish(recorder["port"])
    end = f" HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n\r\n"
    proxied, api = f"GET /runtimes/{route.runtime}/x{end}".encode(), f"GET /api/v2/hello{end}".encode()
    return [(proxied, proxied), (proxied, api), (api, proxied)]
