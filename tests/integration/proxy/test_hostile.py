"""What a hostile or broken client may try at the front: every case on the API path and on a runtime's path."""

import asyncio
import contextlib
import re

import pytest
from support.front_rig import head_of, paths

from orchestrator.proxy.limits import FrontLimits

pytestmark = pytest.mark.anyio

API = "/api/v2/echo"
STATUS = re.compile(rb"HTTP/1\.1 \d\d\d ")
POST = "POST {} HTTP/1.1\r\nHost: h\r\n{}"
FRAMING = {
    "two lengths": "POST {} HTTP/1.1\r\nHost: h\r\n{}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": "POST {} HTTP/1.1\r\nHost: h\r\n{}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": "POST {} HTTP/1.1\r\nHost: h\r\n{}Content-Length: 3, 3\r\n\r\nabc",
    "signed length": "POST {} HTTP/1.1\r\nHost: h\r\n{}Content-Length: +3\r\n\r\nabc",
    "hexadecimal length": "POST {} HTTP/1.1\r\nHost: h\r\n{}Content-Length: 0x3\r\n\r\nabc",
    "empty length": "POST {} HTTP/1.1\r\nHost: h\r\n{}Content-Length: \r\n\r\nabc",
    "length of 19 digits": "POST {} HTTP/1.1\r\nHost: h\r\n{}Content-Length: 1000000000000000000\r\n\r\nabc",
    "length and chunks": POST + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "unknown encoding": "POST {} HTTP/1.1\r\nHost: h\r\n{}Transfer-Encoding: x\r\n\r\n",
    "two encodings in one": "POST {} HTTP/1.1\r\nHost: h\r\n{}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked then identity": "POST {} HTTP/1.1\r\nHost: h\r\n{}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked with a tail": "POST {} HTTP/1.1\r\nHost: h\r\n{}Transfer-Encoding: chunked;a\r\n\r\n0\r\n\r\n",
    "encoding in HTTP/1.0": "POST {} HTTP/1.0\r\nHost: h\r\n{}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before colon": "POST {} HTTP/1.1\r\nHost: h\r\n{}Content-Length : 3\r\n\r\nabc",
    "folded line": "GET {} HTTP/1.1\r\nHost: h\r\n{}X-A: b\r\n c\r\n\r\n",
    "bare line feed": "GET {} HTTP/1.1\r\nHost: h\r\n{}X-A: b\nX-C: d\r\n\r\n",
    "line feeds only": "GET {} HTTP/1.1\nHost: h\n{}\n\n",
    "length behind a bare line feed": "POST {} HTTP/1.1\r\nHost: h\r\n{}X-A: b\nContent-Length: 3\r\n\r\nabc",
    "chunks behind a bare line feed and a dropped name": (
        "POST {} HTTP/1.1\r\nHost: h\r\n{}X_A: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "request line by line feed": "GET {} HTTP/1.1\nHost: h\r\n{}\r\n",
    "control character in a value": "GET {} HTTP/1.1\r\nHost: h\r\n{}X-A: b\x01c\r\n\r\n",
    "no token in a name": "GET {} HTTP/1.1\r\nHost: h\r\n{}X(A: b\r\n\r\n",
    "the credential twice, the right one first": "GET {} HTTP/1.1\r\nHost: h\r\n{}X-Session-API-Key: a\r\n\r\n",
    "bare carriage return": "GET {} HTTP/1.1\r\nHost: h\r\n{}X-A: b\rX-C: d\r\n\r\n",
    "NUL in a value": "GET {} HTTP/1.1\r\nHost: h\r\n{}X-A: b\0c\r\n\r\n",
    "NUL in a name": "GET {} HTTP/1.1\r\nHost: h\r\n{}X\0A: b\r\n\r\n",
    "line without colon": "GET {} HTTP/1.1\r\nHost: h\r\n{}nonsense\r\n\r\n",
    "empty name": "GET {} HTTP/1.1\r\nHost: h\r\n{}: value\r\n\r\n",
    "two hosts": "GET {} HTTP/1.1\r\nHost: h\r\nHost: g\r\n{}\r\n",
    "no host": "GET {} HTTP/1.1\r\n{}\r\n",
    "empty host": "GET {} HTTP/1.1\r\nHost: \r\n{}\r\n",
    "host with a path": "GET {} HTTP/1.1\r\nHost: h/api\r\n{}\r\n",
    "host with a user": "GET {} HTTP/1.1\r\nHost: a@h\r\n{}\r\n",
    "absolute form": "GET http://h{} HTTP/1.1\r\nHost: h\r\n{}\r\n",
    "fragment": "GET {}#x HTTP/1.1\r\nHost: h\r\n{}\r\n",
    "high bytes in the target": "GET {}\xe9 HTTP/1.1\r\nHost: h\r\n{}\r\n",
    "space in the target": "GET {} x HTTP/1.1\r\nHost: h\r\n{}\r\n",
    "HTTP/2 by name": "GET {} HTTP/2.0\r\nHost: h\r\n{}\r\n",
    "HTTP/0.9": "GET {}\r\n{}\r\n",
    "the credential twice": "GET {} HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: a\r\n{}\r\n",
    "two bearers": "GET {} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n{}\r\n",
    "upgrade with a body": (
        "GET {} HTTP/1.1\r\nHost: h\r\n{}Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 3\r\n\r\nabc"
    ),
    "another protocol": "OPTIONS {} RTSP/1.0\r\nHost: h\r\n{}\r\n",
    "another protocol of the parser": "GET {} ICE/1.1\r\nHost: h\r\n{}\r\n",
    "a tunnel": "CONNECT {} HTTP/1.1\r\nHost: h\r\n{}\r\n",
    "upgrade by POST": "POST {} HTTP/1.1\r\nHost: h\r\n{}Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
}
BODIES = {
    "bad chunk size": "x\r\nabc\r\n0\r\n\r\n",
    "negative chunk size": "-3\r\nabc\r\n0\r\n\r\n",
    "huge chunk size": "fffffffffffffffff\r\nabc",
    "chunk longer than its size": "2\r\nabc\r\n0\r\n\r\n",
    "chunk size after a space": " 3\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", FRAMING)
async def test_an_ambiguous_head_is_refused_and_the_connection_closed(rig, recorder, name):
    for path, key in paths(rig, recorder["port"]):
        got = await rig.talk(
            FRAMING[name].format(path, key).encode("latin-1") + b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
        )
        if name == "HTTP/0.9" and not got.startswith(b"HTTP/"):  # in which an answer has no head
            assert b'"status":400' in got
            assert not STATUS.findall(got)
        else:
            assert got.startswith(b"HTTP/1.1 400 "), (path, got)
            assert len(STATUS.findall(got)) == 1
            assert b"connection: close" in got.lower()
        assert rig.session_key.encode() not in got
    assert recorder["requests"] == []


async def test_another_protocol_is_refused_before_the_same_line_in_http(rig, recorder):
    for path, key in paths(rig, recorder["port"]):
        rest = f"Host: h\r\n{key}\r\n"
        got = await rig.talk(f"GET {path} RTSP/1.0\r\n{rest}GET {path} HTTP/1.1\r\n{rest}".encode())
        assert got.startswith(b"HTTP/1.1 400 "), (path, got)
        assert len(STATUS.findall(got)) == 1
    assert recorder["requests"] == []


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_cannot_be_read_ends_the_request(rig, name):
    seen = []

    async def serve(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        seen.append(await reader.read())

    route = rig.publish(await rig.raw(serve))
    key = f"X-Session-API-Key: {rig.session_key}\r\n"
    for path in (API, f"/runtimes/{route.runtime}/x"):
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\n{key}Transfer-Encoding: chunked\r\n\r\n"
        got = await rig.talk((head + BODIES[name]).encode() + b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 400 "), (path, got)
        assert len(STATUS.findall(got)) == 1
    assert all(b"smuggled" not in data for data in seen)
    assert all(not data.endswith(b"0\r\n\r\n") for data in seen[1:2])
    await rig.eventually(lambda: not rig.server.server_state.tasks)


async def test_chunks_by_line_feed_have_one_reading(rig):
    """A line feed alone ends no line of a chunk (RFC 9112, 7.1). Whoever takes it for one writes the body anew, and
    what arrives can be read in one way only; whoever does not, refuses it, and nothing whole arrives."""
    seen = []

    async def serve(reader, writer):
        request = await whole_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        seen.append((request[1], await reader.read()))

    for path, key in paths(rig, await rig.raw(serve)):
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\n{key}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        got = await rig.talk((head + "3\nabc\n0\n\n").encode())
        status = 200 if rig.data_plane == "nginx" else 400
        assert got.startswith(b"HTTP/1.1 %d " % status), (path, got)
        assert len(STATUS.findall(got)) == 1
        arrived = [(b"abc", b"")] if status == 200 and not path.startswith("/api") else []
        await rig.eventually(lambda arrived=arrived: seen[-1:] == arrived)


async def whole_request(reader):
    """The head of the next request and its body, however that is framed; trailers are left in it."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head_of(head)[1].get(b"content-length")
    if length is not None:
        return head, await reader.readexactly(int(length))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    return head, body + (await reader.readuntil(b"\r\n"))[:-2]


async def test_trailers_reach_nobody(rig):
    seen = asyncio.Queue()

    async def serve(reader, writer):
        seen.put_nowait(await whole_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        seen.put_nowait(await reader.read())

    route = rig.publish(await rig.raw(serve))
    body = "3\r\nabc\r\n0\r\nX-Session-API-Key: t\r\nHost: t\r\n\r\n"
    key = f"X-Session-API-Key: {rig.session_key}\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = await rig.talk(f"POST /runtimes/{route.runtime}/ HTTP/1.1\r\nHost: h\r\n{key}{body}".encode(), until=b"ok")
    assert got.startswith(b"HTTP/1.1 200")
    head, received = await seen.get()
    assert received == b"abc"
    lines = head_of(head)[1]
    assert (lines[b"host"], lines[b"x-session-api-key"]) == (b"h", rig.inner_key.encode())
    rig.context.upstreams.close_idle(route.runtime)
    assert await asyncio.wait_for(seen.get(), 20) == b""  # and nothing behind it
    got = await rig.talk(f"POST {API} HTTP/1.1\r\nHost: h\r\n{key}{body}".encode(), until=b"}")
    assert got.endswith(b'{"size":3}')


@pytest.mark.parametrize("whole", [True, False], ids=["at once", "in pieces"])
async def test_an_upgrade_that_is_not_on_offer_is_declined_and_the_body_kept(rig, whole):
    """Java's client offers h2c with its first request, whatever that is."""

    async def serve(reader, writer):
        while True:
            head, body = await whole_request(reader)
            assert b"upgrade" not in head.lower()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    route = rig.publish(await rig.raw(serve))
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    for path, answer in ((f"/runtimes/{route.runtime}/x", b"hello"), (API, b'{"size":5}')):
        start = f"POST {path} HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n{offer}"
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        async with asyncio.timeout(20):
            for framed in (
                "Content-Length: 5\r\n\r\nhello",
                "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ):
                wire = (start + framed).encode()
                writer.write(wire if whole else wire[:-7])
                if not whole:
                    await asyncio.sleep(0.02)
                    writer.write(wire[-7:])
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(len(answer)) == answer
        writer.close()


async def test_the_body_of_a_refused_request_is_no_request(rig, recorder):
    """What follows behind its end may be served in its turn; nothing within it is, wherever the pieces are cut."""
    route = rig.publish(recorder["port"])
    key = f"X-Session-API-Key: {rig.session_key}\r\n\r\n"
    for path in (f"/runtimes/{route.runtime}/x", "/api/v2/hello"):
        body = f"GET {path} HTTP/1.1\r\nHost: h\r\n{key}".encode() * 3
        for framing, sent in (
            (f"Content-Length: {len(body)}", body),
            ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)),
        ):
            head = f"POST /runtimes/{route.runtime}/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{framing}\r\n\r\n"
            for cut in (0, len(head), len(head) + 50):
                got = await rig.talk((head.encode() + sent)[:cut], then=(head.encode() + sent)[cut:])
                assert got.startswith(b"HTTP/1.1 401 ")
                assert len(STATUS.findall(got)) == 1
    assert recorder["requests"] == []


async def test_a_broken_request_that_would_be_refused_anyway_is_refused(rig, recorder):
    route = rig.publish(recorder["port"])
    await rig.cache.resolve(route.runtime)
    head = f"POST /runtimes/{route.runtime}/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = await rig.talk(f"{head}zz\r\nGET /api/v2/hello HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    if rig.data_plane == "embedded":
        assert got.startswith(b"HTTP/1.1 401 ")
        assert got.endswith(b'{"detail":"Unauthorized"}')
    assert got.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 ")), got
    assert len(STATUS.findall(got)) == 1
    assert recorder["requests"] == []


async def test_white_space_behind_a_value_is_not_part_of_it(rig):
    head = "GET /api/v2/hello HTTP/1.1\r\nHost: h\r\nX-A: b \t \r\nConnection: close\r\n\r\n"
    assert b'["x-a","b"]' in await rig.talk(head.encode())


async def test_pipelined_requests_of_the_api_are_answered_in_order(rig):
    one = b"POST /api/v2/echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b"
    got = await rig.talk(b"".join(one % (n, b"x" * n) for n in (1, 2, 3)), until=b'{"size":3}')
    assert [got.index(b'{"size":%d}' % n) for n in (1, 2, 3)] == sorted(
        got.index(b'{"size":%d}' % n) for n in (1, 2, 3)
    )


ENDS = ("/first", "/second")


async def test_a_request_pipelined_behind_a_runtimes_is_answered_in_its_turn_or_not_at_all(rig):
    async def serve(reader, writer):
        while True:
            target = head_of(await reader.readuntil(b"\r\n\r\n"))[0].split(b" ")[1]
            await asyncio.sleep(0.05 if target == b"/first" else 0)  # the second could overtake it
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(target), target))

    routes = [rig.publish(await rig.raw(serve)) for _ in range(2)]
    key = f"HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n"
    api = ("/api/v2/hello", b'"nestor"')
    one, two = [(f"/runtimes/{route.runtime}{end}", end.encode()) for route, end in zip(routes, ENDS, strict=True)]
    for (first, mine), (second, its) in ((one, two), (one, api), (api, two)):
        got = await rig.talk(f"GET {first} {key}\r\nGET {second} {key}Connection: close\r\n\r\n".encode())
        told = re.split(rb"HTTP/1\.1 ", got)[1:]
        assert 1 <= len(told) <= 2, got
        assert all(one.startswith(b"200 OK") for one in told)
        assert mine in told[0]
        assert its not in told[0]
        assert its in told[-1] or len(told) == 1


