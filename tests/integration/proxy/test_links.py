"""Links in the front: where they lead, and that one that is taken back ends what came by it and nothing else."""

import time
from dataclasses import replace

import anyio
import httpx
import pytest

from orchestrator.domain.links import SECRET_BYTES, digest_of, token_of
from orchestrator.proxy.links import end_expired
from orchestrator.proxy.route import LinkRoute, Route
from tests.support.front_rig import DOMAIN, INNER_KEY, SESSION_KEY

pytestmark = pytest.mark.anyio

SECRET = bytes(range(SECRET_BYTES))


def linked(rig, route: Route, **changes) -> str:
    """The same route with a link to its port 3000; the link's token."""
    link = LinkRoute(digest_of(SECRET), route.generation, time.time() + 600, 3000, None, "")
    rig.republish(route, links=(replace(link, **changes),))
    return token_of(route.runtime, SECRET)


async def test_a_link_leads_to_its_port_by_path_and_by_host_with_the_inner_key_alone(rig, recorder):
    token = linked(rig, rig.publish(recorder["port"]))
    async with httpx.AsyncClient(base_url=rig.origin, trust_env=False) as client:
        by_path = await client.get(f"/links/{token}/a%2Fb?c", headers={"X-Session-API-Key": "mine", "Cookie": "a=b"})
        by_host = await client.get("/a", headers={"Host": f"l-{token}.{DOMAIN}"})
        by_key = await client.get(f"/runtimes/{token[:26]}/a")
    assert (by_path.status_code, by_host.status_code, by_key.status_code) == (200, 200, 404)
    first, second = recorder["requests"]
    assert first.startswith(b"GET /api/ports/3000/a%2Fb?c HTTP/1.1\r\n")
    assert second.startswith(b"GET /api/ports/3000/a HTTP/1.1\r\n")
    for request in (first, second):
        assert request.lower().count(b"x-session-api-key") == 1
        assert INNER_KEY.encode() in request
        assert b"mine" not in request
        assert b"cookie" not in request.lower()
    assert by_path.headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert "content-security-policy" not in by_host.headers
    assert by_path.headers["referrer-policy"] == by_host.headers["referrer-policy"] == "no-referrer"


async def test_which_pages_may_read_it_the_linked_application_says_itself(rig):
    asked = []

    async def serve(reader, writer):
        while True:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\ncontent-length: 2\r\n\r\nok")

    token = linked(rig, rig.publish(await rig.raw(serve)))
    page = {"Origin": "https://elsewhere.example"}
    async with httpx.AsyncClient(base_url=rig.origin, trust_env=False) as client:
        for _ in range(2):
            answer = await client.get(f"/links/{token}/", headers=page)
            assert answer.headers.get_list("access-control-allow-origin") == ["*"]
        preflight = {**page, "Access-Control-Request-Method": "GET"}
        assert (await client.options(f"/links/{token}/", headers=preflight)).text == "ok"
    assert len(asked) == 3


@pytest.mark.parametrize("changes", [{"expires_at": 0.0}, {"generation": 7}, {"digest": digest_of(b"other")}])
async def test_a_link_that_is_over_is_as_unknown(rig, recorder, changes):
    token = linked(rig, rig.publish(recorder["port"]), **changes)
    async with httpx.AsyncClient(base_url=rig.origin, trust_env=False) as client:
        over = await client.get(f"/links/{token}/")
        unknown = await client.get(f"/links/{'a' * 58}/")
    assert (over.status_code, over.content) == (404, unknown.content)
    assert recorder["requests"] == []


