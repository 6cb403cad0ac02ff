"""Pause and resume, by a caller and for idling: what is frozen keeps address, keys, messages and log."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.orchestrators import MODEL, Nestor, nestor_at

from orchestrator.domain.ids import ConversationId, OperationId, RuntimeId, TenantId, new_uuid
from orchestrator.domain.operation import Operation, OperationState
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.proxy.route import Route, Unavailable
from orchestrator.services.conversations import ConversationService

pytestmark = pytest.mark.anyio


async def ready(nestor: Nestor, key: str, **body: object) -> dict[str, Any]:
    record = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json=body, status=200)
    assert record["phase"] == "ready", record
    return record


async def idle_tenant(nestor: Nestor, seconds: float) -> str:
    """The key of a tenant whose conversations are paused after that time."""
    _, key = await nestor.tenant()
    await nestor.call("PATCH", "/api/v2/settings", key, json={**MODEL, "limits": {"idle_pause_seconds": seconds}})
    return key


def frozen(nestor: Nestor) -> list[bool]:
    return [runtime.paused for runtime in nestor.engine.runtimes.values()]


async def test_a_paused_conversation_is_frozen_and_comes_back_as_it_was(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    before = await ready(nestor, key, initial_message="first")
    path = f"/api/v2/conversations/{before['id']}"
    accepted = await nestor.call("POST", f"{path}/pause", key, status=202)
    assert (await nestor.ended(key, accepted["operation"]))["state"] == "succeeded"
    paused = await nestor.until(key, before["id"], "paused")
    assert (paused["reason"], paused["desired"], paused["status"]) == ("requested", "paused", "paused")
    assert paused["runtime"] == before["runtime"], "address and key are shown while it is paused"
    assert frozen(nestor) == [True]
    log = await nestor.call("GET", f"{path}/events", key, status=200)
    assert len(log["items"]) == 2, "the log is readable while it is paused"
    resumed = await nestor.call("POST", f"{path}/resume?wait=ready&timeout=20", key, status=200)
    assert (resumed["phase"], resumed["runtime"]) == ("ready", before["runtime"])
    assert frozen(nestor) == [False]


async def test_both_can_be_repeated(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id = (await ready(nestor, key))["id"]
    first = await nestor.call("POST", f"/api/v2/conversations/{id}/pause", key, status=202)
    assert (await nestor.call("POST", f"/api/v2/conversations/{id}/pause", key))["operation"] == first["operation"]
    await nestor.ended(key, first["operation"])
    held = await nestor.call("POST", f"/api/v2/conversations/{id}/pause", key, status=200)
    assert (held["phase"], held["operation"]) == ("paused", first["operation"])
    second = await nestor.call("POST", f"/api/v2/conversations/{id}/resume", key, status=202)
    assert (await nestor.call("POST", f"/api/v2/conversations/{id}/resume", key))["operation"] == second["operation"]
    await nestor.ended(key, second["operation"])
    for verb in ("resume", "start"):
        assert (await nestor.call("POST", f"/api/v2/conversations/{id}/{verb}", key, status=200))["phase"] == "ready"
    third = await nestor.call("POST", f"/api/v2/conversations/{id}/stop", key, status=202)
    await nestor.ended(key, third["operation"])
    held = await nestor.call("POST", f"/api/v2/conversations/{id}/stop", key, status=200)
    assert (held["phase"], held["operation"]) == ("stopped", third["operation"])


@pytest.mark.parametrize("kind", ["conversations", "runtimes"])
async def test_the_status_does_not_hang_on_who_is_quicker(
    nestor: Nestor, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Each answer goes out when the work is over: 202 where the call made it, and 200 where nothing was to be done."""
    key = await nestor.ready_tenant()
    id = (await nestor.call("POST", f"/api/v2/{kind}?wait=ready&timeout=60", key, json={}, status=200))["id"]

    def late(verb: str) -> None:
        real = getattr(ConversationService, verb)

        async def answered(service: ConversationService, tenant: Any, user: Any, id: Any, **more: Any) -> Any:
            made = await real(service, tenant, user, id, **more)
            await nestor.ended(key, made.operation)
            return await service.get(tenant, user, id, deleted=True)

        monkeypatch.setattr(ConversationService, verb, answered)

    for verb in ("pause", "stop", "start", "undelete"):
        late(verb)
    for verb, phase in (("pause", "paused"), ("resume", "ready"), ("stop", "stopped"), ("start", "ready")):
        for status in (202, 200):
            answer = await nestor.call("POST", f"/api/v2/{kind}/{id}/{verb}", key, status=status)
            assert answer["phase"] == phase
    await nestor.call("DELETE", f"/api/v2/{kind}/{id}", key, status=202)
    for status in (202, 200):
        assert (await nestor.call("POST", f"/api/v2/{kind}/{id}/undelete", key, status=status))["phase"] == "stopped"


