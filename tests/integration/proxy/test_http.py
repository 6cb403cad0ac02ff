"""HTTP through the front: keys, bytes, bodies, connections."""

import asyncio
import hashlib
import os
import socket
import uuid
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route as StarletteRoute

from orchestrator.proxy.limits import FrontLimits
from orchestrator.proxy.route import Unavailable

pytestmark = pytest.mark.anyio


def head_of(request: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    first, *lines = request.removesuffix(b"\r\n\r\n").split(b"\r\n")
    named = (line.split(b": ", 1) for line in lines)
    return first, {name.lower(): value for name, value in named}


async def get(rig, route, path="/x", **headers):
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(
            f"{rig.origin}/runtimes/{route.runtime}{path}",
            headers={"X-Session-API-Key": rig.session_key, **headers},
        )


async def test_the_clients_key_is_swapped_for_the_inner_key(rig, recorder):
    route = rig.publish(recorder["port"], generation=7)
    answer = await get(rig, route)
    assert (answer.status_code, answer.text) == (200, "ok")
    line, headers = head_of(recorder["requests"][0])
    assert line == b"GET /x HTTP/1.1"
    assert headers[b"x-session-api-key"] == rig.inner_key.encode()
    assert headers[b"x-generation"] == b"7"
    assert rig.session_key.encode() not in recorder["requests"][0]
    assert rig.touched == [route.runtime]


async def test_what_the_caller_must_not_say_does_not_arrive(rig, recorder):
    route = rig.publish(recorder["port"])
    hostile = {
        "X-Generation": "99",
        "X-Fence": "99",
        "X-Init-API-Key": "i",
        "X_Session_API_Key": "u",
        "Authorization": "Bearer a",
        "Cookie": "c=1",
        "Proxy-Authorization": "p",
        "Forwarded": "for=1.2.3.4",
        "X-Forwarded-For": "1.2.3.4",
        "X-Real-IP": "1.2.3.4",
        "Connection": "keep-alive, X-Nominated",
        "X-Nominated": "n",
        "X-Kept": "yes",
    }
    await get(rig, route, **hostile)
    _, headers = head_of(recorder["requests"][0])
    assert set(headers) == {
        b"host",
        b"accept",
        b"accept-encoding",
        b"user-agent",
        b"x-kept",
        b"x-generation",
        b"x-session-api-key",
    }
    assert headers[b"x-generation"] == b"1"


async def test_target_bytes_are_kept(rig, recorder):
    route = rig.publish(recorder["port"])
    target = b"/a%2Fb/%e2%82%ac/../c//d;p?x=%20y&&z=%2F+&session=1"
    head = b" HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: " + rig.session_key.encode() + b"\r\n\r\n"
    got = await rig.talk(b"GET /runtimes/" + route.runtime.encode() + target + head, until=b"ok")
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head_of(recorder["requests"][0])[0] == b"GET " + target + b" HTTP/1.1"


async def test_ids_are_accepted_without_dashes_and_in_upper_case(rig, recorder):
    route = rig.publish(recorder["port"])
    async with httpx.AsyncClient(trust_env=False) as client:
        for form in (route.runtime.replace("-", ""), route.runtime.upper()):
            answer = await client.get(f"{rig.origin}/runtimes/{form}/health")
            assert answer.status_code == 200


async def test_the_runtime_is_found_by_host(rig, recorder):
    route = rig.publish(recorder["port"])
    async with httpx.AsyncClient(trust_env=False) as client:
        host = f"{route.runtime.upper()}.{rig.domain}:8443"
        answer = await client.get(
            f"{rig.origin}/runtimes/a?q", headers={"Host": host, "X-Session-API-Key": rig.session_key}
        )
        assert answer.status_code == 200
        assert "content-security-policy" not in answer.headers
        line, headers = head_of(recorder["requests"][0])
        assert line == b"GET /runtimes/a?q HTTP/1.1"
        assert headers[b"host"] == host.encode()
        for other in (f"x.{route.runtime}.{rig.domain}", f"{route.runtime}.{rig.domain}.evil", f"nestor.{rig.domain}"):
            answer = await client.get(f"{rig.origin}/api/v2/hello", headers={"Host": other})
            assert answer.json()["app"] == "nestor"


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


async def test_redirects_stay_with_the_runtime(rig):
    async def serve(reader, writer):
        while True:
            host = dict(
                line.split(b": ", 1) for line in (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[1:] if line
            )[b"host"]
            writer.write(b"HTTP/1.1 307 T\r\nLocation: http://" + host + b"/api/tools/\r\nContent-Length: 0\r\n\r\n")

    route = rig.publish(await rig.raw(serve))
    assert (await get(rig, route)).headers["location"] == f"/runtimes/{route.runtime}/api/tools/"


@pytest.mark.parametrize("path", ["/health", "/alive", "/ready", "/server_info"])
async def test_open_paths_need_no_key_and_get_none(rig, recorder, path):
    route = rig.publish(recorder["port"])
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"{rig.origin}/runtimes/{route.runtime}"
        assert (await client.get(url + path)).status_code == 200
        assert (await client.get(url + path, headers={"X-Session-API-Key": "wrong"})).status_code == 200
        assert (await client.get(url + path + "/")).status_code == 401
        assert (await client.get(url + path.replace("/", "/%61", 1))).status_code == 401
        assert (await client.post(url + path)).status_code == 401
    assert all(b"x-session-api-key" not in request for request in recorder["requests"])
    assert rig.touched == []


async def test_which_pages_may_read_a_runtime_is_not_the_runtimes_to_say(bare_rig):
    rig = bare_rig
    await rig.open(FrontLimits(allowed_origins=frozenset({"https://app.example"}), local_origins=False))
    asked = []

    async def serve(reader, writer):
        while True:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            said = b"Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nVary: accept\r\n"
            writer.write(b"HTTP/1.1 200 OK\r\n" + said + b"content-length: 2\r\n\r\nok")

    route = rig.publish(await rig.raw(serve))
    url, key = f"{rig.origin}/runtimes/{route.runtime}/api/x", {"X-Session-API-Key": rig.session_key}
    asks = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "x-session-api-key"}
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(2):  # the second time the runtime's head is known
            for origin, allowed in (("https://app.example", True), ("https://evil.example", False), ("null", False)):
                answer = await client.get(url, headers={**key, "Origin": origin})
                assert (answer.status_code, answer.text) == (200, "ok")
                told = answer.headers.get_list("access-control-allow-origin")
                assert told == ([origin] if allowed else [])
                assert answer.headers.get_list("access-control-allow-credentials") == (["true"] if allowed else [])
                assert "origin" in answer.headers["vary"]
            plain = await client.get(url, headers=key)
            assert not [name for name in plain.headers if name.startswith("access-control-")]
        assert len(asked) == 8
        refused = await client.get(url, headers={"Origin": "https://app.example", "X-Session-API-Key": "wrong"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://app.example"  # so that it can be read
        yes = await client.options(url, headers={"Origin": "https://app.example", **asks})
        assert (yes.status_code, yes.headers["access-control-allow-origin"]) == (204, "https://app.example")
        assert yes.headers["access-control-allow-methods"] == "PATCH"
        assert yes.headers["access-control-allow-headers"] == "x-session-api-key"
        no = await client.options(url, headers={"Origin": "https://evil.example", **asks})
        assert (no.status_code, no.json()["detail"]) == (400, "Disallowed CORS origin")
        assert "access-control-allow-origin" not in no.headers
        unknown = url.replace(route.runtime, "5e2f2c0e-3a52-4a3e-9a0b-0d3d3b7a1c11")
        assert (await client.options(unknown, headers={"Origin": "https://app.example", **asks})).status_code == 204
        assert (await client.options(url)).status_code == 401
    assert len(asked) == 8  # no preflight among them


async def test_a_wrong_key_and_no_key_are_401(rig, recorder):
    route = rig.publish(recorder["port"])
    for key in ("wrong", "", rig.inner_key, rig.session_key + "x"):
        answer = await get(rig, route, **{"X-Session-API-Key": key})
        assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"})
    assert recorder["requests"] == []


async def test_unknown_and_malformed_runtimes_are_the_same_404(rig):
    async with httpx.AsyncClient(trust_env=False) as client:
        answers = [
            await client.get(f"{rig.origin}/runtimes/{name}/x")
            for name in ("5e2f2c0e-3a52-4a3e-9a0b-0d3d3b7a1c11", "nobody", "%2e%2e", "")
        ]
    assert {(a.status_code, a.text) for a in answers} == {(404, '{"detail":"Not Found"}')}
    assert len({tuple(a.headers.multi_items()) for a in answers}) == 1


@pytest.mark.parametrize(
    "path",
    ["/api/init", "/api/%69nit", "/api/init/", "//api//init", "/x/../api/./init?a=b", "/%61pi%2finit", "/API/init"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_init_never_passes(rig, recorder, path, method):
    route = rig.publish(recorder["port"])
    head = (
        f"{method} /runtimes/{route.runtime}{path} HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n\r\n"
    )
    assert (await rig.talk(head.encode(), until=b"Found")).startswith(b"HTTP/1.1 404 ")
    assert recorder["requests"] == []


async def test_a_runtime_that_is_not_ready_is_503_with_retry_after(rig):
    route = rig.publish(1)
    rig.table[route.runtime] = Unavailable("it is being resumed", retry_after=4)
    answer = await get(rig, route)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "4")
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["detail"], body["code"], body["retryable"]) == ("it is being resumed", "runtime_unavailable", True)


async def test_only_a_right_key_wakes_a_runtime(bare_rig, request):
    rig = bare_rig
    woken = []

    async def wake(runtime, seconds):
        woken.append(runtime)
        if not woken[1:]:
            return Unavailable("it waits", retry_after=7, details={"place": 2, "status": 200})
        rig.table[runtime] = route
        return route

    async def serve(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nup")

    await rig.open(wake=wake)
    route = rig.publish(await rig.raw(serve))
    rig.table[route.runtime] = Unavailable("asleep", session_key_hash=route.session_key_hash)
    assert (await get(rig, route, **{"X-Session-API-Key": "wrong"})).status_code == 401
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{rig.origin}/runtimes/{route.runtime}/health")).status_code == 503
    assert woken == []
    waits = await get(rig, route)
    assert (waits.status_code, waits.headers["retry-after"]) == (503, "7")
    assert [waits.json()[name] for name in ("detail", "place", "status")] == ["it waits", 2, 503]
    assert (await get(rig, route)).text == "up"
    assert woken == [route.runtime] * 2


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


async def test_another_generation_never_gets_an_old_connection(rig, recorder):
    route = rig.publish(recorder["port"])
    await get(rig, route)
    rig.republish(route, generation=2)
    rig.cache.invalidate(route.runtime)
    await get(rig, route)
    assert recorder["connections"] == 2


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


async def echo(request: Request) -> Response:
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    framing = request.headers.get("content-length") or request.headers.get("transfer-encoding")
    return JSONResponse({"sha": digest.hexdigest(), "size": size, "framing": framing})


async def download(request: Request) -> Response:
    size, piece = int(request.query_params["size"]), bytes(range(256)) * 256

    async def body():
        for _ in range(size // len(piece)):
            yield piece

    headers = {"content-length": str(size)} if "length" in request.query_params else {}
    return StreamingResponse(body(), headers=headers)


async def nothing(request: Request) -> Response:
    return Response(status_code=int(request.path_params["status"]), headers={"x-way": "through"})


async def runtime_app(rig):
    routes = [
        StarletteRoute("/echo", echo, methods=["POST", "PUT"]),
        StarletteRoute("/download", download),
        StarletteRoute("/status/{status}", nothing, methods=["GET", "POST"]),
    ]
    _, port = await rig.serve(Starlette(routes=routes))
    return rig.publish(port)


def memory() -> int:
    """What this process has resident now, in MiB: client, front and runtime together."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024**2


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_bodies_go_up_in_flat_memory(rig, chunked):
    route = await runtime_app(rig)
    piece = bytes(range(256)) * 1024
    total = 100 * len(piece)
    expected = hashlib.sha256()
    resident = [memory()]

    async def pieces():
        for _ in range(100):
            expected.update(piece)
            resident.append(memory())
            yield piece

    headers = {"X-Session-API-Key": rig.session_key} | ({} if chunked else {"content-length": str(total)})
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        url = f"{rig.origin}/runtimes/{route.runtime}/echo"
        answer = (await client.post(url, content=pieces(), headers=headers)).json()
    assert answer == {
        "sha": expected.hexdigest(),
        "size": total,
        "framing": "chunked" if chunked else str(total),
    }
    assert max(resident) - resident[0] < 12  # of 25 sent


@pytest.mark.parametrize("length", ["", "&length"])
async def test_large_bodies_come_down_whole_to_a_slow_reader_in_flat_memory(rig, length):
    route = await runtime_app(rig)
    size = 40 * 1024 * 1024
    resident = [memory()]
    digest, expected, got = hashlib.sha256(), hashlib.sha256(), 0
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        headers = {"X-Session-API-Key": rig.session_key}
        url = f"{rig.origin}/runtimes/{route.runtime}/download?size={size}{length}"
        async with client.stream("GET", url, headers=headers) as answer:
            await asyncio.sleep(0.2)  # the sender is far faster than this reader
            async for piece in answer.aiter_bytes():
                digest.update(piece)
                got += len(piece)
                resident.append(memory())
    for _ in range(size // 65536):
        expected.update(bytes(range(256)) * 256)
    assert (got, digest.hexdigest()) == (size, expected.hexdigest())
    assert max(resident) - resident[0] < 12  # of 40 sent


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_leave_the_connection_in_step(rig, status):
    route = await runtime_app(rig)
    async with httpx.AsyncClient(trust_env=False, headers={"X-Session-API-Key": rig.session_key}) as client:
        url = f"{rig.origin}/runtimes/{route.runtime}"
        for _ in range(3):
            answer = await client.get(f"{url}/status/{status}")
            assert (answer.status_code, answer.content, answer.headers["x-way"]) == (status, b"", "through")
            head = await client.head(f"{url}/download?size=65536&length")
            assert (head.status_code, head.headers["content-length"], head.content) == (200, "65536", b"")
            assert (await client.get(f"{url}/download?size=65536")).content == bytes(range(256)) * 256


async def test_a_client_that_waits_for_100_is_told_to_continue(rig):
    route = await runtime_app(rig)
    head = (
        f"POST /runtimes/{route.runtime}/echo HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n"
        "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(head.encode())
    async with asyncio.timeout(20):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_an_old_client_gets_its_answer_unchunked_and_closed(rig):
    route = await runtime_app(rig)
    head = f"GET /runtimes/{route.runtime}/download?size=65536 HTTP/1.0\r\nX-Session-API-Key: {rig.session_key}\r\n\r\n"
    got = await rig.talk(head.encode())
    headers, _, body = got.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in headers.lower()
    assert b"connection: close" in headers.lower()
    assert body == bytes(range(256)) * 256


async def test_an_answer_that_ends_with_its_connection_becomes_chunked(rig):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nold ")
        await writer.drain()
        writer.write(b"server")

    route = rig.publish(await rig.raw(serve))
    for _ in range(2):
        assert (await get(rig, route)).text == "old server"


async def test_an_answer_that_is_cut_off_is_cut_off_for_the_client(rig):
    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        chunked = b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n" + (chunked if b"/c" in head else b"content-length: 9\r\n\r\nabc"))
        await writer.drain()

    route = rig.publish(await rig.raw(serve))
    for path in ("/c", "/l"):
        with pytest.raises(httpx.RemoteProtocolError):
            await get(rig, route, path)


async def test_events_arrive_as_they_are_sent(rig):
    go_on = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(3):
            writer.write(b"9\r\ndata: %d\n\n\r\n" % number)
            await writer.drain()
            await go_on.wait()
            go_on.clear()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    route = rig.publish(await rig.raw(serve))
    got = []
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream(
            "GET", f"{rig.origin}/runtimes/{route.runtime}/s", headers={"X-Session-API-Key": rig.session_key}
        ) as answer,
    ):
        async for piece in answer.aiter_bytes():
            got.append(piece)
            go_on.set()  # the next one is only sent when this one was received
    assert got == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]


async def test_a_client_that_goes_away_ends_the_request_at_the_runtime(rig):
    seen = asyncio.Queue()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        seen.put_nowait("request")
        assert await reader.read() == b""
        seen.put_nowait("gone")

    route = rig.publish(await rig.raw(serve))
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    head = f"GET /runtimes/{route.runtime}/ HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(20):
        assert await seen.get() == "request"
        writer.close()
        assert await seen.get() == "gone"
    await rig.eventually(lambda: not rig.context.upstreams.open_for(route.runtime))


async def test_a_refused_request_whose_body_came_along_leaves_the_connection_usable(rig):
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    unknown = f"PUT /runtimes/{uuid.uuid4()}/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx".encode()
    known = b"GET /api/v2/hello HTTP/1.1\r\nHost: h\r\n\r\n"
    try:
        async with asyncio.timeout(20):
            for request, status in ((unknown, b"404"), (known, b"200"), (unknown, b"404"), (known, b"200")):
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 " + status), head
                (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(length.partition(b":")[2]))
    finally:
        writer.close()


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


async def test_requests_to_the_api_are_untouched(rig):
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{rig.origin}/api/v2/hello", headers={"Authorization": "Bearer x", "Cookie": "a=b"})
        headers = dict(answer.json()["headers"])
        assert (headers["authorization"], headers["cookie"]) == ("Bearer x", "a=b")
        answer = await client.post(f"{rig.origin}/api/v2/echo", content=b"x" * 3_000_000)
        assert answer.json() == {"size": 3_000_000}


async def test_api_and_runtime_share_one_client_connection(rig, recorder):
    route = rig.publish(recorder["port"])
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    key = f"Host: h\r\nX-Session-API-Key: {rig.session_key}\r\n\r\n"
    async with asyncio.timeout(20):
        for _ in range(3):
            writer.write(f"GET /runtimes/{route.runtime}/ HTTP/1.1\r\n{key}".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
            assert await reader.readexactly(2) == b"ok"
            writer.write(b"GET /api/v2/nowhere HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404")
            assert await reader.readexactly(22) == b'{"detail":"Not Found"}'
            writer.write(f"GET /runtimes/nobody/ HTTP/1.1\r\n{key}".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404")
            assert await reader.readexactly(22) == b'{"detail":"Not Found"}'
    writer.close()


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