async def test_one_that_is_taken_back_elsewhere_ends_what_came_by_it_and_no_other(rig):
    begun = anyio.Event()

    async def serve(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf!")
        await writer.drain()
        if b"/by-key" in request:
            await begun.wait()
            writer.write(b"whole")
            await writer.drain()
        await reader.read()

    route = rig.publish(await rig.raw(serve))
    token = linked(rig, route)
    async with httpx.AsyncClient(base_url=rig.origin, timeout=60, trust_env=False) as client:
        with anyio.fail_after(60):
            own = {"X-Session-API-Key": SESSION_KEY}
            async with (
                client.stream("GET", f"/runtimes/{route.runtime}/by-key", headers=own) as by_key,
                client.stream("GET", f"/links/{token}/by-link") as by_link,
            ):
                rig.table[route.runtime] = route  # another replica stored it without the link
                rig.cache.changed(route.conversation)
                with pytest.raises(httpx.TransportError):
                    await by_link.aread()
                begun.set()
                assert await by_key.aread() == b"half!whole"
            assert (await client.get(f"/links/{token}/")).status_code == 404


async def half_answers(reader, writer):
    """Whole answers to what is asked for plainly, so that the connection is kept; else half of one."""
    while True:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"/slow" in request:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf!")
            await reader.read()
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


async def test_what_is_taken_back_ends_what_came_by_it_on_a_connection_that_a_key_opened(rig):
    route = rig.publish(await rig.raw(half_answers))
    token = linked(rig, route)
    own = {"X-Session-API-Key": SESSION_KEY}
    async with httpx.AsyncClient(base_url=rig.origin, timeout=60, trust_env=False) as client:
        assert (await client.get(f"/runtimes/{route.runtime}/a", headers=own)).text == "ok"
        with anyio.fail_after(20):
            async with client.stream("GET", f"/links/{token}/slow") as by_link:
                rig.table[route.runtime] = route
                rig.cache.changed(route.conversation)
                with pytest.raises(httpx.TransportError):
                    await by_link.aread()


async def test_a_request_with_a_key_goes_on_when_the_link_is_taken_back_that_opened_its_connection(rig):
    finish = anyio.Event()

    async def serve(reader, writer):
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            if b"/slow" in request:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf!")
                await finish.wait()
                writer.write(b"whole")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    route = rig.publish(await rig.raw(serve))
    token = linked(rig, route)
    own = {"X-Session-API-Key": SESSION_KEY}
    async with httpx.AsyncClient(base_url=rig.origin, timeout=60, trust_env=False) as client:
        assert (await client.get(f"/links/{token}/a")).text == "ok"
        with anyio.fail_after(20):
            async with client.stream("GET", f"/runtimes/{route.runtime}/slow", headers=own) as by_key:
                rig.table[route.runtime] = route
                rig.cache.changed(route.conversation)
                while (await client.get(f"/links/{token}/a")).status_code != 404:
                    await anyio.sleep(0.02)
                finish.set()
                assert await by_key.aread() == b"half!whole"


async def test_what_came_by_a_link_ends_with_its_time(rig):
    token = linked(rig, rig.publish(await rig.raw(half_answers)), expires_at=time.time() + 1.5)
    async with httpx.AsyncClient(base_url=rig.origin, timeout=60, trust_env=False) as client:
        with anyio.fail_after(30):
            async with client.stream("GET", f"/links/{token}/slow") as by_link:
                end_expired(rig.context.upstreams.all_open())
                assert [user.route.link for user in rig.context.upstreams.all_open()] == [digest_of(SECRET)]
                while (await client.get(f"/links/{token}/a")).status_code != 404:
                    await anyio.sleep(0.05)
                end_expired(rig.context.upstreams.all_open())
                with pytest.raises(httpx.TransportError):
                    await by_link.aread()


async def test_an_application_of_the_agents_has_an_init_of_its_own_and_the_runtimes_is_not_reached(rig, recorder):
    token = linked(rig, rig.publish(recorder["port"]))
    rest = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    told = await rig.talk(f"GET /links/{token}/api/init {rest}".encode())
    assert told.startswith(b"HTTP/1.1 200 ")
    assert recorder["requests"][0].startswith(b"GET /api/ports/3000/api/init HTTP/1.1\r\n")
    for path in ("../../init", "..%2f..%2finit", "%2e%2e/%2e%2e/INIT%0a"):
        told = await rig.talk(f"GET /links/{token}/{path} {rest}".encode())
        assert told.startswith(b"HTTP/1.1 404 ")
    assert len(recorder["requests"]) == 1


async def test_no_cache_that_others_share_keeps_what_a_link_opened(rig):
    async def serve(reader, writer):
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            said = b"Cache-Control: public, max-age=60, s-maxage=9\r\nSurrogate-Control: max-age=9\r\n"
            lines = said if b"/a " in request else b""
            writer.write(b"HTTP/1.1 200 OK\r\n" + lines + b"content-length: 2\r\n\r\nok")

    token = linked(rig, rig.publish(await rig.raw(serve)))
    async with httpx.AsyncClient(base_url=rig.origin, trust_env=False) as client:
        told = await client.get(f"/links/{token}/a")
        assert told.headers.get_list("cache-control") == ["private, max-age=60"]
        assert "surrogate-control" not in told.headers
        assert (await client.get(f"/links/{token}/b")).headers.get_list("cache-control") == ["private"]
