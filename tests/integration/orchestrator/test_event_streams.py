"""Reading along: server-sent events and the socket tell the same numbers as `GET .../events`, and nothing twice."""

import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from support.processes import OrchestratorProcess, orchestrator_at
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

MODEL = {"agent_settings": {"llm": {"model": "openai/scripted", "api_key": "sk-model-key-of-the-tests"}}}


@pytest.fixture(scope="module")
def nestor(tmp_path_factory) -> Any:
    with orchestrator_at(tmp_path_factory.mktemp("n") / "data", driver="fake") as running:
        yield running


@pytest.fixture
def tenant(nestor: OrchestratorProcess) -> str:
    return str(nestor.call("POST", "/api/v2/tenants", json={"name": "acme"}, status=201)["id"])


@pytest.fixture
def key(nestor: OrchestratorProcess, tenant: str) -> str:
    key: str = nestor.call("POST", f"/api/v2/tenants/{tenant}/api-keys", json={"name": "k"}, status=201)["key"]
    nestor.call("PATCH", "/api/v2/settings", key, json=MODEL, status=200)
    return key


@pytest.fixture
def conversation(nestor: OrchestratorProcess, key: str) -> str:
    body = {"initial_message": "SAY:150"}
    id: str = nestor.call("POST", "/api/v2/conversations?wait=ready", key, json=body, status=200)["id"]
    return id


def logged(nestor: OrchestratorProcess, key: str, id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    while True:
        page = nestor.call("GET", f"/api/v2/conversations/{id}/events?after={len(items)}", key, status=200)
        items += page["items"]
        if page["next_page_id"] is None:
            return items


async def sse(response: httpx.Response) -> AsyncIterator[tuple[str, str | None, Any]]:
    """(event, id, data), signs of life left out."""
    block: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(":")
            block[name] = value.strip()
        elif block.get("event"):
            yield block["event"], block.get("id"), json.loads(block["data"])
            block = {}


def say(nestor: OrchestratorProcess, key: str, id: str, text: str) -> None:
    nestor.call("POST", f"/api/v2/conversations/{id}/messages", key, json={"content": text}, status=202)


async def test_a_stream_tells_the_log_and_then_what_comes(
    nestor: OrchestratorProcess, key: str, conversation: str
) -> None:
    before = await anyio.to_thread.run_sync(logged, nestor, key, conversation)
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{nestor.url}/api/v2/conversations/{conversation}/events/stream"
    seen: list[dict[str, Any]] = []
    async with httpx.AsyncClient(headers=headers, timeout=30, trust_env=False) as http:
        async with http.stream("GET", url) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            async for event, id, data in sse(response):
                if event == "phase":
                    assert data["phase"] == "ready"
                    continue
                assert id == str(data["sequence"])
                seen.append(data)
                if len(seen) == len(before):
                    assert seen == before
                    await anyio.to_thread.run_sync(say, nestor, key, conversation, "more")
                if len(seen) == len(before) + 2:
                    break
        after = await anyio.to_thread.run_sync(logged, nestor, key, conversation)
        assert seen == after
        async with http.stream("GET", url, headers={"Last-Event-ID": str(len(after) - 1)}) as response:
            numbers = [id async for event, id, _ in first(sse(response), "event", 1)]
        assert numbers == [str(len(after))]


async def first(blocks: AsyncIterator[Any], event: str, count: int) -> AsyncIterator[Any]:
    """As many blocks of that kind."""
    async for block in blocks:
        if block[0] == event:
            yield block
            count -= 1
            if not count:
                return


async def test_a_stream_ends_when_the_conversation_is_gone(
    nestor: OrchestratorProcess, key: str, conversation: str
) -> None:
    url = f"{nestor.url}/api/v2/conversations/{conversation}/events/stream?after=100000"
    phases = []
    async with (
        httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False) as http,
        http.stream("GET", url) as response,
    ):
        async for event, _, data in sse(response):
            if event == "gone":
                break
            phases.append(data["phase"])
            if phases == ["ready"]:
                await anyio.to_thread.run_sync(nestor.call, "DELETE", f"/api/v2/conversations/{conversation}", key)
    assert phases[0] == "ready"


