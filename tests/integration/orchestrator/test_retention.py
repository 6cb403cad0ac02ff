"""What the clock does, and what a conversation says about it beforehand."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis
from support.orchestrators import Nestor, nestor_at

from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.drivers.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio
BASE = "/api/v2/conversations"


@pytest.fixture
async def nestor(data_dir: Path, engine: FakeEngine) -> AsyncIterator[Nestor]:
    async with nestor_at(data_dir, engine, max_life_max_seconds=3600, lease_seconds=2) as running:
        yield running


async def ready(nestor: Nestor, key: str, **limits: object) -> dict[str, Any]:
    body = {"settings": {"limits": limits}} if limits else {}
    record = await nestor.call("POST", f"{BASE}?wait=ready&timeout=20", key, json=body, status=200)
    assert record["phase"] == "ready", record
    return dict(record)


async def test_a_ready_one_says_what_will_become_of_it_and_why(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key, idle_pause_seconds=600)
    assert [(step["act"], step["reason"]) for step in record["schedule"]] == [("pause", "idle"), ("stop", "expired")]
    assert record["schedule"][0]["at"] == record["idle"]["pauses_at"]
    assert record["holds"] == []
    later = await ready(nestor, key, idle_pause_seconds=7200, max_life_seconds=60)
    assert [step["act"] for step in later["schedule"]] == ["stop", "pause"]
    uncapped = await ready(nestor, key, idle_pause_seconds=0, max_life_seconds=0)
    assert [step["act"] for step in uncapped["schedule"]] == ["stop"], "the operator's cap holds"


async def test_it_says_what_holds_it(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key)
    path = f"{BASE}/{record['id']}"
    (tenant,) = [item["id"] for item in (await nestor.call("GET", "/api/v2/tenants", status=200))["items"]]
    nestor.engine.script.fail(
        "GET", f"/api/conversations/{record['id']}", 200, times=None, body={"execution_status": "running"}
    )
    nestor.house.activity.watch(lambda: [(TenantId(tenant), ConversationId(record["id"]))])
    with anyio.fail_after(10):  # the answer of a moment ago is remembered
        while (await nestor.call("GET", path, key))["holds"] != ["in_use", "agent_running"]:
            await anyio.sleep(0.05)
    nestor.engine.script.hang("POST", "/api/settings", times=1)
    starting = await nestor.call("POST", BASE, key, json={}, status=202)
    assert starting["holds"] == ["starting"]
    await nestor.call("POST", f"{path}/pause", key, status=202)
    await nestor.until(key, record["id"], "paused")
    await nestor.call("POST", f"{path}/messages", key, json={"content": "x"}, status=202)
    assert (await nestor.call("GET", path, key))["holds"] == [], "one that a caller paused is held by nothing"


async def test_polling_a_record_asks_its_runtime_seldom(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key)
    nestor.engine.script.received.clear()
    for _ in range(30):
        await nestor.call("GET", f"{BASE}/{record['id']}", key, status=200)
    path = f"/api/conversations/{record['id']}"
    assert sum(one.path == path for one in nestor.engine.script.received) <= 3


async def test_a_runtime_that_lived_for_as_long_as_it_may_is_stopped(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key, max_life_seconds=1)
    nestor.engine.script.fail(
        "GET", f"/api/conversations/{record['id']}", 200, times=None, body={"execution_status": "running"}
    )
    stopped = await nestor.until(key, record["id"], "stopped")
    assert (stopped["reason"], stopped["desired"]) == ("expired", "running")
    assert nestor.engine.runtimes == {}
    again = await nestor.call("POST", f"{BASE}/{record['id']}/start?wait=ready&timeout=20", key, status=200)
    assert again["runtime"]["generation"] > record["runtime"]["generation"]


async def test_a_paused_one_is_stopped_after_its_time_and_a_use_starts_it(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key, idle_pause_seconds=0.3, stop_paused_seconds=1.5)
    paused = await nestor.until(key, record["id"], "paused")
    assert (paused["schedule"][0]["act"], paused["schedule"][0]["reason"]) == ("stop", "idle")
    stopped = await nestor.until(key, record["id"], "stopped")
    assert (stopped["reason"], stopped["desired"]) == ("idle", "running")
    assert nestor.engine.runtimes == {}
    await nestor.call("POST", f"{BASE}/{record['id']}/messages", key, json={"content": "hello"}, status=202)
    await nestor.until(key, record["id"], "ready")


async def test_one_that_a_caller_paused_is_stopped_too_and_resumes(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key, stop_paused_seconds=0.5)
    await nestor.call("POST", f"{BASE}/{record['id']}/pause", key, status=202)
    stopped = await nestor.until(key, record["id"], "stopped")
    assert stopped["desired"] == "paused"
    resumed = await nestor.call("POST", f"{BASE}/{record['id']}/resume?wait=ready&timeout=20", key, status=200)
    assert resumed["phase"] == "ready"
    assert resumed["runtime"]["session_key"] == record["runtime"]["session_key"]


async def test_an_archived_one_is_read_and_not_started(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key, archive_seconds=1)
    path = f"{BASE}/{record['id']}"
    hello, late = ({"content": text, "client_id": text} for text in ("hello", "late"))
    await nestor.call("POST", f"{path}/messages", key, json=hello, status=202)
    with anyio.fail_after(10):
        while not (await nestor.call("GET", f"{path}/events", key))["items"]:
            await anyio.sleep(0.05)
    await nestor.call("POST", f"{path}/stop", key, status=202)
    stopped = await nestor.until(key, record["id"], "stopped")
    assert (await nestor.call("POST", f"{path}/messages", key, json=late, status=202))["state"] == "queued"
    assert [step["act"] for step in stopped["schedule"]] == ["archive"]
    with anyio.fail_after(10):
        while nestor.engine.volumes:
            await anyio.sleep(0.02)
    archived = await nestor.call("GET", path, key, status=200)
    assert (archived["phase"], archived["schedule"]) == ("stopped", [])
    assert archived["archived_at"] > archived["phase_since"]
    assert (await nestor.call("GET", f"{path}/events", key, status=200))["items"], "its log is kept"
    problem = await nestor.call("POST", f"{path}/start", key, status=409)
    assert "archived" in problem["detail"]
    tried = await nestor.call("POST", f"{path}/start?dry_run=true", key, status=409)
    assert tried["detail"] == problem["detail"]
    for content, client_id in (("new", "new"), ("new", None), ("late", "late")):
        sent = {"content": content, "client_id": client_id}
        refused = await nestor.call("POST", f"{path}/messages", key, json=sent, status=409)
        assert (refused["detail"], refused["hint"]) == (problem["detail"], problem["hint"])
    assert (await nestor.call("POST", f"{path}/messages", key, json=hello, status=202))["sequence"] == 1, "the receipt"
    await nestor.call("POST", f"{path}/messages", key, json={**hello, "content": "other"}, status=422)
    receipts = (await nestor.call("GET", f"{path}/messages", key, status=200))["items"]
    assert [(item["id"], item["state"]) for item in receipts] == [("hello", "accepted"), ("late", "undeliverable")]


async def test_one_at_rest_is_deleted_after_its_time(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine, undelete_seconds=60, delete_seconds=1) as nestor:
        key = await nestor.ready_tenant()
        record = await ready(nestor, key)
        path = f"{BASE}/{record['id']}"
        await nestor.call("POST", f"{path}/stop", key, status=202)
        with anyio.fail_after(10):
            while (await nestor.http.get(path, headers=nestor.as_(key))).status_code != 410:
                await anyio.sleep(0.05)
        kept = await nestor.call("GET", f"{path}?deleted=true", key, status=200)
        assert (kept["desired"], len(nestor.engine.volumes)) == ("deleted", 1)
        assert (await nestor.ended(key, kept["operation"]))["kind"] == "delete"
        await nestor.call("DELETE", f"{path}?purge=true", key, status=202)
        with anyio.fail_after(10):
            while nestor.engine.volumes:
                await anyio.sleep(0.02)


async def at_rest(nestor: Nestor, key: str) -> str:
    """The id of one that is stopped, and to which nothing is to be done."""
    record = await ready(nestor, key)
    await nestor.call("POST", f"{BASE}/{record['id']}/stop", key, status=202)
    await nestor.until(key, record["id"], "stopped")
    assert nestor.house.state_server is not None
    raw = Redis.from_url(nestor.house.state_server.url, decode_responses=True)
    with anyio.fail_after(10):
        while any([await raw.zscore(name, record["id"]) async for name in raw.scan_iter("t:*:due")]):
            await anyio.sleep(0.05)
    await raw.aclose()
    return str(record["id"])


async def archived(nestor: Nestor, key: str, id: str) -> None:
    with anyio.fail_after(20):
        while not (await nestor.call("GET", f"{BASE}/{id}", key, status=200))["archived_at"]:
            await anyio.sleep(0.05)


async def test_what_has_no_time_is_not_due_and_a_change_of_settings_comes_to_it(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id, other = await at_rest(nestor, key), await nestor.ready_tenant("other")
    left_alone = await at_rest(nestor, other)
    while await nestor.house.reviewing.tick() is not None:
        pass  # the review that a new installation begins with
    await nestor.call("PATCH", "/api/v2/settings", key, json={"limits": {"max_life_seconds": 100}}, status=200)
    assert await nestor.house.reviewing.tick() is None, "no time of those at rest"
    await nestor.call("PATCH", "/api/v2/settings", key, json={"limits": {"archive_seconds": 0.1}}, status=200)
    await archived(nestor, key, id)
    assert not (await nestor.call("GET", f"{BASE}/{left_alone}", other, status=200))["archived_at"]


async def test_a_change_of_the_operators_times_comes_to_all(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine) as nestor:
        keys = [await nestor.ready_tenant(name) for name in ("one", "two")]
        ids = [await at_rest(nestor, key) for key in keys]
    async with nestor_at(data_dir, engine, archive_seconds=0.1) as nestor:
        for key, id in zip(keys, ids, strict=True):
            await archived(nestor, key, id)


async def test_times_hold_for_those_at_rest_when_the_state_server_lost_everything(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key, archive_seconds=4)
    await nestor.call("POST", f"{BASE}/{record['id']}/stop", key, status=202)
    await nestor.until(key, record["id"], "stopped")
    assert nestor.house.state_server is not None
    raw = Redis.from_url(nestor.house.state_server.url)
    await raw.flushall()
    await raw.aclose()
    with anyio.fail_after(20):
        while (await nestor.http.get(BASE, headers=nestor.as_(key))).status_code != 200:
            await anyio.sleep(0.05)
    await archived(nestor, key, record["id"])
