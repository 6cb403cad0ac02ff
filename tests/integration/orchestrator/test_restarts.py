"""Runtimes that die: told with a reason that stays, and started again where that is wanted, within bounds."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.orchestrators import MODEL, Nestor, nestor_at

from orchestrator.drivers.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
async def nestor(data_dir: Path, engine: FakeEngine) -> AsyncIterator[Nestor]:
    async with nestor_at(
        data_dir, engine, restart="on_failure", restart_max=2, restart_backoff_seconds=0.2, lease_seconds=2
    ) as running:
        yield running


async def ready(nestor: Nestor, key: str, **body: object) -> dict[str, Any]:
    record = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=30", key, json=body, status=200)
    assert record["phase"] == "ready", record
    return dict(record)


async def read(nestor: Nestor, key: str, id: str) -> dict[str, Any]:
    return dict(await nestor.call("GET", f"/api/v2/conversations/{id}", key, status=200))


def crash(nestor: Nestor) -> None:
    (name,) = nestor.engine.runtimes
    nestor.engine.crash(name)


async def until_generation(nestor: Nestor, key: str, id: str, above: int) -> dict[str, Any]:
    with anyio.fail_after(20):
        while True:
            record = await read(nestor, key, id)
            if record["phase"] == "ready" and record["runtime"]["generation"] > above:
                return record
            await anyio.sleep(0.02)


async def test_a_runtime_that_died_starts_again_with_its_address_and_configuration(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    before = await ready(nestor, key, initial_message="first")
    nestor.engine.script.received.clear()
    crash(nestor)
    after = await until_generation(nestor, key, before["id"], before["runtime"]["generation"])
    assert after["runtime"]["session_key"] == before["runtime"]["session_key"]
    assert after["runtime"]["id"] == before["runtime"]["id"]
    assert (after["reason"], after["restart_at"]) == ("requested", None)
    told = [(one.method, one.path) for one in nestor.engine.script.received]
    assert ("POST", "/api/settings") in told, "the configuration was pushed anew"
    (failure,) = after["failures"]
    assert (failure["reason"], failure["restarted"], failure["generation"]) == (
        "runtime_lost",
        True,
        before["runtime"]["generation"],
    )
    assert failure["log_tail"][-1] == "fake runtime: ended with -9"
    operation = await nestor.ended(key, after["operation"])
    assert (operation["kind"], operation["state"]) == ("restart", "succeeded")
    assert len(nestor.engine.runtimes) == 1, "the one that died is removed"
    log = await nestor.call("GET", f"/api/v2/conversations/{before['id']}/events", key, status=200)
    assert len(log["items"]) == 2, "the log goes on"


async def test_a_crash_loop_ends_in_failed_with_the_reason(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key)
    for _ in range(2):
        crash(nestor)
        record = await until_generation(nestor, key, record["id"], record["runtime"]["generation"])
    crash(nestor)
    failed = await nestor.until(key, record["id"], "failed")
    assert (failed["reason"], failed["retryable"], failed["status"]) == ("runtime_lost", True, "failed")
    assert "after 2 restarts" in failed["message"]
    assert failed["log_tail"]
    assert [failure["restarted"] for failure in failed["failures"]] == [False, True, True]
    with anyio.fail_after(10):
        while nestor.engine.runtimes:  # the record is stored a moment before
            await anyio.sleep(0.02)
    again = await nestor.call(
        "POST", f"/api/v2/conversations/{record['id']}/start?wait=ready&timeout=20", key, status=200
    )
    assert again["phase"] == "ready"
    assert len(again["failures"]) == 3, "what happened stays told"
    await nestor.call("POST", f"/api/v2/conversations/{record['id']}/stop", key, status=202)
    stopped = await nestor.until(key, record["id"], "stopped")
    assert [failure["log_tail"] != [] for failure in stopped["failures"]] == [True] * 3


async def test_who_chooses_never_is_told_and_left(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key, settings={"limits": {"restart": "never"}})
    crash(nestor)
    failed = await nestor.until(key, record["id"], "failed")
    assert failed["reason"] == "runtime_lost"
    assert "restart" not in failed["message"]


async def test_a_message_that_came_between_reaches_the_next_generation_once(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key)
    crash(nestor)
    path = f"/api/v2/conversations/{record['id']}"
    await nestor.call("POST", f"{path}/messages", key, json={"content": "still there?", "client_id": "one"}, status=202)
    await until_generation(nestor, key, record["id"], record["runtime"]["generation"])
    with anyio.fail_after(20):
        while True:
            page = await nestor.call("GET", f"{path}/events", key, status=200)
            texts = [
                item["event"]["llm_message"]["content"][0]["text"]
                for item in page["items"]
                if item["event"]["source"] == "user"
            ]
            if texts:
                break
            await anyio.sleep(0.02)
    assert texts == ["still there?"]


async def test_a_stop_during_the_wait_ends_it(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine, restart="on_failure", restart_backoff_seconds=30) as nestor:
        key = await nestor.ready_tenant()
        record = await ready(nestor, key)
        crash(nestor)
        waiting = await nestor.until(key, record["id"], "pending")
        assert waiting["restart_at"] > waiting["phase_since"]
        assert (waiting["reason"], waiting["status"]) == ("runtime_lost", "starting")
        joined = await nestor.call("POST", f"/api/v2/conversations/{record['id']}/start", key, status=202)
        assert joined["operation"] == waiting["operation"], "a start joins the restart"
        await nestor.call("POST", f"/api/v2/conversations/{record['id']}/stop", key, status=202)
        await nestor.until(key, record["id"], "stopped")
        assert (await nestor.ended(key, waiting["operation"]))["state"] == "failed"
        path = f"/api/v2/conversations/{record['id']}/start?wait=ready&timeout=20"
        assert (await nestor.call("POST", path, key, status=200))["phase"] == "ready", "and it does not wait again"


async def test_a_restart_survives_the_orchestrator(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine, restart="on_failure", restart_backoff_seconds=2) as nestor:
        key = await nestor.ready_tenant()
        record = await ready(nestor, key)
        crash(nestor)
        await nestor.until(key, record["id"], "pending")
    async with nestor_at(data_dir, engine, restart="on_failure", restart_backoff_seconds=2) as nestor:
        await until_generation(nestor, key, record["id"], record["runtime"]["generation"])


async def test_a_failed_start_is_told_in_its_operation_too(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    nestor.engine.script.fail("POST", "/api/settings", 400, times=1)
    failed = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json={}, status=200)
    assert failed["phase"] == "failed"
    operation = await nestor.ended(key, failed["operation"])
    assert operation["failure"]["reason"] == failed["reason"] == "config_rejected"
    assert operation["failure"]["hint"] == failed["hint"] != ""
    assert operation["failure"]["step"] == "settings"
    assert failed["failures"][0]["reason"] == "config_rejected"


@pytest.mark.parametrize(
    "limits", [{"restart": "always"}, {"restart_max": 11}, {"restart_window_seconds": 0}, {"restart_max": -1}]
)
async def test_a_choice_that_is_none_is_refused(nestor: Nestor, limits: dict[str, object]) -> None:
    _, key = await nestor.tenant()
    body = {**MODEL, "limits": limits}
    problem = await nestor.call("PATCH", "/api/v2/settings", key, json=body, status=422)
    assert next(iter(limits)) in problem["detail"]
