"""Requests whose lines a connection repeats: all rules hold for them as for the first."""

import asyncio
import time

import pytest

pytestmark = pytest.mark.anyio


class Client:
    """One connection that waits for each answer."""

    def __init__(self, rig, reader, writer):
        self.rig, self.reader, self.writer = rig, reader, writer

    @classmethod
    async def connect(cls, rig):
        return cls(rig, *await asyncio.open_connection("127.0.0.1", rig.port))

    async def ask(self, line: bytes, *lines: bytes, body: bytes = b"") -> tuple[bytes, bytes]:
        """The status line and the body of the answer."""
        key = b"X-Session-API-Key: " + self.rig.session_key.encode()
        self.writer.write(b"\r\n".join([line + b" HTTP/1.1", b"Host: h", key, *lines]) + b"\r\n\r\n" + body)
        async with asyncio.timeout(30):
            head = await self.reader.readuntil(b"\r\n\r\n")
            size = next(int(one[15:]) for one in head.split(b"\r\n") if one.lower().startswith(b"content-length:"))
            return head.split(b"\r\n")[0], await self.reader.readexactly(size)


async def within_a_second(ask, expected):
    """Asks until the answer is as expected, for as long as a data plane may go by what it knew."""
    began = time.monotonic()
    while not expected(await ask()):
        assert time.monotonic() - began < 1
        await asyncio.sleep(0.02)


@pytest.fixture
async def client(rig):
    client = await Client.connect(rig)
    yield client
    client.writer.close()


async def test_targets_methods_and_bodies_arrive_as_they_were_sent(rig, client):
    seen = []

    async def serve(reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(3) if b"content-length: 3" in head.lower() else b""
            seen.append((head.split(b" HTTP")[0], body))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    route = rig.publish(await rig.raw(serve))
    at = f"/runtimes/{route.runtime}".encode()
    for number in range(3):
        path = b"/%d?a=%%20" % number
        assert (await client.ask(b"GET " + at + path))[0] == b"HTTP/1.1 200 OK"
        body = b"%03d" % number
        await client.ask(b"PUT " + at + path, b"Content-Length: 3", body=body)
        assert seen[-2:] == [(b"GET " + path, b""), (b"PUT " + path, body)]
    assert set(rig.touched) == {route.runtime}


async def test_another_key_of_the_runtime_closes_the_door(rig, recorder, client):
    route = rig.publish(recorder["port"])
    line = f"GET /runtimes/{route.runtime}/x".encode()
    for _ in range(3):
        assert (await client.ask(line))[0] == b"HTTP/1.1 200 OK"
    rig.republish(route, session_key_hash="0" * 64)
    rig.cache.invalidate(route.runtime)
    await within_a_second(lambda: client.ask(line), lambda answer: answer[0] == b"HTTP/1.1 401 Unauthorized")
    arrived = len(recorder["requests"])
    for _ in range(3):
        assert (await client.ask(line))[0] == b"HTTP/1.1 401 Unauthorized"
    assert len(recorder["requests"]) == arrived


async def test_a_runtime_that_moved_gets_the_next_request(rig, recorder, client):
    async def elsewhere(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew")

    route = rig.publish(recorder["port"])
    line = f"GET /runtimes/{route.runtime}/x".encode()
    for _ in range(3):
        assert (await client.ask(line))[1] == b"ok"
    rig.republish(route, port=await rig.raw(elsewhere), generation=2)
    rig.cache.invalidate(route.runtime)
    await within_a_second(lambda: client.ask(line), lambda answer: answer[1] == b"new")
    for _ in range(3):
        assert (await client.ask(line))[1] == b"new"


async def test_the_door_of_provisioning_and_the_api_stay_where_they_are(rig, recorder, client):
    route = rig.publish(recorder["port"])
    at = f"/runtimes/{route.runtime}".encode()
    for _ in range(2):
        assert (await client.ask(b"GET " + at + b"/x"))[0] == b"HTTP/1.1 200 OK"
    assert (await client.ask(b"GET " + at + b"/api/%69nit"))[0] == b"HTTP/1.1 404 Not Found"
    assert b'"nestor"' in (await client.ask(b"GET /api/v2/hello"))[1]
    assert (await client.ask(b"GET " + at + b"/x"))[0] == b"HTTP/1.1 200 OK"
    assert (await client.ask(b"GET /api/v2/hello"))[0] == b"HTTP/1.1 200 OK"


async def test_a_long_target_is_refused_behind_known_lines_too(rig, recorder, client):
    route = rig.publish(recorder["port"])
    at = f"/runtimes/{route.runtime}/".encode()
    for _ in range(2):
        await client.ask(b"GET " + at)
    status, _ = await client.ask(b"GET " + at + b"a" * 9000)
    assert status.startswith(b"HTTP/1.1 414")


async def test_of_two_at_once_the_second_gets_no_answer_by_the_lines_of_the_first(rig, recorder):
    """What is pipelined behind a refusal is not taken for what was refused."""
    route = rig.publish(recorder["port"])
    line = b"GET /runtimes/" + route.runtime.encode() + b"/x HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: "
    wrong, right = line + b"wrong\r\n\r\n", line + rig.session_key.encode() + b"\r\n\r\n"
    answer = await rig.talk(right, until=b"ok")
    assert answer.startswith(b"HTTP/1.1 200")
    answer = await rig.talk(wrong + right + wrong, until=b"ok", deadline=30)
    assert answer.count(b"HTTP/1.1 401") == 1
    assert answer.count(b"HTTP/1.1 200") == 1
    assert answer.index(b"401") < answer.index(b"200")
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    async with asyncio.timeout(30):
        writer.write(wrong + right)
        while b"ok" not in await reader.read(65536):
            pass
        writer.write(wrong)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401")
    writer.close()