async def test_streams_refuse_strangers(nestor: OrchestratorProcess, key: str, conversation: str) -> None:
    tenant = await anyio.to_thread.run_sync(lambda: nestor.call("POST", "/api/v2/tenants", json={"name": "globex"}))
    path = f"/api/v2/tenants/{tenant['id']}/api-keys"
    other = (await anyio.to_thread.run_sync(lambda: nestor.call("POST", path, json={"name": "k"})))["key"]
    async with httpx.AsyncClient(trust_env=False) as http:
        url = f"{nestor.url}/api/v2/conversations/{conversation}/events/stream"
        assert (await http.get(url)).status_code == 401
        foreign = await http.get(url, headers={"Authorization": f"Bearer {other}"})
        missing = await http.get(
            url.replace(conversation, str(uuid.uuid4())), headers={"Authorization": f"Bearer {other}"}
        )
        assert foreign.status_code == missing.status_code == 404
        assert foreign.json()["detail"] == missing.json()["detail"]
        bad = await http.get(url, headers={"Authorization": f"Bearer {key}", "Last-Event-ID": "x"})
        assert bad.status_code == 422


def socket_url(nestor: OrchestratorProcess, id: str, query: str = "") -> str:
    return f"{nestor.url.replace('http', 'ws')}/api/v2/conversations/{id}/events/socket{query}"


async def test_the_socket_tells_the_same(nestor: OrchestratorProcess, key: str, conversation: str) -> None:
    before = await anyio.to_thread.run_sync(logged, nestor, key, conversation)
    seen = []
    async with connect(socket_url(nestor, conversation, "?after=10"), proxy=None) as websocket:
        await websocket.send(json.dumps({"type": "auth", "key": key}))
        with anyio.fail_after(30):
            while len(seen) < len(before) - 10:
                frame = json.loads(await websocket.recv())
                if frame["type"] == "event":
                    seen.append({"sequence": frame["sequence"], "event": frame["event"]})
    assert seen == before[10:]


