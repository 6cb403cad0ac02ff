"""Deleting in every phase: unknown at once, undone in time, gone afterwards."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.orchestrators import Nestor, nestor_at

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.domain.ids import RuntimeId
from orchestrator.drivers.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio
BASE = "/api/v2/conversations"
SETTINGS = {"tenant_max_runtimes": 1, "when_full": "queue", "lease_seconds": 2}


@pytest.fixture
async def nestor(data_dir: Path, engine: FakeEngine) -> AsyncIterator[Nestor]:
    async with nestor_at(data_dir, engine, **SETTINGS) as running:
        yield running


async def in_phase(nestor: Nestor, key: str, phase: str) -> dict[str, Any]:
    """A conversation in that phase, and kept there."""
    script = nestor.engine.script
    if phase == "configuring":
        script.hang("POST", "/api/settings", times=1)
        accepted = await nestor.call("POST", BASE, key, json={}, status=202)
        return await nestor.until(key, accepted["id"], "configuring")
    if phase == "failed":
        script.fail("POST", "/api/settings", 400, times=1)
    record = await nestor.call("POST", f"{BASE}?wait=ready&timeout=20", key, json={"initial_message": "hi"}, status=200)
    if phase in ("paused", "stopped"):
        act = {"paused": "pause", "stopped": "stop"}[phase]
        accepted = await nestor.call("POST", f"{BASE}/{record['id']}/{act}", key, status=202)
        await nestor.ended(key, accepted["operation"])
    if phase == "pending":
        accepted = await nestor.call("POST", BASE, key, json={}, status=202)
        assert accepted["queue"]["place"] == 1
        return dict(accepted)
    found = await nestor.call("GET", f"{BASE}/{record['id']}", key, status=200)
    assert found["phase"] == phase
    return dict(found)


PHASES = ["pending", "configuring", "ready", "paused", "stopped", "failed"]


@pytest.mark.parametrize("phase", PHASES)
async def test_deleted_in_any_phase_it_is_unknown_and_comes_back_stopped(nestor: Nestor, phase: str) -> None:
    key = await nestor.ready_tenant()
    before = await in_phase(nestor, key, phase)
    path = f"{BASE}/{before['id']}"
    others = len(nestor.engine.runtimes) - (phase not in ("pending", "stopped", "failed"))
    deleted = await nestor.call("DELETE", path, key, status=202)
    assert deleted["purge_at"] > deleted["updated_at"]
    problem = await nestor.call("GET", path, key, status=410)
    assert (problem["code"], problem["retryable"]) == ("gone", False)
    assert f"{path}/undelete" in problem["hint"]
    for method, rest in (("POST", "/start"), ("POST", "/stop"), ("POST", "/pause"), ("GET", "/events")):
        await nestor.call(method, path + rest, key, status=410)
    await nestor.call("POST", f"{path}/messages", key, json={"content": "x"}, status=410)
    await nestor.call("GET", path.replace("/v2", ""), key, status=404)  # what was deleted is unknown to V0
    assert before["id"] not in [item["id"] for item in (await nestor.call("GET", BASE, key))["items"]]
    assert await nestor.house.routes.resolve(RuntimeId(before["runtime"]["id"])) is None
    assert (await nestor.ended(key, deleted["operation"]))["state"] == "succeeded"
    kept = await nestor.call("GET", f"{path}?deleted=true", key, status=200)
    assert (kept["phase"], kept["desired"], kept["status"]) == ("deleting", "deleted", "stopped")
    assert kept["schedule"] == [{"act": "purge", "at": kept["purge_at"], "reason": "requested"}]
    assert before["id"] in [item["id"] for item in (await nestor.call("GET", f"{BASE}?deleted=true", key))["items"]]
    assert len(nestor.engine.runtimes) == others, "its runtime is removed"
    assert (await nestor.http.delete(path, headers=nestor.as_(key))).status_code == 204
    back = await nestor.call("POST", f"{path}/undelete", key, status=202)
    assert back["purge_at"] is None
    stopped = await nestor.until(key, before["id"], "stopped")
    assert stopped["runtime"]["id"] == before["runtime"]["id"]
    assert (await nestor.ended(key, stopped["operation"]))["state"] == "succeeded"
    if phase in ("ready", "paused", "stopped"):
        again = await nestor.call("POST", f"{path}/start?wait=ready&timeout=20", key, status=200)
        assert (again["phase"], again["runtime"]["session_key"]) == (
            "ready",
            before["runtime"]["session_key"] or again["runtime"]["session_key"],
        )
        log = await nestor.call("GET", f"{path}/events", key, status=200)
        assert len(log["items"]) == 2, "workspace and log are as they were"


@pytest.mark.parametrize("phase", PHASES)
async def test_purged_in_any_phase_nothing_is_left(nestor: Nestor, phase: str) -> None:
    key = await nestor.ready_tenant()
    before = await in_phase(nestor, key, phase)
    path = f"{BASE}/{before['id']}"
    runtime = RuntimeId(before["runtime"]["id"])
    deleted = await nestor.call("DELETE", f"{path}?purge=true", key, status=202)
    assert (await nestor.ended(key, deleted["operation"]))["state"] == "succeeded"
    with anyio.fail_after(10):
        while (await nestor.http.get(f"{path}?deleted=true", headers=nestor.as_(key))).status_code != 404:
            await anyio.sleep(0.02)
    await nestor.call("POST", f"{path}/undelete", key, status=404)
    await nestor.call("DELETE", path, key, status=404)
    assert runtime not in nestor.engine.volumes
    assert not [name for name in nestor.engine.runtimes if runtime in name]


async def test_a_deleted_one_can_be_purged_at_once(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await in_phase(nestor, key, "ready")
    path = f"{BASE}/{record['id']}"
    nestor.engine.fail("destroy", DriverUnavailable("the engine is away"), times=1)
    first = await nestor.call("DELETE", path, key, status=202)
    again = await nestor.call("DELETE", path, key, status=202)
    assert again["operation"] == first["operation"], "repeated, it is the same deletion"
    await nestor.ended(key, first["operation"], seconds=20)
    for _ in range(2):
        done = await nestor.http.delete(path, headers=nestor.as_(key))
        assert (done.status_code, done.content) == (204, b"")
    assert len(nestor.engine.volumes) == 1
    purged = await nestor.call("DELETE", f"{path}?purge=true", key, status=202)
    await nestor.ended(key, purged["operation"])
    assert nestor.engine.volumes == {}


async def test_after_its_time_it_is_gone(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine, undelete_seconds=1) as nestor:
        key = await nestor.ready_tenant()
        record = await in_phase(nestor, key, "ready")
        path = f"{BASE}/{record['id']}"
        await nestor.call("DELETE", path, key, status=202)
        await nestor.call("GET", f"{path}?deleted=true", key, status=200)
        with anyio.fail_after(10):
            while (await nestor.http.get(f"{path}?deleted=true", headers=nestor.as_(key))).status_code != 404:
                await anyio.sleep(0.05)
        assert (nestor.engine.volumes, nestor.engine.runtimes) == ({}, {})


async def test_undeleted_before_a_worker_came_it_stops(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await in_phase(nestor, key, "ready")
    path = f"{BASE}/{record['id']}"
    await nestor.call("DELETE", path, key, status=202)
    await nestor.call("POST", f"{path}/undelete", key, status=202)
    stopped = await nestor.until(key, record["id"], "stopped")
    assert stopped["desired"] == "stopped"
    assert len(nestor.engine.volumes) == 1
    await nestor.call("POST", f"{path}/undelete", key, status=200)  # not deleted: nothing to do
    assert (await nestor.call("GET", path, key, status=200))["version"] == stopped["version"]


async def test_a_deletion_goes_on_where_the_engine_failed_or_the_orchestrator_ended(
    data_dir: Path, engine: FakeEngine
) -> None:
    async with nestor_at(data_dir, engine, **SETTINGS) as nestor:
        key = await nestor.ready_tenant()
        record = await in_phase(nestor, key, "ready")
        nestor.engine.fail("destroy", DriverUnavailable("the engine is away"), times=1)
        await nestor.call("DELETE", f"{BASE}/{record['id']}", key, status=202)
    async with nestor_at(data_dir, engine, **SETTINGS) as nestor:
        with anyio.fail_after(20):
            while nestor.engine.runtimes:
                await anyio.sleep(0.05)
        assert len(nestor.engine.volumes) == 1
        await nestor.call("POST", f"{BASE}/{record['id']}/undelete", key, status=202)
        await nestor.until(key, record["id"], "stopped")
        nestor.engine.fail("remove_volume", DriverUnavailable("the engine is away"), times=1)
        purged = await nestor.call("DELETE", f"{BASE}/{record['id']}?purge=true", key, status=202)
        await nestor.call("POST", f"{BASE}/{record['id']}/undelete", key, status=404)
        await nestor.ended(key, purged["operation"], seconds=20)
        assert nestor.engine.volumes == {}


async def test_an_id_that_is_deleted_is_not_made_again(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await in_phase(nestor, key, "ready")
    await nestor.call("DELETE", f"{BASE}/{record['id']}", key, status=202)
    problem = await nestor.call("POST", BASE, key, json={"id": record["id"]}, status=409)
    assert "undelete" in problem["hint"]


async def test_another_tenant_learns_nothing_of_a_deleted_one(nestor: Nestor) -> None:
    key, stranger = await nestor.ready_tenant(), await nestor.ready_tenant("other")
    record = await in_phase(nestor, key, "ready")
    await nestor.call("DELETE", f"{BASE}/{record['id']}", key, status=202)
    for method, rest in (("GET", "?deleted=true"), ("POST", "/undelete"), ("DELETE", "?purge=true")):
        await nestor.call(method, f"{BASE}/{record['id']}{rest}", stranger, status=404)


async def test_lists_pass_over_what_is_deleted(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    ids = [(await nestor.call("POST", BASE, key, json={}, status=202))["id"] for _ in range(5)]
    for id in ids[1:4]:
        await nestor.call("DELETE", f"{BASE}/{id}", key, status=202)
    page = await nestor.call("GET", f"{BASE}?limit=2", key, status=200)
    assert [item["id"] for item in page["items"]] == [ids[4], ids[0]]
