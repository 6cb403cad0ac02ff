"""The state server does what it was asked, and its answer is lost: nothing stays half told."""

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from support.orchestrators import Nestor

from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.ids import RuntimeId
from orchestrator.state import keys


async def test_an_operation_that_was_replaced_ends_although_the_answer_of_that_step_was_lost(
    nestor: Nestor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await nestor.ready_tenant()
    nestor.engine.script.hang("POST", "/api/settings", times=1)
    started = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    path = f"/api/v2/conversations/{started['id']}"
    await nestor.until(key, started["id"], "configuring")
    conversations = nestor.house.services.store.conversations
    request, lost = conversations.request, []

    async def answer_lost(*given: Any, **more: Any) -> bool:
        stored = await request(*given, **more)
        if not lost:
            lost.append(stored)
            raise StoreUnavailable("the state server cannot be reached")
        return stored

    monkeypatch.setattr(conversations, "request", answer_lost)
    await nestor.call("POST", f"{path}/stop", key, status=503)
    stopped = await nestor.call("POST", f"{path}/stop", key, status=202)
    assert lost == [True]
    assert stopped["operation"] != started["operation"]
    assert (await nestor.ended(key, started["operation"]))["state"] == "failed"
    assert (await nestor.ended(key, stopped["operation"], seconds=30))["state"] == "succeeded"
    await nestor.until(key, started["id"], "stopped")


async def test_what_points_to_a_conversation_that_never_came_goes_and_of_one_that_did_it_stays(
    nestor: Nestor, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await nestor.ready_tenant()
    conversations = nestor.house.services.store.conversations
    put, create, routes = conversations.put_route, conversations.create, []

    async def noted(runtime: RuntimeId, *given: Any, **more: Any) -> None:
        routes.append(runtime)
        await put(runtime, *given, **more)

    async def lost(*given: Any, **more: Any) -> Any:
        monkeypatch.setattr(conversations, "create", create)
        raise StoreUnavailable("the state server cannot be reached")

    monkeypatch.setattr(conversations, "put_route", noted)
    monkeypatch.setattr(conversations, "create", lost)
    await nestor.call("POST", "/api/v2/conversations", key, json={}, status=503)
    record = await nestor.call("POST", "/api/v2/conversations?wait=ready", key, json={}, status=200)
    dangling, used = routes[0], RuntimeId(record["runtime"]["id"])
    assert dangling != used
    (server,) = data_dir.rglob("server.sock")
    async with Redis(unix_socket_path=str(server)) as client:
        assert await client.pttl(keys.route(dangling)) > 0
        assert await client.pttl(keys.route(used)) == -1
