"""A runtime whose disk is full: its record says so with a hint, it goes on, and with space the word is taken back."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from support.orchestrators import Nestor, nestor_at

from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.drivers.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio
ABOUT = "/server_info"


async def record_with(nestor: Nestor, tenant: str, key: str, id: str, reason: str) -> dict[str, Any]:
    """The record as soon as that is its reason; rounds come at once."""
    with anyio.fail_after(60):
        while True:
            await nestor.house.store.conversations.poke(TenantId(tenant), ConversationId(id))
            nestor.house.workers.wake()
            found: dict[str, Any] = await nestor.call("GET", f"/api/v2/conversations/{id}", key, status=200)
            if found["reason"] == reason:
                return found
            await anyio.sleep(0.05)


async def test_a_full_disk_is_told_in_the_record_until_there_is_space(data_dir: Path, engine: FakeEngine) -> None:
    told = {"nestor": {"full": ["state", "workspace", "something else"]}}
    engine.script.fail("GET", ABOUT, 200, times=None, body=told)
    async with nestor_at(data_dir, engine) as nestor:
        tenant, key = await nestor.tenant()
        llm = {"model": "openai/scripted", "api_key": "sk-model-key-of-the-tests"}
        await nestor.call("PATCH", "/api/v2/settings", key, json={"agent_settings": {"llm": llm}}, status=200)
        made = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
        full = await record_with(nestor, tenant, key, made["id"], "disk_full")
        assert (full["phase"], full["status"], full["retryable"]) == ("ready", "running", True)
        assert full["message"] == "no space is left for workspace and state"
        assert "nothing has to be started again" in full["hint"]
        for nonsense in ({"nestor": "full"}, {"nestor": {"full": 7}}, {}):  # of a server that does not tell: as if none
            engine.script.clear()
            engine.script.fail("GET", ABOUT, 200, times=None, body=nonsense)
            assert (await record_with(nestor, tenant, key, made["id"], "requested"))["phase"] == "ready"
        engine.script.clear()
