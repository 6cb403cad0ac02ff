"""The edge of the server: the paths of the first releases, static files, origins, bearers, what is optional."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from orchestrator.demo.model_server import ScriptedModel
from runtime.app import build_app
from runtime.settings import RuntimeSettings
from tests.support.runtimes import KEY, Frames, Runtime, runtime_at

pytestmark = pytest.mark.anyio
Configure = Callable[..., RuntimeSettings]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with ScriptedModel() as model, runtime_at(tmp_path, model.base_url) as made:
        yield made


# -- the paths of the first releases


async def test_paths_without_api_answer_the_same(runtime: Runtime) -> None:
    id = await runtime.start()
    for path in (
        "/conversations/search",
        "/conversations/count",
        f"/conversations/{id}",
        f"/conversations/{id}/events/search?limit=1",
        "/tools/",
        "/settings",
        f"/file/search_subdirs?path={runtime.folder}",
    ):
        older, newer = await runtime.http.get(path), await runtime.http.get(f"/api{path}")
        assert (older.status_code, older.text) == (200, newer.text), path
    made = await runtime.http.post("/conversations", json=runtime.body())
    assert made.status_code == 201
    assert (await runtime.http.delete(f"/conversations/{made.json()['id']}")).json() == {"success": True}
    assert (await runtime.http.get("/nothing")).status_code == 404


async def test_a_path_without_api_needs_the_key_and_takes_it_as_a_bearer(runtime: Runtime) -> None:
    async with httpx.AsyncClient(base_url=runtime.url, trust_env=False) as stranger:
        bearer = {"Authorization": f"Bearer {KEY}"}
        assert (await stranger.get("/conversations/count")).status_code == 401
        assert (await stranger.get("/conversations/count", headers={"Authorization": "Bearer no"})).status_code == 401
        assert (await stranger.get("/conversations/count", headers=bearer)).status_code == 200
        assert (await stranger.get("/api/conversations/count", headers=bearer)).status_code == 401
        wrong = {**bearer, "X-Session-API-Key": "no"}
        assert (await stranger.get("/conversations/count", headers=wrong)).status_code == 401


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_the_older_socket_serves_the_same_events_and_takes_the_older_message(
    runtime: Runtime, prefix: str
) -> None:
    id = await runtime.start()
    address = f"{runtime.url.replace('http', 'ws', 1)}{prefix}/conversations/{id}/events/socket"
    async with websockets.connect(f"{address}?session_api_key={KEY}") as connection:
        frames = Frames(connection)
        assert (await frames.next())["key"] == "full_state"
        script = f"SCRIPT:{json.dumps([{'text': 'said over the older socket'}])}"
        await connection.send(json.dumps({"type": "message", "content": script}))
        got = await frames.until_state()
    texts = [event["llm_message"]["content"][0]["text"] for event in got if event["kind"] == "MessageEvent"]
    assert texts == [script, "said over the older socket"]
    with pytest.raises(websockets.InvalidStatus):
        async with websockets.connect(f"{address}?session_api_key=wrong"):
            pass


async def test_the_newer_socket_does_not_take_the_older_message(runtime: Runtime) -> None:
    id = await runtime.start()
    async with runtime.socket(id) as frames:
        await frames.next()
        await frames.connection.send(json.dumps({"type": "message", "content": "x"}))
        assert (await frames.next())["kind"] == "ServerErrorEvent"
    assert await runtime.events(id) == []


async def test_an_encoded_path_is_not_decoded_twice(runtime: Runtime) -> None:
    for path in ("/conversations/%2561", "/api/conversations/%2561"):
        assert (await runtime.http.get(path)).status_code == 422
    assert (await runtime.http.get("/%63onversations/count")).status_code == 200
    assert (await runtime.http.get("/conversations/%2e%2e/settings")).status_code in {404, 422}


def test_the_document_has_one_path_for_each_thing() -> None:
    paths = build_app(RuntimeSettings()).openapi()["paths"]
    assert "/api/conversations/search" in paths
    assert {path for path in paths if not path.startswith(("/api/", "/v1/"))} == {
        "/",
        *("/alive", "/health", "/ready", "/server_info"),
    }
    assert not [path for path in paths if path.endswith("/events/socket")]


async def test_below_a_root_path_the_older_paths_are_there_too(configure: Configure, serve: Serve) -> None:
    async with serve(configure(web_url="https://example.org/runtimes/one")) as client:
        assert (await client.get("/runtimes/one/conversations/count")).json() == 0
        assert (await client.get("/conversations/count")).json() == 0


async def test_a_trailing_slash_matters(runtime: Runtime) -> None:
    answer = await runtime.http.get("/api/tools")
    assert (answer.status_code, answer.headers["location"]) == (307, f"{runtime.url}/api/tools/")
    assert (await runtime.http.get("/api/tools/")).status_code == 200
    assert (await runtime.http.get("/api/settings/")).status_code == 307


# -- static files


async def test_static_files_are_open_and_the_root_leads_to_them(
    configure: Configure, serve: Serve, tmp_path: Path
) -> None:
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "page.txt").write_text("a page")
    (tmp_path / "outside.txt").write_text("not below the folder")
    (folder / "link").symlink_to(tmp_path / "outside.txt")
    async with serve(configure(static_files_path=folder), key=None) as client:
        root = await client.get("/")
        assert (root.status_code, root.headers["location"]) == (302, "/static/")
        (folder / "index.html").write_text("<p>welcome")
        assert (await client.get("/")).headers["location"] == "/static/index.html"
        assert (await client.get("/static/")).text == "<p>welcome"
        page = await client.get("/static/page.txt")
        assert (page.status_code, page.text) == (200, "a page")
        assert (await client.post("/static/page.txt")).status_code == 405
        for path in ("nothing", "%00", "a%00b", "..%2foutside.txt", "%2e%2e/outside.txt", "link", "x" * 5000):
            assert (await client.get(f"/static/{path}")).status_code == 404, path
        assert (await client.get("/server_info")).json()["title"] == "OpenHands Agent Server"


async def test_below_a_root_path_the_root_leads_there(configure: Configure, serve: Serve, tmp_path: Path) -> None:
    async with serve(configure(static_files_path=tmp_path, web_url="https://example.org/one")) as client:
        assert (await client.get("/one/")).headers["location"] == "/one/static/"


async def test_without_static_files_that_is_what_is_said(configure: Configure, serve: Serve, tmp_path: Path) -> None:
    for nothing in (None, tmp_path / "missing"):
        async with serve(configure(static_files_path=nothing), key=None) as client:
            answer = await client.get("/static/index.html")
            assert (answer.status_code, "OH_STATIC_FILES_PATH" in answer.json()["detail"]) == (404, True)
            assert (await client.get("/")).json()["title"] == "OpenHands Agent Server"


# -- origins and the workspace ticket


async def cors(client: httpx.AsyncClient, path: str, origin: str) -> tuple[int, str | None]:
    asked = {"Origin": origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-any"}
    answer = await client.options(path, headers=asked)
    return answer.status_code, answer.headers.get("access-control-allow-origin")


async def test_workspace_files_and_their_ticket_may_be_read_from_any_page(client: httpx.AsyncClient) -> None:
    origin = "https://anything.example.org"
    for path in (
        "/api/auth/workspace-session",
        "/api/conversations/01234567-89ab-cdef-0123-456789abcdef/workspace",
        "/api/conversations/01234567-89ab-cdef-0123-456789abcdef/workspace/a/b.html",
    ):
        assert await cors(client, path, origin) == (200, origin)
        assert await cors(client, path, "null") == (400, None)
        assert await cors(client, path, "file://x") == (400, None)
    for path in ("/api/settings", "/api/conversations/x/workspaces", "/api/auth/workspace-session/more"):
        assert await cors(client, path, origin) == (400, None)


async def test_origins_by_expression_and_the_docker_host(configure: Configure, serve: Serve) -> None:
    settings = configure(
        allow_cors_origin_regex=r"https://[a-z]+\.example\.org", docker_host_address="host.docker.internal"
    )
    async with serve(settings) as client:
        for origin in ("https://app.example.org", "http://host.docker.internal:3000", "https://localhost"):
            assert await cors(client, "/api/settings", origin) == (200, origin)
        for origin in ("https://app.example.org.evil.net", "https://x.app.example.org", "ftp://localhost"):
            assert await cors(client, "/api/settings", origin) == (400, None)


async def test_the_ticket_is_for_browsers_that_keep_it(configure: Configure, serve: Serve) -> None:
    wanted = "oh_workspace_session_key=*; HttpOnly; Max-Age=315360000; Path=/api/conversations; SameSite=*"
    async with serve(configure(trust_forwarded_headers=True)) as client:
        for headers, ending in (
            ({}, "lax"),
            ({"Host": "localhost:8000"}, "none; Secure; Partitioned"),
            ({"X-Forwarded-Proto": "https"}, "none; Secure; Partitioned"),
        ):
            answer = await client.post("/api/auth/workspace-session", headers=headers)
            first, _, rest = answer.headers["set-cookie"].partition(";")
            assert (answer.status_code, f"{first.partition('=')[0]}=*;{rest}") == (
                204,
                wanted.removesuffix("*") + ending,
            )
            assert "session-key-for-tests" not in first
        closed = await client.delete("/api/auth/workspace-session")
        assert closed.headers["set-cookie"].startswith("oh_workspace_session_key=; HttpOnly; Max-Age=0; ")
    async with serve(configure()) as client:
        answer = await client.post("/api/auth/workspace-session", headers={"X-Forwarded-Proto": "https"})
        assert answer.headers["set-cookie"].endswith("SameSite=lax")
    async with serve(configure(public_urls=["https://one.example.org"])) as client:
        answer = await client.post("/api/auth/workspace-session")
        assert answer.headers["set-cookie"].endswith("SameSite=none; Secure; Partitioned")


# -- what is optional


@pytest.mark.parametrize("path", ["/app-backends/some", "/app-backends/some/deeper/path"])
async def test_the_socket_of_an_extension_is_refused_with_words(runtime: Runtime, path: str) -> None:
    address = runtime.url.replace("http", "ws", 1) + path
    for query, status in ((f"?session_api_key={KEY}", 501), ("?session_api_key=no", 403), ("", 403)):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(address + query):
                pass
        assert refused.value.response.status_code == status
        body: Any = refused.value.response.body
        assert status != 501 or json.loads(body) == {"detail": "Not implemented here: canvas extensions"}
