"""Who may ask what (contract 1.1, 1.3): every operation of the document, every socket, and pages of browsers."""

import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import websockets

from orchestrator.demo.model_server import ScriptedModel
from runtime.api import socket_auth
from runtime.app import build_app
from runtime.settings import RuntimeSettings
from tests.support.runtimes import KEY, Frames, Runtime, runtime_at

pytestmark = pytest.mark.anyio

SOME_ID = "01234567-89ab-cdef-0123-456789abcdef"
OPEN = ("/", "/health", "/alive", "/ready", "/server_info", "/docs", "/redoc", "/openapi.json")
SOCKETS = ("events", "session", "bash-events")
WRONG: list[dict[str, Any]] = [
    {},
    {"headers": {"X-Session-API-Key": "wrong"}},
    {"headers": {"X-Session-API-Key": KEY + "x"}},
    {"headers": {"Authorization": f"Bearer {KEY}"}},
    {"params": {"session_api_key": KEY}},
]


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with ScriptedModel() as model, runtime_at(tmp_path, model.base_url) as made:
        yield made


def operations() -> list[tuple[str, str]]:
    paths = build_app(RuntimeSettings()).openapi()["paths"]
    return [
        (method.upper(), re.sub(r"\{[a-z_]+\}", SOME_ID, path))
        for path, methods in paths.items()
        for method in methods
        if path not in OPEN
    ]


async def test_every_operation_needs_the_key_in_its_header(runtime: Runtime) -> None:
    every = operations()
    assert len(every) > 90
    async with httpx.AsyncClient(base_url=runtime.url, trust_env=False) as stranger:
        for number, (method, path) in enumerate(every):
            if path == "/api/init":
                continue  # it is asked with a key of its own
            for given in (WRONG[0], WRONG[1 + number % 4]):
                if path.startswith("/v1/") and "Authorization" in given.get("headers", {}):
                    continue  # there a bearer token is the other way
                answer = await stranger.request(method, path, content=b"{", **given)
                assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"}), (method, path, given)
        for path in OPEN:
            assert (await stranger.get(path)).status_code == 200, path


async def test_a_key_that_is_added_opens_and_one_that_is_dropped_does_not(tmp_path: Path) -> None:
    for keys in ((KEY,), ("next-key", KEY), ("next-key",)):
        async with runtime_at(tmp_path, session_api_keys=keys) as runtime:
            for key in (KEY, "next-key"):
                answer = await runtime.http.get("/api/conversations/count", headers={"X-Session-API-Key": key})
                assert answer.status_code == (200 if key in keys else 401)


# -- sockets


def address(runtime: Runtime, kind: str, conversation: str, query: str = "") -> str:
    place = kind if kind == "bash-events" else f"{kind}/{conversation}"
    return f"{runtime.url.replace('http', 'ws', 1)}/sockets/{place}{query}"


async def is_served(connection: Any, runtime: Runtime, kind: str) -> bool:
    """Whether this socket tells what happens."""
    frames = Frames(connection)
    if kind != "bash-events":
        return bool(await frames.next())
    command = f": {uuid4()}"
    await connection.send(json.dumps({"command": command}))
    while (told := await frames.next()).get("command") != command:
        pass  # the end of what an earlier connection sent is told here as well
    return bool(told["kind"] == "BashCommand")


@pytest.mark.parametrize("kind", SOCKETS)
async def test_the_three_ways_to_show_the_key_to_a_socket(runtime: Runtime, kind: str) -> None:
    id = await runtime.start()
    async with websockets.connect(address(runtime, kind, id, f"?session_api_key={KEY}")) as connection:
        assert await is_served(connection, runtime, kind)
    headers = {"X-Session-API-Key": KEY}
    async with websockets.connect(address(runtime, kind, id), additional_headers=headers) as connection:
        assert await is_served(connection, runtime, kind)
    auth = json.dumps({"type": "auth", "session_api_key": KEY})
    async with websockets.connect(address(runtime, kind, id)) as connection:
        await connection.send(auth)
        assert await is_served(connection, runtime, kind)
        await connection.send(auth)  # once more: ignored without a word
        await (await connection.ping())
    for query, more in (("?session_api_key=wrong", {}), ("", {"X-Session-API-Key": "wrong"})):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(address(runtime, kind, id, query), additional_headers=more)
        assert refused.value.response.status_code == 403
    bearer = {"Authorization": f"Bearer {KEY}"}
    for frame in ("no json", "[]", '{"type":"x"}', json.dumps({"type": "auth", "session_api_key": "wrong"})):
        async with websockets.connect(address(runtime, kind, id), additional_headers=bearer) as connection:
            await connection.send(frame)
            assert await Frames(connection).close_code() == 4001
            assert connection.close_reason == "Authentication failed"


@pytest.mark.parametrize("kind", SOCKETS)
async def test_without_keys_sockets_are_open_and_late_words_are_no_auth(tmp_path: Path, kind: str) -> None:
    async with ScriptedModel() as model, runtime_at(tmp_path, model.base_url, session_api_keys=()) as runtime:
        id = await runtime.start()
        async with websockets.connect(address(runtime, kind, id)) as connection:
            assert await is_served(connection, runtime, kind)


def test_a_socket_waits_ten_seconds_for_the_key() -> None:
    assert socket_auth.AUTH_SECONDS == 10.0


async def test_a_frame_that_is_too_large_ends_its_socket_alone(runtime: Runtime) -> None:
    id = await runtime.start()
    async with runtime.socket(id) as frames, runtime.socket(id) as other:
        assert (await frames.next())["key"] == "full_state"
        with contextlib.suppress(websockets.ConnectionClosed):
            await frames.connection.send("x" * (17 << 20))
        assert await frames.close_code() == 1009
        assert (await other.next())["key"] == "full_state"
    assert (await runtime.http.get("/health")).status_code == 200


# -- browsers


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE", "PUT"])
async def test_a_preflight_allows_every_method_and_header_with_credentials(runtime: Runtime, method: str) -> None:
    asked = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "x-session-api-key, x-anything",
    }
    answer = await runtime.http.options("/api/settings", headers=asked)
    assert answer.status_code == 200
    assert method in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert {"x-session-api-key", "x-anything"} <= {name.strip() for name in allowed.split(",")}
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-max-age"] == "600"


async def test_an_answer_without_a_key_can_be_read_by_an_allowed_page(runtime: Runtime) -> None:
    headers = {"Origin": "http://127.0.0.1:5173", "X-Session-API-Key": "wrong"}
    answer = await runtime.http.get("/api/settings", headers=headers)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, "http://127.0.0.1:5173")


@pytest.mark.parametrize("kind", ["events", "session"])
async def test_a_socket_takes_ids_with_dashes_and_without_and_refuses_what_is_none(runtime: Runtime, kind: str) -> None:
    id = await runtime.start()
    for spelt in (id, id.replace("-", "")):
        async with runtime.socket(spelt, kind=kind) as frames:
            assert await frames.next()
    for query in ("", f"?session_api_key={KEY}"):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(address(runtime, kind, "no-uuid", query))
        assert refused.value.response.status_code == 403
