"""What is made before the first request: a spare that is claimed, and a runtime that is forked, parse at once."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from pydantic import SecretStr, TypeAdapter
from support.binding import bind

from runtime import app, logs, rehearsal, state
from runtime.settings import RuntimeSettings

pytestmark = pytest.mark.anyio
Configure = Callable[..., RuntimeSettings]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
KEY = "session-key-for-tests"
INIT_KEY = SecretStr("init-key-of-a-spare")
NEW_ID = "6e9f5f0e-6f5b-4a0a-9c39-0a8b3b1d7f10"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many parsers of bodies and parameters were made since it was asked last."""
    count = 0
    real = TypeAdapter.__init__

    def counted(self: TypeAdapter[Any], *given: Any, **named: Any) -> None:
        nonlocal count
        count += 1
        real(self, *given, **named)

    def since() -> int:
        nonlocal count
        found, count = count, 0
        return found

    monkeypatch.setattr(TypeAdapter, "__init__", counted)
    return since


@pytest.fixture(autouse=True)
def nothing_prepared() -> Iterator[None]:
    yield
    app._prepared.clear()


async def bound_and_configured(client: httpx.AsyncClient) -> None:
    body = {"session_api_keys": [KEY], "secret_key": "a secret key"}
    answers = [
        await bind(client, INIT_KEY.get_secret_value(), body),
        await client.post("/api/settings", json={"llm_model": "openai/one"}),
        await client.post("/api/secrets", json={"secrets": {"NAME": "value"}}),
        await client.get(f"/api/conversations/{NEW_ID}"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 404]


async def test_one_that_was_prepared_makes_no_parser_for_a_request(
    configure: Configure, serve: Serve, made: Callable[[], int]
) -> None:
    threads = set(threading.enumerate())
    await asyncio.to_thread(app.prepare)  # a zygote has no loop when it does this
    assert set(threading.enumerate()) <= threads | {one for one in threading.enumerate() if "asyncio" in one.name}
    assert made() > 100
    async with serve(configure(session_api_keys=[]), init_key=INIT_KEY) as client:
        made()
        await bound_and_configured(client)
        assert made() == 0


async def test_who_is_alive_makes_no_parser_for_a_start(
    configure: Configure, serve: Serve, made: Callable[[], int]
) -> None:
    async with serve(configure(session_api_keys=[]), init_key=INIT_KEY) as client:
        made()
        body = {"session_api_keys": [KEY], "secret_key": "a secret key", "allow_set_conversation_id": True}
        answers = [
            await bind(client, INIT_KEY.get_secret_value(), body),
            await client.post("/api/settings", json={"llm_model": "openai/one"}),
            await client.patch("/api/settings", json={"agent_settings_diff": {"llm": {"num_retries": 1}}}),
            await client.post("/api/add-git-providers", json={"provider_tokens": {"github": {"token": "t"}}}),
            await client.post("/api/secrets", json={"secrets": {"NAME": "value"}}),
            await client.post("/api/settings/digests", json={"secrets": ["NAME"]}, headers={"X-Fence": "1"}),
            await client.post("/api/conversations", json={"conversation_id": NEW_ID}),
        ]
        assert [answer.status_code for answer in answers] == [200] * 7
        assert made() == 0


async def test_a_spare_makes_them_while_it_waits_and_only_once(
    configure: Configure, serve: Serve, made: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "SPARE_AFTER_SECONDS", 0.0)
    async with serve(configure(session_api_keys=[]), init_key=INIT_KEY) as client:
        many = 0
        until = time.monotonic() + 20
        while many < 100 or (latest := made()):
            many += made() if many < 100 else latest
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        await bound_and_configured(client)
        assert made() == 0


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Calls of rehearsals, as they come. Folders of rehearsals are made below `tmp_path`/temporary."""
    calls: list[str] = []
    real = rehearsal._Client.call
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    async def noted(self: rehearsal._Client, method: str, path: str, body: Any) -> None:
        await real(self, method, path, body)
        calls.append(f"{method} {path}")

    monkeypatch.setattr(rehearsal._Client, "call", noted)
    return calls


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lines that would be written of starts and rehearsals, whatever other tests have configured."""
    capture = structlog.testing.LogCapture()
    logger = structlog.wrap_logger(None, processors=[logs.unless_quiet, capture])
    for module in (rehearsal, state):
        monkeypatch.setattr(module, "log", logger)
    return capture.entries


async def test_a_spare_rehearses_a_start_and_nothing_of_it_stays(
    configure: Configure,
    serve: Serve,
    rehearsed: list[str],
    said: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    imports: list[None] = []
    monkeypatch.setattr(app, "SPARE_AFTER_SECONDS", 0.0)
    monkeypatch.setattr("runtime.conversations.agents.warm_up", lambda: imports.append(None))
    settings = configure(session_api_keys=[])
    async with serve(settings, init_key=INIT_KEY) as client:
        until = time.monotonic() + 20
        while len(rehearsed) < 9 * rehearsal._TIMES or any((tmp_path / "temporary").iterdir()):
            assert time.monotonic() < until, (rehearsed, said)
            await asyncio.sleep(0.05)
        assert (await client.get("/api/init")).json()["state"] == "dormant"
        assert not any(folder.exists() for folder in (settings.persistence_dir, settings.conversations_path))
        assert not said
        assert not imports
        await bound_and_configured(client)
        assert (await client.get("/api/conversations/search")).json()["items"] == []
        assert (await client.get("/api/settings")).json()["agent_settings"]["llm"]["model"] == "openai/one"
        assert "runtime.ready" in [line["event"] for line in said]


async def test_a_rehearsal_ends_when_the_spare_is_bound(
    configure: Configure, rehearsed: list[str], tmp_path: Path
) -> None:
    settings = configure(session_api_keys=[])
    routed = app._routed()
    await rehearsal.rehearse(lambda state: app._understudy(routed, state), settings, wanted=lambda: len(rehearsed) < 3)
    assert rehearsed == ["GET /api/init", "POST /api/init", "POST /api/settings"]
    assert not any((tmp_path / "temporary").iterdir())


async def test_a_rehearsal_that_is_refused_says_so_and_harms_nobody(
    configure: Configure, serve: Serve, rehearsed: list[str], said: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "SPARE_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(rehearsal, "_calls", lambda key: iter([("GET", "/api/nothing", None)]))
    async with serve(configure(session_api_keys=[]), init_key=INIT_KEY) as client:
        until = time.monotonic() + 20
        while not any(line["event"] == "runtime.not_rehearsed" for line in said):
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        await bound_and_configured(client)


async def test_one_that_is_bound_at_once_makes_what_it_is_asked_for(
    configure: Configure, serve: Serve, made: Callable[[], int]
) -> None:
    async with serve(configure(session_api_keys=[]), init_key=INIT_KEY) as client:
        made()
        await bound_and_configured(client)
        assert 0 < made() < 100
