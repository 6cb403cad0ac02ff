"""Links in the front: where they lead, and that one that is taken back ends what came by it and nothing else."""

import time
from dataclasses import replace

import anyio
import httpx
import pytest

from orchestrator.domain.links import SECRET_BYTES, digest_of, token_of
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
