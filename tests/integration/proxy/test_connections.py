"""HTTP through the front: the connections to runtimes, used again and lost, and runtimes that fail."""

import asyncio
import socket

import httpx
import pytest
from support.front_rig import get, head_of

from orchestrator.domain.ids import TenantId
from orchestrator.proxy.limits import FrontLimits

pytestmark = pytest.mark.anyio


async def test_nobody_listening_is_502_and_forgets_the_route(rig):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    route = rig.publish(port)
    answer = await get(rig, route)
    assert (answer.status_code, answer.json()["code"]) == (502, "runtime_unreachable")
    assert answer.json()["retryable"] is True
    assert rig.invalidated == [route.runtime]


async def test_a_runtime_that_answers_nonsense_is_502(rig):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc")
        await reader.read()

    route = rig.publish(await rig.raw(serve))
    assert (await get(rig, route)).status_code == 502


@pytest.mark.parametrize(
    "refusal",
    [
        b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
        b'HTTP/1.1 409 Conflict\r\ncontent-length: 32\r\n\r\n{"detail":"generation mismatch"}',
    ],
)
async def test_a_runtime_that_refuses_the_inner_key_is_looked_up_again(rig, recorder, refusal):
    async def impostor(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(refusal)

    route = rig.publish(await rig.raw(impostor))
    assert (await get(rig, route)).status_code == 503  # nobody else is known: one more try, then it is told
    await rig.cache.resolve(route.runtime)  # the old route is cached, and in the store there is a new one:
    rig.republish(route, port=recorder["port"], generation=2)
    assert (await get(rig, route)).text == "ok"
    assert b"x-generation: 2" in recorder["requests"][0]
    assert set(rig.invalidated) == {route.runtime}


async def test_a_body_is_not_sent_again_to_a_new_generation(rig, recorder):
    async def impostor(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(3)
        writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
        await reader.read()

    route = rig.publish(await rig.raw(impostor))
    await rig.cache.resolve(route.runtime)
    rig.republish(route, port=recorder["port"], generation=2)
    async with httpx.AsyncClient(trust_env=False, headers={"X-Session-API-Key": rig.session_key}) as client:
        answer = await client.post(f"{rig.origin}/runtimes/{route.runtime}/p", content=b"abc")
    assert (answer.status_code, answer.json()["retryable"]) == (503, True)
    assert recorder["requests"] == []


async def test_the_runtimes_own_conflict_is_passed_on(rig):
    async def serve(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b'HTTP/1.1 409 Conflict\r\ncontent-length: 20\r\n\r\n{"detail":"running!"}'[:-1])

    route = rig.publish(await rig.raw(serve))
    answer = await get(rig, route)
    assert (answer.status_code, answer.text) == (409, '{"detail":"running!"')
    assert rig.invalidated == []


async def test_connections_to_the_runtime_are_used_again(rig, recorder):
    route = rig.publish(recorder["port"])
    async with httpx.AsyncClient(trust_env=False, headers={"X-Session-API-Key": rig.session_key}) as client:
        for _ in range(50):
            assert (await client.get(f"{rig.origin}/runtimes/{route.runtime}/a")).status_code == 200
    assert recorder["connections"] == 1
    assert rig.loads == 1


async def test_another_generation_never_gets_an_old_connection(rig):
    connections = []

    async def serve(reader, writer):
        carried = []
        connections.append(carried)
        while True:
            carried.append(head_of(await reader.readuntil(b"\r\n\r\n"))[1][b"x-generation"])
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    route = rig.publish(await rig.raw(serve))
    for generation in (1, 2, 3):
        route = rig.republish(route, generation=generation)
        rig.cache.invalidate(route.runtime)
        async with asyncio.timeout(20):
            while not connections or connections[-1][-1] != b"%d" % generation:
                await get(rig, route)
        await get(rig, route)
    assert [set(carried) for carried in connections] == [{b"1"}, {b"2"}, {b"3"}]
    assert min(len(carried) for carried in connections) >= 2  # they are used again


async def test_a_used_connection_that_died_unnoticed_costs_nobody_anything(rig):
    connections = 0

    async def serve(reader, writer):
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        if connections == 1:
            await reader.readuntil(b"\r\n\r\n")
            return  # closes on the second request, before its first byte
        await reader.read()

    route = rig.publish(await rig.raw(serve))
    assert (await get(rig, route)).text == "ok"
    assert (await get(rig, route)).text == "ok"
    assert connections == 2
    assert rig.invalidated == []


async def test_a_request_with_a_body_is_never_sent_twice(rig):
    requests = []

    async def serve(reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            requests.append(head)
            if head.startswith(b"POST"):
                await reader.readexactly(3)
                return
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    route = rig.publish(await rig.raw(serve))
    await get(rig, route)
    async with httpx.AsyncClient(trust_env=False, headers={"X-Session-API-Key": rig.session_key}) as client:
        answer = await client.post(f"{rig.origin}/runtimes/{route.runtime}/p", content=b"abc")
    assert answer.status_code == 502
    assert len(requests) == 2


async def test_bytes_that_nobody_asked_for_poison_a_connection(rig):
    connections = 0

    async def serve(reader, writer):
        nonlocal connections
        connections += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
            )

    route = rig.publish(await rig.raw(serve))
    for _ in range(5):
        assert (await get(rig, route)).text == "ok"
    assert connections == 5


async def test_many_requests_to_many_runtimes_never_cross(rig):
    """Four runtimes, two of them at one address as two generations; every answer names who asked what."""

    def upstream():
        async def serve(reader, writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, headers = head_of(head)
                body = line.split()[1] + b" " + headers[b"x-generation"] + b" " + headers[b"x-who"]
                await asyncio.sleep(len(body) % 3 / 1000)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

        return serve

    shared, own, third = [await rig.raw(upstream()) for _ in range(3)]
    routes = [
        rig.publish(shared, generation=1),
        rig.publish(shared, generation=2),
        rig.publish(own, generation=3),
        rig.publish(third, generation=4),
    ]

    async def one(number):
        route = routes[number % 4]
        head = f"GET /runtimes/{route.runtime}/n{number}?q={number} HTTP/1.1\r\nHost: h\r\nX-Who: {number}\r\n"
        expected = f"\r\n\r\n/n{number}?q={number} {route.generation} {number}".encode()
        got = await rig.talk(
            f"{head}X-Session-API-Key: {rig.session_key}\r\n\r\n".encode(), until=expected, deadline=20
        )
        assert got.endswith(expected), got

    await asyncio.gather(*(one(number) for number in range(200)))
    await asyncio.gather(*(one(number) for number in range(200)))


async def test_runtimes_of_one_tenant_have_a_bounded_number_of_connections_together(bare_rig):
    """Others notice nothing, and whoever is done makes room."""
    rig = bare_rig
    await rig.open(FrontLimits(connections_per_tenant=2))
    go_on, held = asyncio.Event(), []

    async def serve(reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/held" in head:
                held.append(head)
                await go_on.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    port = await rig.raw(serve)
    other = rig.publish(port)
    mine = [rig.republish(rig.publish(port), tenant=TenantId("one")) for _ in range(4)]
    for route in mine:
        assert (await get(rig, route)).status_code == 200
    waiting = [asyncio.create_task(get(rig, route, "/held")) for route in mine[:2]]
    await rig.eventually(lambda: len(held) == 2, deadline=30)
    for route in (*mine[2:], mine[0]):
        refused = await get(rig, route, "/held")
        assert refused.status_code == 503
        assert "this tenant" in refused.json()["detail"]
    assert (await get(rig, other)).status_code == 200
    assert len(held) == 2
    go_on.set()
    assert {(await one).status_code for one in waiting} == {200}
    assert (await get(rig, mine[2])).status_code == 200