@pytest.mark.parametrize(
    ("first_frame", "id", "query", "code"),
    [
        ({"type": "auth", "key": "wrong"}, None, "", 4001),
        ({"type": "hello"}, None, "", 4001),
        ("no json", None, "", 4001),
        (None, "5a1e4c33-6d0b-4a51-9c53-0c1f6f7f4a10", "", 4004),
        (None, "no-id", "", 1008),
        (None, None, "?after=x", 1008),
    ],
)
async def test_the_socket_says_why_it_closes(
    nestor: OrchestratorProcess, key: str, conversation: str, first_frame: Any, id: str | None, query: str, code: int
) -> None:
    frame = {"type": "auth", "key": key} if first_frame is None else first_frame
    async with connect(socket_url(nestor, id or conversation, query), proxy=None) as websocket:
        await websocket.send(frame if isinstance(frame, str) else json.dumps(frame))
        with pytest.raises(ConnectionClosed) as closed:
            await drained(websocket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code


async def closed_with(websocket: ClientConnection) -> tuple[int, str]:
    """How the other side closes it."""
    with pytest.raises(ConnectionClosed) as closed:
        await drained(websocket)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def made(nestor: OrchestratorProcess, **body: Any) -> tuple[str, str]:
    """A tenant's key and its conversation, ready."""
    tenant = nestor.call("POST", "/api/v2/tenants", json={"name": "acme"}, status=201)["id"]
    key = nestor.call("POST", f"/api/v2/tenants/{tenant}/api-keys", json={"name": "k"}, status=201)["key"]
    nestor.call("PATCH", "/api/v2/settings", key, json=MODEL, status=200)
    return key, nestor.call("POST", "/api/v2/conversations?wait=ready", key, json=body, status=200)["id"]


def key_of(nestor: OrchestratorProcess, key: str, **body: Any) -> dict[str, Any]:
    """Another key of the same tenant."""
    id = f"{key.split('_')[2]}"
    tenants = nestor.call("GET", "/api/v2/tenants", status=200)["items"]
    for tenant in tenants:
        path = f"/api/v2/tenants/{tenant['id']}/api-keys"
        keys = nestor.call("GET", path, params={"ids": id}, status=200)["items"]
        if keys != [None]:
            other = nestor.call("POST", path, json={"name": "another", **body}, status=201)
            return {**other, "path": f"{path}/{other['id']}"}
    raise AssertionError("whose key is that?")


async def test_a_key_without_the_scope_is_4003(nestor: OrchestratorProcess, key: str, conversation: str) -> None:
    blind = await anyio.to_thread.run_sync(lambda: key_of(nestor, key, scopes=["write"]))
    async with connect(socket_url(nestor, conversation), proxy=None) as websocket:
        await websocket.send(json.dumps({"type": "auth", "key": blind["key"]}))
        assert await closed_with(websocket) == (4003, "this key lacks the scope read")


async def test_a_key_that_is_revoked_is_told_nothing_more(
    nestor: OrchestratorProcess, key: str, conversation: str
) -> None:
    other = await anyio.to_thread.run_sync(lambda: key_of(nestor, key))
    headers = {"Authorization": f"Bearer {other['key']}"}
    url = f"{nestor.url}/api/v2/conversations/{conversation}/events/stream?after=100000"
    async with (
        httpx.AsyncClient(headers=headers, timeout=30, trust_env=False) as http,
        http.stream("GET", url) as response,
        connect(socket_url(nestor, conversation, "?after=100000"), additional_headers=headers, proxy=None) as websocket,
    ):
        assert json.loads(await websocket.recv())["type"] == "phase"
        blocks = sse(response)
        assert (await anext(blocks))[0] == "phase"
        await anyio.to_thread.run_sync(lambda: nestor.call("DELETE", other["path"], status=204))
        await anyio.sleep(1)
        path = f"/api/v2/conversations/{conversation}/stop"
        await anyio.to_thread.run_sync(lambda: nestor.call("POST", path, key))
        with anyio.fail_after(15):
            assert await closed_with(websocket) == (4001, "Authentication failed")
            assert [block async for block in blocks] == []
        assert (await http.get(url)).status_code == 401


async def test_a_key_that_opens_too_many_is_4008(tmp_path: Path) -> None:
    with orchestrator_at(tmp_path / "data", driver="fake", NESTOR_CALLS_PER_SECOND_PER_KEY="1") as nestor:
        key, id = await anyio.to_thread.run_sync(made, nestor)
        headers, codes = {"Authorization": f"Bearer {key}"}, []
        with anyio.fail_after(30):
            while not codes:
                async with connect(socket_url(nestor, id), additional_headers=headers, proxy=None) as websocket:
                    try:
                        assert json.loads(await websocket.recv())["type"] == "phase"
                    except ConnectionClosed as closed:
                        codes.append(closed.rcvd)
        assert (codes[0].code, codes[0].reason) == (4008, "this key sends more calls than it may; come again in 1 s")
        url = f"{nestor.url}/api/v2/conversations/{id}/events/stream"
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(url, headers=headers)).status_code == 429


async def test_a_cursor_before_what_is_lost_is_4010_and_says_where_to_go_on(tmp_path: Path) -> None:
    def spoken() -> tuple[str, str, int]:
        key, id = made(nestor, initial_message="SAY:399")
        last = logged(nestor, key, id)[-1]["sequence"]
        nestor.call("POST", f"/api/v2/conversations/{id}/stop", key)
        nestor.until(key, id, "stopped")
        return key, id, last

    def segments() -> list[Path]:
        return sorted((nestor.data_dir / "events").rglob("0*.events"))

    with orchestrator_at(tmp_path / "data", driver="fake") as nestor:
        key, id, last = await anyio.to_thread.run_sync(spoken)
        headers = {"Authorization": f"Bearer {key}"}
        with anyio.fail_after(20):
            while not segments():
                await anyio.sleep(0.05)
        segments()[-1].unlink()
        async with connect(socket_url(nestor, id), additional_headers=headers, proxy=None) as websocket:
            code, reason = await closed_with(websocket)
        assert (code, reason) == (4010, f"what is behind cannot be read; go on with after={last}")
        behind = socket_url(nestor, id, f"?after={last}")
        async with connect(behind, additional_headers=headers, proxy=None) as websocket:
            assert json.loads(await websocket.recv())["phase"] == "stopped"


