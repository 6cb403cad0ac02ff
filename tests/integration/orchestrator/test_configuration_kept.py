"""Configuration kept true: a change reaches live runtimes, is shown, is tried again, and takes out what was removed."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from support.orchestrators import Nestor, nestor_at

from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.drivers.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


async def ready(nestor: Nestor, key: str, **body: object) -> dict[str, Any]:
    path = "/api/v2/conversations?wait=ready&timeout=30"
    record = dict(await nestor.call("POST", path, key, json=body, status=200))
    nestor.engine.script.received.clear()
    return record


async def round_(nestor: Nestor, id: str) -> None:
    """The conversation's next round comes now instead of within ten seconds."""
    route = (await nestor.http.get("/server_info")).status_code
    assert route == 200
    await nestor.house.store.conversations.poke(await tenant_of(nestor, id), ConversationId(id))
    nestor.house.workers.wake()


async def tenant_of(nestor: Nestor, id: str) -> TenantId:
    page = await nestor.house.store.tenants.list_tenants(cursor=None, limit=10)
    for tenant in page.items:
        if await nestor.house.store.conversations.get(tenant.id, ConversationId(id)) is not None:
            return tenant.id
    raise AssertionError("no tenant has it")


async def shown(nestor: Nestor, key: str, id: str) -> dict[str, Any]:
    return dict((await nestor.call("GET", f"/api/v2/conversations/{id}", key, status=200))["configuration"])


async def until(nestor: Nestor, key: str, id: str, *, current: bool, seconds: float = 15) -> dict[str, Any]:
    with anyio.fail_after(seconds):
        while True:
            found = await shown(nestor, key, id)
            if found["current"] is current and (current or found["trouble"] is not None):
                return found
            await anyio.sleep(0.05)


def told(nestor: Nestor, *paths: str) -> list[tuple[str, str, Any]]:
    """What runtimes were asked to keep, oldest first."""
    return [
        (one.method, one.path, one.body)
        for one in nestor.engine.script.received
        if one.method != "GET"
        and one.path.startswith("/api/")
        and "/conversations" not in one.path
        and one.path != "/api/settings/digests"
    ]


