"""Health, keys, cross-origin rules and errors: what every client of the runtime meets first."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from pydantic import SecretStr

from runtime.api import errors
from runtime.settings import RuntimeSettings

pytestmark = pytest.mark.anyio
Sample = Callable[[str], dict[str, Any]]
Configure = Callable[..., RuntimeSettings]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.mark.parametrize("name", ["01-alive", "01-health", "01-ready"])
async def test_health_answers_are_the_captured_ones(stranger: httpx.AsyncClient, sample: Sample, name: str) -> None:
    captured = sample(name)
    answer = await stranger.get(captured["request"]["path"])
    assert (answer.status_code, answer.json()) == (captured["response"]["status"], captured["response"]["body"])


@pytest.mark.parametrize("path", ["/server_info", "/"])
async def test_server_info_has_the_captured_fields(stranger: httpx.AsyncClient, sample: Sample, path: str) -> None:
    captured = sample("01-server_info")["response"]["body"]
    body = (await stranger.get(path)).json()
    own_words = body.pop("nestor")  # what an orchestrator asks before it configures it, and which disks are full
    assert own_words.keys() == {"version", "capabilities", "full"}
    assert own_words["full"] == []
    assert body.keys() == captured.keys()
    own = {"uptime", "idle_time", "python_version", "usable_tools", "capabilities"}
    assert {name: body[name] for name in body.keys() - own} == {name: captured[name] for name in captured.keys() - own}
    wanted = {"idempotent_conversation_create_v1", "tool_catalog_v1", "conversation_runtime_routes_v1"}
    assert set(body["capabilities"]) == wanted <= set(captured["capabilities"])
    assert {"terminal", "file_editor"} <= set(body["usable_tools"]) <= set(captured["usable_tools"])
    assert isinstance(body["uptime"], float)


ROUTES = [
    ("GET", "/api/settings"),
    ("PATCH", "/api/settings"),
    ("POST", "/api/settings"),
    ("GET", "/api/settings/secrets"),
    ("PUT", "/api/settings/secrets"),
    ("GET", "/api/settings/secrets/A"),
    ("DELETE", "/api/settings/secrets/A"),
    ("POST", "/api/add-git-providers"),
    ("POST", "/api/unset-provider-tokens"),
    ("GET", "/api/secrets"),
    ("POST", "/api/secrets"),
    ("PUT", "/api/secrets/A"),
    ("DELETE", "/api/secrets/A"),
    ("POST", "/api/conversations"),
    ("GET", "/api/conversations/count"),
    ("GET", "/api/conversations/search"),
    ("GET", "/api/conversations/01234567-89ab-cdef-0123-456789abcdef"),
    ("POST", "/api/conversations/01234567-89ab-cdef-0123-456789abcdef/run"),
    ("POST", "/api/conversations/01234567-89ab-cdef-0123-456789abcdef/events"),
    ("GET", "/api/conversations/01234567-89ab-cdef-0123-456789abcdef/events/search"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "credentials",
    [
        {},
        {"headers": {"X-Session-API-Key": "wrong"}},
        {"headers": {"X-Session-API-Key": ""}},
        {"headers": {"Authorization": "Bearer session-key-for-tests"}},
        {"params": {"session_api_key": "session-key-for-tests"}},
        {"cookies": {"oh_workspace_session_key": "session-key-for-tests"}},
    ],
)
async def test_without_the_key_in_its_header_every_route_is_401(
    stranger: httpx.AsyncClient, sample: Sample, method: str, path: str, credentials: dict[str, Any]
) -> None:
    stranger.cookies.update(credentials.get("cookies", {}))
    answer = await stranger.request(
        method, path, content=b"{not json", headers=credentials.get("headers"), params=credentials.get("params")
    )
    captured = sample("00-auth-401")["response"]
    assert (answer.status_code, answer.json()) == (captured["status"], captured["body"])


async def test_every_configured_key_opens(configure: Configure, serve: Serve) -> None:
    async with serve(configure(session_api_keys=["first", "second"]), key=None) as client:
        statuses = [
            (await client.get("/api/settings", headers={"X-Session-API-Key": key})).status_code
            for key in ("first", "second", "firstsecond")
        ]
    assert statuses == [200, 200, 401]


async def test_no_configured_key_means_open(configure: Configure, serve: Serve) -> None:
    async with serve(configure(session_api_keys=[" "]), key=None) as client:
        assert (await client.get("/api/settings")).status_code == 200


async def test_unknown_paths_are_404_with_and_without_key(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    for caller in (client, stranger):
        answer = await caller.get("/api/nothing-here")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


async def test_a_wrong_method_is_405(client: httpx.AsyncClient) -> None:
    answer = await client.put("/api/settings", json={})
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})


async def test_documentation_is_open(stranger: httpx.AsyncClient) -> None:
    assert (await stranger.get("/docs")).status_code == 200
    schema = (await stranger.get("/openapi.json")).json()
    assert {"/api/settings", "/api/settings/secrets/{name}", "/api/add-git-providers"} <= schema["paths"].keys()


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://app.example.org"])
async def test_allowed_origins_may_read(configure: Configure, serve: Serve, origin: str) -> None:
    async with serve(configure(allow_cors_origins=["http://app.example.org"])) as client:
        answer = await client.get("/api/settings", headers={"Origin": origin})
        preflight = await client.options(
            "/api/settings", headers={"Origin": origin, "Access-Control-Request-Method": "PATCH"}
        )
    assert answer.headers["access-control-allow-origin"] == origin
    assert preflight.status_code == 200
    assert preflight.headers["access-control-max-age"] == "600"


@pytest.mark.parametrize("origin", ["http://evil.example.org", "http://localhost.evil.org", "null", "http://[", "x"])
async def test_other_origins_are_refused(client: httpx.AsyncClient, origin: str) -> None:
    preflight = await client.options(
        "/api/settings", headers={"Origin": origin, "Access-Control-Request-Method": "GET"}
    )
    assert (preflight.status_code, preflight.text) == (400, "Disallowed CORS origin")
    assert "access-control-allow-origin" not in (await client.get("/alive", headers={"Origin": origin})).headers


async def test_a_body_beyond_the_limit_is_413_and_not_stored(client: httpx.AsyncClient) -> None:
    big = {"name": "A", "value": "x" * (1024 * 1024)}
    answer = await client.put("/api/settings/secrets", json=big)
    assert answer.status_code == 413
    assert "1048576 bytes" in answer.json()["detail"]
    assert (await client.get("/api/settings/secrets")).json() == {"secrets": []}


async def test_a_body_beyond_the_limit_is_413_without_a_length_too(client: httpx.AsyncClient) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"name":"A","value":"'
        for _ in range(20):
            yield b"x" * 65536
        yield b'"}'

    answer = await client.put("/api/settings/secrets", content=parts(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize(("asked", "status"), [("7", 200), (" 7 ", 200), ("8", 409), ("x", 409), (None, 200)])
async def test_a_request_for_another_generation_is_409(
    configure: Configure, serve: Serve, asked: str | None, status: int
) -> None:
    async with serve(configure(generation=7)) as client:
        headers = {"X-Generation": asked} if asked is not None else {}
        for path in ("/alive", "/api/settings"):
            assert (await client.get(path, headers=headers)).status_code == status


async def test_a_root_path_of_the_public_address_is_served(configure: Configure, serve: Serve) -> None:
    async with serve(configure(web_url="https://example.org/runtimes/one/")) as client:
        assert (await client.get("/server_info")).json()["docs"] == "/runtimes/one/docs"
        assert (await client.get("/runtimes/one/api/settings")).status_code == 200
        unkeyed = await client.get("/runtimes/one/api/settings", headers={"X-Session-API-Key": "wrong"})
    assert unkeyed.status_code == 401


async def test_encrypted_exposure_without_a_secret_key_is_503(configure: Configure, serve: Serve) -> None:
    async with serve(configure(secret_key=None)) as client:
        wanted = {"X-Expose-Secrets": "encrypted"}
        answers = [await client.get("/api/settings", headers=wanted)]  # nothing is stored yet
        await client.patch("/api/settings", json={"agent_settings_diff": {"llm": {"api_key": "sk-1"}}})
        answers.append(await client.get("/api/settings", headers=wanted))
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json()["detail"].startswith("Encryption not available: ")


def failing_app() -> FastAPI:
    app = FastAPI()
    errors.install(app)
    app.add_middleware(errors.ErrorEdge)

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("text-of-an-exception")

    @app.get("/bad-gateway")
    async def bad_gateway() -> None:
        raise HTTPException(502, "text-of-an-exception")

    @app.get("/wait")
    async def wait() -> None:
        raise HTTPException(503, "waiting for the model")

    return app


@pytest.mark.parametrize(("path", "status"), [("/crash", 500), ("/bad-gateway", 502)])
async def test_a_5xx_has_an_id_and_no_exception_text(
    path: str, status: int, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(failing_app()), base_url="http://runtime.test"
        ) as client:
            answer = await client.get(path)
    body = answer.json()
    assert (answer.status_code, body["detail"]) == (status, "Internal Server Error")
    assert "text-of-an-exception" not in answer.text
    logged = capsys.readouterr()
    assert body["error_id"] in logged.out + logged.err + caplog.text


async def test_a_deliberate_503_keeps_its_reason() -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(failing_app()), base_url="http://runtime.test"
    ) as client:
        answer = await client.get("/wait")
    assert (answer.status_code, answer.json()) == (503, {"detail": "waiting for the model"})


def test_settings_never_print_their_keys(configure: Configure) -> None:
    shown = repr(configure(secret_key="hidden-value", session_api_keys=["hidden-value"]))
    assert "hidden-value" not in shown
    assert isinstance(configure().secret_key, SecretStr)
