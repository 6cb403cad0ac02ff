"""What is made before the first request: a spare that is claimed, and a runtime that is forked, parse at once."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, TypeAdapter
from support.binding import bind

from runtime import app
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
    app.prepare()
    assert made() > 100
    async with serve(configure(session_api_keys=[]), init_key=INIT_KEY) as client:
        made()
        await bound_and_configured(client)
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


async def test_one_that_is_bound_at_once_makes_what_it_is_asked_for(
    configure: Configure, serve: Serve, made: Callable[[], int]
) -> None:
    async with serve(configure(session_api_keys=[]), init_key=INIT_KEY) as client:
        made()
        await bound_and_configured(client)
        assert 0 < made() < 100