async def test_what_changes_is_pushed_shown_and_taken_out(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    await nestor.call("PUT", "/api/v2/secrets/FIRST", key, json={"value": "value-one"}, status=200)
    await nestor.call("PUT", "/api/v2/git-providers/github", key, json={"token": "ghp_one"}, status=200)
    record = await ready(nestor, key)
    id = record["id"]
    before = record["configuration"]
    assert before["current"] is True
    assert before["trouble"] is None
    assert before["held"] == before["wanted"]
    await round_(nestor, id)
    await anyio.sleep(0.3)
    assert told(nestor) == [], "nothing changed, so nothing is sent"
    await nestor.call("PUT", "/api/v2/secrets/SECOND", key, json={"value": "value-two"}, status=200)
    await nestor.call("DELETE", "/api/v2/secrets/FIRST", key, status=204)
    await nestor.call("DELETE", "/api/v2/git-providers/github", key, status=204)
    stale = await shown(nestor, key, id)
    assert stale["current"] is False
    assert stale["held"] == before["held"] != stale["wanted"]
    after = await until(nestor, key, id, current=True)  # by the round that comes anyway
    assert after["held"] == after["wanted"] == stale["wanted"]
    assert after["digest"] != before["digest"]
    assert after["pushed_at"] > before["pushed_at"]
    calls = told(nestor)
    assert [(method, path) for method, path, _ in calls] == [
        ("POST", "/api/settings"),
        ("POST", "/api/unset-provider-tokens"),
        ("PUT", "/api/settings/secrets"),
        ("DELETE", "/api/settings/secrets/FIRST"),
    ]
    assert calls[2][2] == {"name": "SECOND", "value": "value-two"}
    assert calls[0][2]["llm_base_url"] == ""
    assert (await nestor.call("GET", f"/api/v2/conversations/{id}", key))["phase"] == "ready"


async def test_a_message_after_a_change_is_worked_on_with_it(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key)
    await nestor.call("PUT", "/api/v2/secrets/NEW", key, json={"value": "value"}, status=200)
    path = f"/api/v2/conversations/{record['id']}/messages"
    await nestor.call("POST", path, key, json={"content": "use it", "client_id": "m"}, status=202)
    with anyio.fail_after(10):
        while (await nestor.call("GET", f"{path}/m", key))["state"] == "queued":
            await anyio.sleep(0.02)
    order = [one.path for one in nestor.engine.script.received if one.method in ("PUT", "POST")]
    assert order.index("/api/settings/secrets") < order.index(f"/api/conversations/{record['id']}/events")


async def test_a_change_that_changes_nothing_is_not_sent(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    model = {"agent_settings": {"llm": {"model": "m", "api_key": "sk-x"}}}
    await nestor.call("PATCH", "/api/v2/settings", key, json=model, status=200)
    user = await nestor.call("POST", f"/api/v2/tenants/{tenant}/users", key, json={"name": "ann"}, status=201)
    act = {"X-Act-As-User": user["id"]}
    await nestor.call("PUT", "/api/v2/secrets/NAME", key, json={"value": "mine"}, headers=act, status=200)
    path = "/api/v2/conversations?wait=ready&timeout=30"
    record = await nestor.call("POST", path, key, json={}, headers=act, status=200)
    nestor.engine.script.received.clear()
    # The user's own value hides the tenant's.
    await nestor.call("PUT", "/api/v2/secrets/NAME", key, json={"value": "theirs"}, status=200)
    await round_(nestor, record["id"])
    found = await until(nestor, key, record["id"], current=True)
    assert told(nestor) == []
    assert found["digest"] == record["configuration"]["digest"]


async def test_a_runtime_that_refuses_lives_on_and_gets_it_later(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key)
    id = record["id"]
    nestor.engine.script.fail("PUT", "/api/settings/secrets", 500, times=1, body={"detail": "value-of-it"})
    await nestor.call("PUT", "/api/v2/secrets/NAME", key, json={"value": "value-of-it"}, status=200)
    await round_(nestor, id)
    found = await until(nestor, key, id, current=False)
    assert found["trouble"]["problem"] == "PUT /api/settings/secrets was answered 500"
    assert found["trouble"]["tries"] == 1
    await until(nestor, key, id, current=True, seconds=25)
    after = await nestor.call("GET", f"/api/v2/conversations/{id}", key, status=200)
    assert after["phase"] == "ready"
    assert after["runtime"]["generation"] == record["runtime"]["generation"]


async def test_a_paused_runtime_gets_it_when_it_is_resumed(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key)
    path = f"/api/v2/conversations/{record['id']}"
    await nestor.call("POST", f"{path}/pause", key, status=202)
    await nestor.until(key, record["id"], "paused")
    await nestor.call("PUT", "/api/v2/secrets/NAME", key, json={"value": "value"}, status=200)
    assert (await shown(nestor, key, record["id"]))["current"] is False
    nestor.engine.script.received.clear()
    await nestor.call("POST", f"{path}/resume?wait=ready", key, status=200)
    await until(nestor, key, record["id"], current=True, seconds=5)
    assert ("PUT", "/api/settings/secrets") in [(method, where) for method, where, _ in told(nestor)]


async def test_another_replica_goes_on_with_a_change_that_its_predecessor_did_not_push(
    data_dir: Path, engine: FakeEngine
) -> None:
    async with nestor_at(data_dir, engine) as nestor:
        key = await nestor.ready_tenant()
        record = await ready(nestor, key)
        engine.script.fail("PUT", "/api/settings/secrets", 503, times=None)
        await nestor.call("PUT", "/api/v2/secrets/NAME", key, json={"value": "value"}, status=200)
    engine.script.clear()
    async with nestor_at(data_dir, engine) as nestor:
        await until(nestor, key, record["id"], current=True, seconds=20)
        assert ("PUT", "/api/settings/secrets") in [(method, where) for method, where, _ in told(nestor)]
