"""The state server does what it was asked, and its answer is lost: nothing stays half told."""

from typing import Any

import pytest
from support.orchestrators import Nestor

from orchestrator.domain.errors import StoreUnavailable


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
