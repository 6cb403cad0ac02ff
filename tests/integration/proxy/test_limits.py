"""What one client may take of time, connections and guesses at the front, however it goes about it."""

import asyncio
import time

import pytest

from orchestrator.proxy.limits import FrontLimits

pytestmark = pytest.mark.anyio

API = "/api/v2/echo"


def told(rig):
    """What a client that is too slow is told at most: nginx may hang up without a word."""
    return {b"HTTP/1.1 408 "} if rig.data_plane == "embedded" else {b"HTTP/1.1 408 ", b""}


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
    assert {answer[:13] for answer in answers[1::2]} <= told(rig)
    assert set(answers[0::2]) == {b""}
    for _, writer in slow:
        writer.close()


async def test_a_head_that_drips_is_given_up(bare_rig):
    """However steadily it comes: the time is that of the whole head."""
    rig = bare_rig
    await rig.open(FrontLimits(head_seconds=0.4))
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    answer = asyncio.ensure_future(reader.read(13))
    began = time.monotonic()
    async with asyncio.timeout(20):
        for byte in b"GET / HTTP/1.1\r\nHost: " + b"h" * 10_000:
            if answer.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        assert await answer in told(rig)
    assert time.monotonic() - began < 10
    writer.close()


@pytest.mark.parametrize("path", [API, "/runtimes/{}/x"])
async def test_a_body_that_stalls_is_given_up(bare_rig, path):
    rig = bare_rig
    await rig.open(FrontLimits(head_seconds=0.4, body_idle_seconds=0.4))
    ended = asyncio.Queue()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        ended.put_nowait(await reader.read())

    route = rig.publish(await rig.raw(serve))
    head = f"POST {path.format(route.runtime)} HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n"
    got = await rig.talk(f"{head}Content-Length: 10\r\n\r\nabc".encode())
    assert got[:13] in told(rig), got
    if path != API:
        assert await asyncio.wait_for(ended.get(), 20) == b"abc"
    await rig.eventually(lambda: not rig.server.server_state.tasks)


async def test_a_runtime_that_never_answers_is_given_up(bare_rig):
    rig = bare_rig
    await rig.open(FrontLimits(head_seconds=0.4, answer_idle_seconds=0.5))

    async def serve(reader, writer):
        await reader.read()

    route = rig.publish(await rig.raw(serve))
    head = f"GET /runtimes/{route.runtime}/ HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n\r\n"
    assert (await rig.talk(head.encode(), until=b"}")).startswith(b"HTTP/1.1 504 ")


async def test_guessing_runtimes_is_slowed_down(bare_rig):
    rig = bare_rig
    await rig.open(FrontLimits(unknown_per_second=5))
    statuses = []
    for number in range(30):
        head = f"GET /runtimes/{number:032x}/ HTTP/1.1\r\nHost: h\r\n\r\n"
        statuses.append((await rig.talk(head.encode(), until=b"}"))[9:12])
    assert statuses[:5] == [b"404"] * 5
    assert b"429" in statuses
    assert rig.loads < 30


async def test_who_guesses_keys_is_told_to_wait_and_who_has_one_is_not(bare_rig):
    rig = bare_rig
    await rig.open(FrontLimits(wrong_keys_per_second=3))

    async def serve(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    route = rig.publish(await rig.raw(serve))
    line = b"GET /runtimes/%b/x HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: " % route.runtime.encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    told = set()
    async with asyncio.timeout(30):
        while 429 not in told:
            writer.write(line + b"wrong\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            told.add(int(head.split(b" ")[1]))
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r")[0]))
        writer.write(line + rig.session_key.encode() + b"\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
    assert told == {401, 429}
    writer.close()


async def test_a_runtime_has_a_bounded_number_of_connections(bare_rig):
    """By whichever of its names it is asked for, and others notice nothing."""
    rig = bare_rig
    await rig.open(FrontLimits(connections_per_runtime=3))
    open_now = []

    async def serve(reader, writer):
        open_now.append(writer)
        await reader.read()
        open_now.remove(writer)

    async def other(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    route, free = rig.publish(await rig.raw(serve)), rig.publish(await rig.raw(other))
    short = route.runtime.replace("-", "")
    names = [route.runtime, short, route.runtime.upper(), short.upper()]
    end = f"/ HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n\r\n"
    waiting = [await asyncio.open_connection("127.0.0.1", rig.port) for _ in range(3)]
    for (_, writer), name in zip(waiting, names, strict=False):
        writer.write(f"GET /runtimes/{name}{end}".encode())
    await rig.eventually(lambda: len(open_now) == 3)
    assert rig.data_plane == "nginx" or len(rig.context.upstreams.open_for(route.runtime)) == 3
    for name in names:
        assert (await rig.talk(f"GET /runtimes/{name}{end}".encode(), until=b"}")).startswith(b"HTTP/1.1 503 ")
    assert (await rig.talk(f"GET /runtimes/{free.runtime}{end}".encode(), until=b"ok")).startswith(b"HTTP/1.1 200 ")
    assert len(open_now) == 3
    for _, writer in waiting:
        writer.close()
    await rig.eventually(lambda: not open_now and not rig.context.upstreams.open_for(route.runtime))


async def test_cut_connections_leave_nothing_behind(rig, recorder):
    route = rig.publish(recorder["port"])
    head = (
        f"GET /runtimes/{route.runtime}/ HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n\r\n".encode()
    )
    for number in range(200):
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(head[: number % len(head)] if number % 2 else head)
        await writer.drain()
        writer.transport.abort()
    await rig.eventually(lambda: not rig.server.server_state.connections)
    rig.context.upstreams.close_idle(route.runtime)
    assert rig.context.upstreams.open_for(route.runtime) == ()
    assert not rig.server.server_state.tasks
