"""What a client changes in a runtime itself is seen, told, and pushed again; what it adds there stays."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from support.orchestrators import Nestor, nestor_at

from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.services.start import made

pytestmark = pytest.mark.anyio
DIGESTS = "/api/settings/digests"
PLANTED = ("planted-secret-value-8841", "ghp_planted8842", "sk-model-key-of-the-tests")


async def ready(nestor: Nestor, **limits: float) -> tuple[TenantId, str, str]:
    """A tenant, its key, and a conversation with settings, a git provider and a secret."""
    tenant, key = await nestor.tenant()
    llm = {"model": "openai/scripted", "api_key": PLANTED[2]}
    body = {"agent_settings": {"llm": llm}, "conversation_settings": {"max_iterations": 77}, "limits": limits}
    await nestor.call("PATCH", "/api/v2/settings", key, json=body, status=200)
    await nestor.call("PUT", "/api/v2/secrets/MINE", key, json={"value": PLANTED[0]}, status=200)
    await nestor.call("PUT", "/api/v2/git-providers/github", key, json={"token": PLANTED[1]}, status=200)
    path = "/api/v2/conversations?wait=ready&timeout=60"
    record = await nestor.call("POST", path, key, json={}, status=200)
    return TenantId(tenant), key, record["id"]


async def configuration(nestor: Nestor, key: str, id: str) -> dict[str, Any]:
    return dict((await nestor.call("GET", f"/api/v2/conversations/{id}", key, status=200))["configuration"])


async def a_round(nestor: Nestor, tenant: TenantId, id: str) -> None:
    """The conversation's next round comes now instead of within ten seconds."""
    await nestor.house.store.conversations.poke(tenant, ConversationId(id))
    nestor.house.workers.wake()


async def repaired(nestor: Nestor, tenant: TenantId, key: str, id: str, repairs: int) -> dict[str, Any]:
    with anyio.fail_after(20):
        while True:
            await a_round(nestor, tenant, id)
            await anyio.sleep(0.1)
            found = await configuration(nestor, key, id)
            if found["drift"] is not None and found["drift"]["repairs"] == repairs:
                return found


@asynccontextmanager
async def client_of(nestor: Nestor, tenant: TenantId, id: str) -> AsyncIterator[httpx.AsyncClient]:
    """Of the runtime itself, as a client that the proxy let through."""
    record = made(await nestor.house.store.conversations.get(tenant, ConversationId(id)))
    key = made(await nestor.house.services.keys.inner_key(record)).open()
    address = f"http://{made(record.runtime).address}"
    async with httpx.AsyncClient(base_url=address, headers={"X-Session-API-Key": key}, trust_env=False) as http:
        yield http


