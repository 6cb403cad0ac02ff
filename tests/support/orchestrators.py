"""An orchestrator without its listening server: the real API, services, workers and state server; the fake driver."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx

from orchestrator.api import runtime_facing
from orchestrator.app import api
from orchestrator.app.furnishing import House
from orchestrator.app.house import open_house
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.settings import OrchestratorSettings
from support.late import PAUSE_SECONDS, TRIES, is_late

OPERATOR_KEY = "operator-key-of-the-tests-0123456789"
MODEL = {"agent_settings": {"llm": {"model": "openai/scripted", "api_key": "sk-model-key-of-the-tests"}}}


@dataclass
class Nestor:
    """What a test talks to."""

    house: House
    engine: FakeEngine
    http: httpx.AsyncClient

    def as_(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    async def call(
        self, method: str, path: str, key: str = OPERATOR_KEY, *, status: int | None = None, **more: Any
    ) -> Any:
        headers = self.as_(key) | more.pop("headers", {})
        for _ in range(TRIES):
            response = await self.http.request(method, path, headers=headers, **more)
            if status in (None, 503) or not is_late(response):
                break
            await anyio.sleep(PAUSE_SECONDS)
        if status is not None:
            assert response.status_code == status, response.text
        return response.json() if response.content else None

    async def tenant(self, name: str = "acme") -> tuple[str, str]:
        """A new tenant with a key; its id and the key."""
        tenant = await self.call("POST", "/api/v2/tenants", json={"name": name}, status=201)
        key = await self.call("POST", f"/api/v2/tenants/{tenant['id']}/api-keys", json={"name": "k"}, status=201)
        return tenant["id"], key["key"]

    async def ready_tenant(self, name: str = "acme") -> str:
        """The key of a new tenant that has a model."""
        _, key = await self.tenant(name)
        await self.call("PATCH", "/api/v2/settings", key, json=MODEL, status=200)
        return key

    async def ended(self, key: str, operation: str, seconds: float = 10) -> dict[str, Any]:
        """The operation, as soon as it has ended: the record is stored a moment before."""
        with anyio.fail_after(seconds):
            while True:
                found = await self.call("GET", f"/api/v2/operations/{operation}", key, status=200)
                if found["state"] != "running":
                    return found
                await anyio.sleep(0.02)

    async def until(self, key: str, conversation: str, *phases: str, seconds: float = 20) -> dict[str, Any]:
        """The record, as soon as its phase is one of `phases`."""
        with anyio.fail_after(seconds):
            while True:
                record = await self.call("GET", f"/api/v2/conversations/{conversation}", key)
                if record.get("phase") in phases:
                    return record
                await anyio.sleep(0.02)


@asynccontextmanager
async def nothing_left(house: House) -> AsyncIterator[None]:
    """Whatever happens in the block, its runtimes are ended after it, when no worker works on them any more."""
    try:
        yield
    finally:
        for handle in await house.driver.list(house.installation):
            await house.driver.destroy(handle, fence=2**40)


@asynccontextmanager
async def nestor_at(data_dir: Path, engine: FakeEngine | None, **settings: Any) -> AsyncIterator[Nestor]:
    """One life of an orchestrator over a data folder and an engine that outlive it; without one, with the driver that
    the settings name, whose runtimes end with this life: real ones would outlive the test."""
    chosen = OrchestratorSettings(
        data_dir=data_dir, operator_key=OPERATOR_KEY, verify_git_tokens=False, **{"driver": "fake", **settings}
    )
    driver = None if engine is None else FakeDriver(engine)
    async with (
        open_house(chosen, "http://127.0.0.1:1", driver=driver) as house,
        nothing_left(house) if engine is None else contextlib.nullcontext(),
    ):
        transport = httpx.ASGITransport(api.build(house.services), raise_app_exceptions=False)
        async with (
            anyio.create_task_group() as tasks,
            httpx.AsyncClient(transport=transport, base_url="http://nestor") as http,
        ):
            tasks.start_soon(house.workers.run)
            tasks.start_soon(house.reconciler.run)
            tasks.start_soon(house.queue.run)
            tasks.start_soon(house.reviewing.run)
            tasks.start_soon(house.activity.run)  # else what a runtime pushes keeps it "in use" for ever
            tasks.start_soon(house.shipper.run)
            tasks.start_soon(house.recover)
            tasks.start_soon(house.feed.run)
            tasks.start_soon(house.hooks.run)
            if house.facing is not None:
                tasks.start_soon(house.facing.serve, runtime_facing.build(house.intake))
            if house.pool is not None:
                tasks.start_soon(house.pool.run)
            tasks.start_soon(house.watch.run)
            tasks.start_soon(house.health.run)
            yield Nestor(house, engine or FakeEngine(), http)
            tasks.cancel_scope.cancel()
