"""A runtime application in this process, reached as a client reaches it, and the contract's captured answers."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.app import build_app
from runtime.connection import CONNECTION, Connection
from runtime.settings import RuntimeSettings
from tests.support.runtime_fixtures import model, runtime

__all__ = ["model", "runtime"]

SAMPLES = Path(__file__).parent.parent / "samples"
KEY = "session-key-for-tests"

Configure = Callable[..., RuntimeSettings]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


class OneConnection:
    """All that reaches the application comes on one, as from `runtime.serving`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._state = app, {CONNECTION: Connection()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "state": self._state}, receive, send)


@pytest.fixture
def sample() -> Callable[[str], dict[str, Any]]:
    return lambda name: json.loads((SAMPLES / f"{name}.json").read_text())


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    def make(**changes: object) -> RuntimeSettings:
        values: dict[str, object] = {
            "session_api_keys": [KEY],
            "secret_key": "a secret key",
            "persistence_dir": tmp_path / "persistence",
            "conversations_path": tmp_path / "conversations",
            "workspace_path": tmp_path / "project",
        }
        return RuntimeSettings.model_validate({**values, **changes})

    return make


@pytest.fixture
def serve() -> Serve:
    @asynccontextmanager
    async def serving(
        settings: RuntimeSettings, *, init_key: SecretStr | None = None, key: str | None = KEY
    ) -> AsyncIterator[httpx.AsyncClient]:
        app = build_app(settings, init_key=init_key)
        app.add_middleware(OneConnection)
        headers = {"X-Session-API-Key": key} if key is not None else {}
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://runtime.test", headers=headers
            ) as client,
        ):
            yield client

    return serving


@pytest.fixture
async def client(configure: Configure, serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(configure()) as client:
        yield client


@pytest.fixture
def stranger(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """The same server without a key."""
    return httpx.AsyncClient(transport=client._transport, base_url="http://runtime.test")
