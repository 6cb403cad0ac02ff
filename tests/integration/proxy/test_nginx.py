"""What only nginx as the data plane does: decisions that are kept and revoked, use that is told, and an empty chair."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from support.differential import differ
from support.front_rig import Rig

from orchestrator.app import nginx_child, nginx_plan
from orchestrator.domain.errors import Misconfigured
from orchestrator.proxy import headers
from orchestrator.proxy.behind import BehindProtocol
from orchestrator.proxy.limits import FrontLimits

pytestmark = pytest.mark.anyio


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig("nginx")
    try:
        await rig.open()
        yield rig
    finally:
        await rig.close()


async def status(rig, route):
    async with httpx.AsyncClient(trust_env=False, headers={"X-Session-API-Key": rig.session_key}) as client:
        return (await client.get(f"{rig.origin}/runtimes/{route.runtime}/x")).status_code


async def until(rig, route, wanted):
    async with asyncio.timeout(30):
        while await status(rig, route) != wanted:
            await asyncio.sleep(0.02)


async def test_a_withdrawn_route_is_refused_and_a_moved_one_followed(rig, recorder):
    route = rig.publish(recorder["port"])
    assert await status(rig, route) == 200
    rig.republish(route, session_key_hash="0" * 64)
    rig.cache.invalidate(route.runtime)
    await until(rig, route, 401)
    rig.republish(route, generation=2)
    rig.cache.invalidate(route.runtime)
    await until(rig, route, 200)
    assert b"x-generation: 2" in recorder["requests"][-1]
    del rig.table[route.runtime]
    rig.cache.invalidate(route.runtime)
    await until(rig, route, 404)


async def test_many_requests_ask_few_questions(rig, recorder):
    route = rig.publish(recorder["port"])
    async with httpx.AsyncClient(trust_env=False, headers={"X-Session-API-Key": rig.session_key}) as client:
        for _ in range(200):
            assert (await client.get(f"{rig.origin}/runtimes/{route.runtime}/x")).status_code == 200
    assert len(recorder["requests"]) == 200
    assert 1 <= len(rig.touched) < 150  # each question counts as use


async def test_a_request_that_takes_long_is_use_for_as_long_as_it_takes(rig):
    go_on = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    route = rig.publish(await rig.raw(serve))
    asking = asyncio.create_task(status(rig, route))
    await rig.eventually(lambda: len(rig.touched) >= 2, deadline=30)  # the second without any further question
    go_on.set()
    assert await asking == 200


async def test_a_clients_words_about_itself_are_not_believed(rig):
    """Behind nginx the front is told whose request it is: in nginx's words alone."""
    async with httpx.AsyncClient(trust_env=False) as client:
        said = {"X-Nestor-Address": "203.0.113.9", "X-Nestor-Runtime": "x"}
        answer = await client.get(f"{rig.origin}/api/v2/hello", headers=said)
        assert "x-nestor-address" not in dict(answer.json()["headers"])
        for path in ("/_nestor/path-read", "/_nestor/changed", "/_nestor/long"):
            assert (await client.get(rig.origin + path)).status_code == 404


async def test_heads_that_nginx_reads_in_its_own_way_are_refused(rig, recorder):
    route = rig.publish(recorder["port"])
    path, end = f"/runtimes/{route.runtime}/x", f" HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {rig.session_key}\r\n\r\n"
    odd = (f"GET http://h{path}", f"GET {path}#x", f"CONNECT {path}", f"GET {path}%00", f"GET  {path}")
    for start in odd:
        got = await rig.talk((start + end).encode())
        assert got.startswith(b"HTTP/1.1 400 "), (start, got)
    assert (await rig.talk(f"GET {path}?{'a' * 9000}{end}".encode())).startswith(b"HTTP/1.1 414 ")
    big = end.replace("Host", "X-A: " + "a" * 9000 + "\r\nHost")
    assert (await rig.talk(f"GET {path}{big}".encode())).startswith(b"HTTP/1.1 431 ")
    assert recorder["requests"] == []


async def test_what_arrives_behind_nginx_is_what_it_understood():
    """At length: `scripts/soak proxy --plane nginx`."""
    counts = await differ(400, seed=7, plane="nginx")
    assert counts["cases"] == 400
    assert counts["tampered cases served whole"] > 30
    assert counts["tampered cases refused and closed"] > 150


async def test_a_connection_that_nginx_keeps_is_not_closed_under_it():
    rig = Rig("nginx")
    try:
        await rig.open(FrontLimits(idle_seconds=0.2, head_seconds=0.2))
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{rig.origin}/api/v2/hello")).status_code == 200
            (kept,) = [one for one in rig.server.server_state.connections if isinstance(one, BehindProtocol)]
            checked = asyncio.get_running_loop().time() + 1.0  # several looks at what is idle
            await rig.eventually(lambda: asyncio.get_running_loop().time() > checked)
            assert not kept.transport.is_closing()
            assert kept.timeout_keep_alive_task is not None
            assert kept.timeout_keep_alive_task.when() > checked + 3600
    finally:
        await rig.close()


async def test_numbers_that_nginx_does_not_know_are_rendered_as_ones_that_it_does():
    rig = Rig("nginx")
    try:
        await rig.open(FrontLimits(connections_per_address=400_000, connections_per_runtime=100_000))
    finally:
        await rig.close()


def test_no_header_is_forgotten():
    rules = (Path(nginx_child.__file__).parent / "nginx_templates" / "to_runtime.conf").read_text()
    by_nginx = {b"transfer-encoding", b"content-length", b"expect"}  # it frames what it sends
    for name in headers._NOT_FOR_RUNTIME - by_nginx:
        assert f"proxy_set_header {name.decode()} " in rules
    for name in headers._CROSS_ORIGIN | headers._NOT_FOR_CALLER - by_nginx - {b"connection", b"server"}:
        assert f"proxy_hide_header {name.decode()};" in rules


def test_a_missing_program_is_named_with_its_package(monkeypatch, tmp_path):
    monkeypatch.setattr(nginx_child.shutil, "which", lambda *_args, **_more: None)
    with pytest.raises(Misconfigured) as missing:
        nginx_child.find_nginx()
    assert "apt-get install nginx" in missing.value.hint
    monkeypatch.setattr(nginx_plan, "_MODULES", (tmp_path,))
    with pytest.raises(Misconfigured) as missing:
        nginx_plan.find_modules()
    assert "libnginx-mod-http-lua" in missing.value.hint