async def test_what_is_not_ready_cannot_be_paused(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id = (await ready(nestor, key))["id"]
    await nestor.call("POST", f"/api/v2/conversations/{id}/stop", key, status=202)
    await nestor.until(key, id, "stopped")
    problem = await nestor.call("POST", f"/api/v2/conversations/{id}/pause", key, status=409)
    assert "stopped" in problem["detail"]
    assert problem["hint"]


async def test_a_message_to_what_a_caller_paused_waits_for_the_resume(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id = (await ready(nestor, key))["id"]
    path = f"/api/v2/conversations/{id}"
    await nestor.call("POST", f"{path}/pause", key, status=202)
    await nestor.until(key, id, "paused")
    sent = await nestor.call("POST", f"{path}/messages", key, json={"content": "later"}, status=202)
    assert sent["state"] == "queued"
    await anyio.sleep(0.5)  # long enough for a worker to have taken it up, if one were to
    assert (await nestor.call("GET", path, key))["phase"] == "paused"
    await nestor.call("POST", f"{path}/resume", key, status=202)
    await until_said(nestor, key, id, "later")


async def test_an_unused_conversation_is_paused_and_a_message_wakes_it(nestor: Nestor) -> None:
    key = await idle_tenant(nestor, 0.5)
    before = await ready(nestor, key)
    assert before["idle"]["pause_after_seconds"] == 0.5
    assert before["idle"]["pauses_at"] > before["idle"]["unused_since"]
    asleep = await nestor.until(key, before["id"], "paused")
    assert (asleep["reason"], asleep["desired"], asleep["idle"]) == ("idle", "running", None)
    path = f"/api/v2/conversations/{before['id']}/messages"
    await nestor.call("POST", path, key, json={"content": "good morning"}, status=202)
    await until_said(nestor, key, before["id"], "good morning")


async def test_a_running_agent_is_never_idle(nestor: Nestor) -> None:
    key = await idle_tenant(nestor, 0.3)
    id = new_uuid()
    at_work = {"execution_status": "running"}
    nestor.engine.script.fail("GET", f"/api/conversations/{id}", 200, times=3, body=at_work)
    record = await ready(nestor, key, id=id)
    with anyio.fail_after(20):
        while asked_about(nestor, record["id"]) < 3:  # each time it was due
            assert (await nestor.call("GET", f"/api/v2/conversations/{record['id']}", key))["phase"] == "ready"
            await anyio.sleep(0.02)
    await nestor.until(key, record["id"], "paused")


async def test_what_is_in_use_is_not_paused(nestor: Nestor) -> None:
    key = await idle_tenant(nestor, 0.2)
    nestor.house.activity.watch(lambda: [(tenant, id) for tenant, id in using])
    using: set[tuple[TenantId, ConversationId]] = set()
    record = await ready(nestor, key)
    place = await nestor.house.store.conversations.route(RuntimeId(record["runtime"]["id"]))
    assert place is not None
    using.add(place)
    resumed = await nestor.call(  # it may have been paused before the first use
        "POST", f"/api/v2/conversations/{record['id']}/resume?wait=ready&timeout=20", key, status=200
    )
    version = resumed["version"]
    await anyio.sleep(1.5)
    now = await nestor.call("GET", f"/api/v2/conversations/{record['id']}", key)
    assert (now["phase"], now["version"]) == ("ready", version)
    using.clear()
    await nestor.until(key, record["id"], "paused")


async def test_a_use_wakes_what_policy_paused_and_not_what_a_caller_paused(nestor: Nestor) -> None:
    key = await idle_tenant(nestor, 0.3)
    record = await ready(nestor, key)
    runtime = RuntimeId(record["runtime"]["id"])
    await nestor.until(key, record["id"], "paused")
    found = await nestor.house.routes.resolve(runtime)
    assert isinstance(found, Unavailable)
    assert found.session_key_hash, "its key may wake it"
    with anyio.fail_after(20):
        woken = await nestor.house.wake(runtime, 20)
    assert isinstance(woken, Route)
    await nestor.until(key, record["id"], "paused")
    await nestor.call("POST", f"/api/v2/conversations/{record['id']}/pause", key, status=202)
    await nestor.ended(key, (await nestor.call("GET", f"/api/v2/conversations/{record['id']}", key))["operation"])
    nestor.house.routes.invalidate(runtime)
    held = await nestor.house.routes.resolve(runtime)
    assert isinstance(held, Unavailable)
    assert held.session_key_hash is None, "no key wakes it"
    assert "resume" in held.message
    assert isinstance(await nestor.house.wake(runtime, 20), Unavailable)
    assert (await nestor.call("GET", f"/api/v2/conversations/{record['id']}", key))["phase"] == "paused"


async def test_stop_and_delete_work_on_what_is_paused(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    stopped, deleted = (await ready(nestor, key))["id"], (await ready(nestor, key))["id"]
    for id in (stopped, deleted):
        await nestor.call("POST", f"/api/v2/conversations/{id}/pause", key, status=202)
        await nestor.until(key, id, "paused")
    await nestor.call("POST", f"/api/v2/conversations/{stopped}/stop", key, status=202)
    await nestor.until(key, stopped, "stopped")
    await nestor.call("DELETE", f"/api/v2/conversations/{deleted}", key, status=202)
    with anyio.fail_after(20):
        while nestor.engine.runtimes:
            await anyio.sleep(0.02)


async def test_a_paused_runtime_that_is_gone_is_told_at_the_resume(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id = (await ready(nestor, key))["id"]
    await nestor.call("POST", f"/api/v2/conversations/{id}/pause", key, status=202)
    await nestor.until(key, id, "paused")
    for handle in await nestor.house.driver.list(nestor.house.installation):
        await nestor.house.driver.destroy(handle, fence=2**53)
    await nestor.call("POST", f"/api/v2/conversations/{id}/resume", key, status=202)
    lost = await nestor.until(key, id, "failed")
    assert (lost["reason"], lost["retryable"]) == ("runtime_lost", True)
    assert (await nestor.ended(key, lost["operation"]))["state"] == "failed"
    again = await nestor.call("POST", f"/api/v2/conversations/{id}/start?wait=ready&timeout=20", key, status=200)
    assert again["phase"] == "ready"


async def test_a_resume_that_came_too_late_ends(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id = (await ready(nestor, key))["id"]
    for handle in await nestor.house.driver.list(nestor.house.installation):
        await nestor.house.driver.destroy(handle, fence=2**53)
    await nestor.call("POST", f"/api/v2/conversations/{id}/messages", key, json={"content": "wake up"}, status=202)
    await nestor.until(key, id, "failed")
    store, operation = nestor.house.store, OperationId(new_uuid())
    place = await store.conversations.route(
        RuntimeId((await nestor.call("GET", f"/api/v2/conversations/{id}", key))["runtime"]["id"])
    )
    assert place is not None
    now = datetime.now(UTC)
    await store.operations.create(
        Operation(operation, *place, "resume", OperationState.RUNNING, (), now, now)  # stored a moment too late
    )
    with anyio.fail_after(20):
        while True:
            present = await store.conversations.get(*place)
            assert present is not None
            asked = replace(present, operation=operation)
            if await store.conversations.request(asked, expected_version=present.version):
                break
    nestor.house.workers.wake()
    assert (await nestor.ended(key, operation))["state"] == "failed"
    again = await nestor.call("POST", f"/api/v2/conversations/{id}/start?wait=ready&timeout=20", key, status=200)
    assert again["phase"] == "ready"


async def test_a_pause_survives_the_orchestrator(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine) as nestor:
        key = await nestor.ready_tenant()
        before = await ready(nestor, key)
        await nestor.call("POST", f"/api/v2/conversations/{before['id']}/pause", key, status=202)
        await nestor.until(key, before["id"], "paused")
    async with nestor_at(data_dir, engine) as nestor:
        assert (await nestor.call("GET", f"/api/v2/conversations/{before['id']}", key))["phase"] == "paused"
        path = f"/api/v2/conversations/{before['id']}/resume?wait=ready&timeout=20"
        assert (await nestor.call("POST", path, key, status=200))["runtime"] == before["runtime"]


async def test_the_operator_caps_what_a_tenant_may_choose(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine, idle_pause_seconds=60, idle_pause_max_seconds=90) as nestor:
        key = await nestor.ready_tenant()
        assert (await ready(nestor, key))["idle"]["pause_after_seconds"] == 60
        for asked, given in ((0, 90), (1000, 90), (30, 30)):
            body = {"settings": {"limits": {"idle_pause_seconds": asked}}}
            assert (await ready(nestor, key, **body))["idle"]["pause_after_seconds"] == given


@pytest.mark.parametrize("seconds", [-1, "soon", 1e12])
async def test_a_time_that_is_none_is_refused(nestor: Nestor, seconds: object) -> None:
    key = await nestor.ready_tenant()
    body = {"limits": {"idle_pause_seconds": seconds}}
    problem = await nestor.call("PATCH", "/api/v2/settings", key, json=body, status=422)
    assert "idle_pause_seconds" in problem["detail"]


def asked_about(nestor: Nestor, id: str) -> int:
    return sum(one.method == "GET" and one.path == f"/api/conversations/{id}" for one in nestor.engine.script.received)


async def until_said(nestor: Nestor, key: str, id: str, text: str) -> None:
    def texts(page: dict[str, Any]) -> list[str]:
        found = [item["event"] for item in page["items"] if item["event"]["source"] == "user"]
        return [event["llm_message"]["content"][0]["text"] for event in found]

    with anyio.fail_after(20):
        while text not in texts(await nestor.call("GET", f"/api/v2/conversations/{id}/events", key, status=200)):
            await anyio.sleep(0.02)