async def test_an_orchestrator_that_ends_says_1012(tmp_path: Path) -> None:
    with orchestrator_at(tmp_path / "data", driver="fake") as nestor:
        key, id = await anyio.to_thread.run_sync(made, nestor)
        headers = {"Authorization": f"Bearer {key}"}
        async with connect(socket_url(nestor, id), additional_headers=headers, proxy=None) as websocket:
            assert json.loads(await websocket.recv())["phase"] == "ready"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, nestor.end)
                assert (await closed_with(websocket))[0] == 1012


async def drained(websocket: ClientConnection) -> None:
    """Read until it is closed."""
    with anyio.fail_after(20):
        while True:
            await websocket.recv()


async def test_a_reader_notices_the_next_phase(nestor: OrchestratorProcess, key: str, conversation: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    phases: list[str] = []
    async with connect(socket_url(nestor, conversation), additional_headers=headers, proxy=None) as websocket:
        with anyio.fail_after(30):
            while "stopped" not in phases:
                frame = json.loads(await websocket.recv())
                if frame["type"] == "phase":
                    phases.append(frame["phase"])
                    if phases == ["ready"]:
                        path = f"/api/v2/conversations/{conversation}/stop"
                        await anyio.to_thread.run_sync(nestor.call, "POST", path, key)
    assert phases[0] == "ready"


async def frames(socket: ClientConnection) -> AsyncIterator[Any]:
    """Until it is closed, however that is."""
    with suppress(ConnectionClosed):
        while True:
            yield await socket.recv()


@pytest.mark.parametrize("kind", ["events", "socket", "logs"])
async def test_a_stream_tells_nothing_more_once_its_key_is_revoked(
    nestor: OrchestratorProcess, tenant: str, key: str, conversation: str, kind: str
) -> None:
    body = {"name": "of the stream"}
    made = nestor.call("POST", f"/api/v2/tenants/{tenant}/api-keys", json=body, status=201)
    at = f"/api/v2/conversations/{conversation}"
    headers = {"Authorization": f"Bearer {made['key']}"}

    def revoke_and_speak() -> None:
        nestor.call("DELETE", f"/api/v2/tenants/{tenant}/api-keys/{made['id']}", status=204)
        time.sleep(1)  # what is promised
        nestor.call("POST", f"{at}/messages", key, json={"content": "said after that"}, status=202)

    with anyio.fail_after(60):
        if kind == "socket":
            url = nestor.url.replace("http", "ws", 1)
            async with connect(f"{url}{at}/events/socket", additional_headers=headers) as socket:
                await socket.recv()
                await anyio.to_thread.run_sync(revoke_and_speak)
                told = "".join([str(frame) async for frame in frames(socket)])
                assert socket.close_code == 4001
        else:
            path = "/events/stream" if kind == "events" else "/logs?follow=true"
            async with (
                httpx.AsyncClient(base_url=nestor.url, headers=headers, timeout=60, trust_env=False) as http,
                http.stream("GET", f"{at}{path}") as answer,
            ):
                pieces = answer.aiter_text()
                await anext(pieces)
                await anyio.to_thread.run_sync(revoke_and_speak)
                told = "".join([piece async for piece in pieces])
            assert "event: gone" not in told
            assert "event: end" not in told
        assert "said after that" not in told


def test_the_place_of_the_listener_is_remembered(tmp_path: Path) -> None:
    with orchestrator_at(tmp_path / "data", driver="fake") as nestor:
        remembered = (nestor.data_dir / "runtime-facing.port").read_text()
        nestor.kill()
        nestor.start()
        assert (nestor.data_dir / "runtime-facing.port").read_text() == remembered
