"""HTTP through the front: who may ask for what, and which bytes arrive."""

import asyncio

import httpx
import pytest
from support.front_rig import get, head_of

from orchestrator.proxy.limits import FrontLimits
from orchestrator.proxy.route import Unavailable

pytestmark = pytest.mark.anyio


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
                b"Date: never\r\n"
                b"Connection: X-Hop\r\nContent-Security-Policy: default-src *\r\nAlt-Svc: h3=x\r\nX-Twice: 1\r\n"
                b"X-Twice: 2\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\nabc"
            )

    route = rig.publish(await rig.raw(serve))
    answer = await get(rig, route)
    said = answer.headers.multi_items()
    by_nginx = {"server", "date", "connection"} if rig.data_plane == "nginx" else set()  # it says these of itself
    assert sorted(line for line in said if line[0] not in by_nginx) == [
        ("content-length", "3"),
        ("content-security-policy", "sandbox"),
        ("content-type", "text/html"),
        *([] if by_nginx else [("date", "never")]),
        ("x-content-type-options", "nosniff"),
        ("x-twice", "1"),
        ("x-twice", "2"),
    ]
    assert "evil" not in answer.headers.get("server", "")
    assert answer.headers.get("connection", "keep-alive") == "keep-alive"


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