async def test_each_part_that_a_client_changed_is_seen_told_and_repaired(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real runtime, with the process driver."""
    async with nestor_at(data_dir, None, driver="process", zygote="off", drift_seconds=0.2) as nestor:
        tenant, key, id = await ready(nestor)
        before = await configuration(nestor, key, id)
        assert (before["current"], before["compared"], before["drifted"], before["drift"]) == (
            True,
            "values",
            [],
            None,
        )
        assert before["names"]["secrets"] == ["MINE"]
        assert before["names"]["git_providers"] == ["github"]
        assert "/agent_settings/llm/model" in before["names"]["settings"]
        async with client_of(nestor, tenant, id) as http:
            await http.put("/api/settings/secrets", json={"name": "ADDED", "value": "a client's"})
            await http.delete("/api/settings/secrets/MINE")
            llm = {"model": "openai/another", "top_p": 0.25}
            await http.patch("/api/settings", json={"agent_settings_diff": {"llm": llm}})
            await http.post("/api/add-git-providers", json={"provider_tokens": {"gitlab": {"token": "glpat_own"}}})
            after = await repaired(nestor, tenant, key, id, 1)
            assert after["drift"]["parts"] == ["settings", "git_providers", "secrets"]
            assert after["drift"]["seen_at"] <= after["pushed_at"] <= after["drift"]["repaired_at"]
            assert (after["current"], after["drifted"], after["digest"]) == (True, [], before["digest"])
            assert (await http.get("/api/settings/secrets/MINE")).text == PLANTED[0]
            assert (await http.get("/api/settings/secrets/ADDED")).text == "a client's"
            settings = (await http.get("/api/settings")).json()
            assert settings["agent_settings"]["llm"]["model"] == "openai/scripted"
            assert settings["agent_settings"]["llm"]["top_p"] == 0.25
            assert settings["provider_tokens_set"] == {"gitlab": None, "github": None}
        for _ in range(4):  # looks, and no push
            await a_round(nestor, tenant, id)
            await anyio.sleep(0.25)
        assert (await configuration(nestor, key, id)) == after
        told = capsys.readouterr().out
        assert told.count("configuration.drifted") == told.count("configuration.repaired") == 1
        for value in PLANTED:
            assert value not in told


def scripted(engine: FakeEngine, *digests: str) -> None:
    """What the fake runtime says of its secrets, one after the other, the last one for ever."""
    for number, text in enumerate(digests):
        body = {"settings": "0" * 16, "git_providers": "0" * 16, "secrets": text * 16}
        engine.script.fail("POST", DIGESTS, 200, times=None if number == len(digests) - 1 else 1, body=body)


def looks(engine: FakeEngine) -> int:
    return sum(one.path == DIGESTS for one in engine.script.received)


def pushes(engine: FakeEngine) -> list[str]:
    return [one.path for one in engine.script.received if one.method == "PUT"]


async def test_it_is_looked_at_once_in_its_time_and_never_while_it_is_paused(
    data_dir: Path, engine: FakeEngine
) -> None:
    async with nestor_at(data_dir, engine) as nestor:
        scripted(engine, "a")
        tenant, key, id = await ready(nestor, idle_pause_seconds=1)
        for _ in range(5):
            await a_round(nestor, tenant, id)
            await anyio.sleep(0.05)
        assert looks(engine) == 1, "before anybody could reach it"
        await nestor.until(key, id, "paused")
        await a_round(nestor, tenant, id)
        await anyio.sleep(0.2)
        assert looks(engine) == 1, "to be asked is no use of it, and one that is paused is not asked"
        engine.script.clear()
        scripted(engine, "b", "a")
        await nestor.call("PATCH", "/api/v2/settings", key, json={"limits": {"idle_pause_seconds": 0}}, status=200)
        engine.script.received.clear()
        await nestor.call("POST", f"/api/v2/conversations/{id}/resume?wait=ready", key, status=200)
        found = await repaired(nestor, tenant, key, id, 1)  # changed while nobody looked: seen at the resume
        assert found["drift"]["parts"] == ["secrets"]
        assert pushes(engine) == ["/api/settings/secrets"]


async def test_a_client_that_changes_it_again_and_again_makes_no_storm(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine, drift_seconds=0.05) as nestor:
        scripted(engine, "a", "b", "a", "b")
        tenant, key, id = await ready(nestor)
        engine.script.received.clear()
        await repaired(nestor, tenant, key, id, 1)
        for _ in range(6):
            await a_round(nestor, tenant, id)
            await anyio.sleep(0.1)
        assert looks(engine) >= 4
        assert pushes(engine) == ["/api/settings/secrets"], "the next repair has to wait"
        found = await configuration(nestor, key, id)
        assert (found["current"], found["drifted"], found["drift"]["repairs"]) == (False, ["secrets"], 1)
        assert found["drift"]["repaired_at"] is None
        assert found["drift"]["repair_at"] > found["drift"]["seen_at"]


async def test_one_that_cannot_be_asked_is_not_said_to_be_compared(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine, drift_seconds=0.05) as nestor:
        tenant, key, id = await ready(nestor)
        for _ in range(3):
            await a_round(nestor, tenant, id)
            await anyio.sleep(0.1)
        found = await configuration(nestor, key, id)
        assert (found["compared"], found["current"], found["drift"]) == (None, True, None)
        assert pushes(engine) == []