async def test_bytes_after_connection_close_are_no_request(rig, recorder):
    for path, key in paths(rig, recorder["port"]):
        end = f" HTTP/1.1\r\nHost: h\r\n{key}Connection: close\r\n\r\n"
        target = path.replace("echo", "hello")
        got = await rig.talk(f"GET {target}{end}GET {target}{end}".encode())
        assert got.count(b"HTTP/1.1 200 OK") == 1, got
    assert len(recorder["requests"]) == 1


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET {}?" + "a" * 8192 + " HTTP/1.1\r\nHost: h\r\n{}\r\n", 414),
        ("GET {} HTTP/1.1\r\nHost: h\r\n{}X-A: " + "a" * 16384 + "\r\n\r\n", 431),
        (
            "GET {} HTTP/1.1\r\nHost: h\r\n{}"
            + "X-A: "
            + "a" * 200
            + "\r\n" * 1
            + ("X-B: " + "a" * 200 + "\r\n") * 90
            + "\r\n",
            431,
        ),
        ("GET {} HTTP/1.1\r\nHost: h\r\n{}" + "a: b\r\n" * 100 + "\r\n", 431),
    ],
    ids=["target", "one line", "all lines", "many lines"],
)
async def test_an_oversize_head_is_refused(rig, recorder, head, status):
    for path, key in paths(rig, recorder["port"]):
        got = await rig.talk(head.format(path, key).encode())
        assert got.startswith(b"HTTP/1.1 %d " % status), got
    assert recorder["requests"] == []


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
async def test_a_line_without_end_fills_no_memory_and_is_no_request(bare_rig, start):
    """It is refused, or forgotten as it comes until it stalls; nobody sees any of it."""
    rig = bare_rig
    await rig.open(FrontLimits(body_idle_seconds=0.5))
    seen = []

    async def serve(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        seen.append(await reader.read())

    route = rig.publish(await rig.raw(serve))
    key = f"X-Session-API-Key: {rig.session_key}\r\n"
    for path, line in ((API, key), (f"/runtimes/{route.runtime}/x", key)):
        await rig.talk(b"GET /api/v2/hello HTTP/1.1\r\nHost: h\r\n\r\n", until=b"nestor")
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(start.format(path, line).encode())
        before = rig.memory()
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                for _ in range(400):
                    writer.write(b"a" * 65536)  # 25 MiB in all
                    await writer.drain()
                    assert rig.memory() - before < 8 << 20
            with contextlib.suppress(ConnectionError):
                got = await reader.read()
                assert got.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 ", b"HTTP/1.1 408 ")) or not got, got
        writer.close()
    assert all(b"aaaa" not in data for data in seen)
