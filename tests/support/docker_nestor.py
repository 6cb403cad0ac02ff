"""An orchestrator with the docker driver as a process of its own, a scripted model on its bridge, and a client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx

from orchestrator.demo.bridge import bridge
from orchestrator.demo.model_server import ScriptedModel
from orchestrator.demo.orchestrator_process import orchestrator_process
from orchestrator.demo.script import write_script
from support import containers

ENGINE = "unix:///var/run/docker.sock"
STARTING = ("pending", "provisioning", "configuring", "stopping", "pausing", "resuming")
MODEL_KEY = "sk-planted-model-key-4711"


@dataclass
class Client:
    """Calls to a running orchestrator."""

    url: str
    operator_key: str
    model: ScriptedModel
    http: httpx.AsyncClient

    async def call(self, method: str, path: str, key: str, *, status: int | None = None, **more: Any) -> Any:
        answer = await self.http.request(
            method, self.url + path, headers={"Authorization": f"Bearer {key}"} | more.pop("headers", {}), **more
        )
        if status is not None:
            assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def tenant(self, name: str = "acme") -> str:
        """The key of a new tenant that has the scripted model."""
        tenant = await self.call("POST", "/api/v2/tenants", self.operator_key, json={"name": name}, status=201)
        path = f"/api/v2/tenants/{tenant['id']}/api-keys"
        key = (await self.call("POST", path, self.operator_key, json={"name": "k"}, status=201))["key"]
        llm = {"model": "openai/scripted", "api_key": MODEL_KEY, "base_url": self.model.base_url}
        await self.call("PATCH", "/api/v2/settings", key, json={"agent_settings": {"llm": llm}}, status=200)
        return key

    async def conversation(self, key: str, **body: Any) -> dict[str, Any]:
        """A conversation that is ready."""
        created = await self.call("POST", "/api/v2/conversations", key, json=body, status=202)
        return await self.until(key, created["id"], "ready")

    async def until(self, key: str, id: str, *phases: str, past: str = "", seconds: float = 60) -> dict[str, Any]:
        """The record as soon as it is in one of `phases`; `past` is where it may still be."""
        with anyio.fail_after(seconds):
            while True:
                found = await self.call("GET", f"/api/v2/conversations/{id}", key, status=200)
                if found["phase"] in phases:
                    return found
                assert found["phase"] in (past, *STARTING), found
                await anyio.sleep(0.1)

    async def run(self, key: str, id: str, *steps: dict[str, Any], seconds: float = 60) -> list[dict[str, Any]]:
        """Let the agent play these steps to the end; the conversation's events."""
        before = len(await self.events(key, id))
        content = "Please. " + write_script(steps)
        await self.call("POST", f"/api/v2/conversations/{id}/messages", key, json={"content": content}, status=202)
        with anyio.fail_after(seconds):
            while True:
                events = await self.events(key, id)
                if any(
                    event.get("key") == "execution_status" and event["value"] in ("finished", "error", "stuck")
                    for event in events[before:]
                ):
                    return events
                await anyio.sleep(0.2)

    async def gone(self, key: str, id: str, seconds: float = 30) -> None:
        """Until there is no such conversation."""
        with anyio.fail_after(seconds):
            headers = {"Authorization": f"Bearer {key}"}
            while (await self.http.get(f"{self.url}/api/v2/conversations/{id}", headers=headers)).status_code != 404:
                await anyio.sleep(0.1)

    async def events(self, key: str, id: str) -> list[dict[str, Any]]:
        page = await self.call("GET", f"/api/v2/conversations/{id}/events?limit=100", key, status=200)
        return [item["event"] for item in page["items"]]


@asynccontextmanager
async def talking_to(url: str, operator_key: str, *, gateway: str, port: int = 0) -> AsyncIterator[Client]:
    async with ScriptedModel(host=gateway, port=port) as model, httpx.AsyncClient(timeout=30, trust_env=False) as http:
        yield Client(url, operator_key, model, http)


@asynccontextmanager
async def nestor_in(folder: Path, *, engine: str = ENGINE, **settings: str) -> AsyncIterator[Client]:
    """An orchestrator for the length of the block. Everything that it made is gone afterwards, the bridge as well."""
    async with bridge(engine) as (network, gateway):
        told = {
            "NESTOR_DOCKER_HOST": engine,
            "NESTOR_RUNTIME_NETWORK": network,
            "NESTOR_ALLOW_HTTP_HOSTS": gateway,
            "NESTOR_RUNTIME_REACHES": gateway,
            "NESTOR_ACCEPT_WEAKER": "untried",
            "NESTOR_EGRESS": "open",  # what the tests of the way out change: a proxy each would take its time
            **settings,
        }
        async with (
            orchestrator_process(folder, driver="docker", settings=told) as running,
            talking_to(running.url, running.operator_key.open(), gateway=gateway) as client,
        ):
            yield client


def container_of(conversation: str) -> str:
    """The name of the conversation's container."""
    names = containers.docker(
        "ps", "-a", "--format", "{{.Names}}", "--filter", f"label=io.nestor.conversation={conversation}"
    ).split()
    assert len(names) == 1, names
    return names[0]
