"""Bare runtimes: a record of their own kind with all that a conversation's lifecycle does, and no conversation."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis
from support.orchestrators import Nestor, nestor_at

from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.proxy.route import Route, Unavailable

pytestmark = pytest.mark.anyio
PATH = "/api/v2/runtimes"
READY = f"{PATH}?wait=ready&timeout=30"
VALUE = "value-of-a-variable-0123"


async def ready(nestor: Nestor, key: str, **body: object) -> dict[str, Any]:
    record: dict[str, Any] = await nestor.call("POST", READY, key, json=body, status=200)
    assert record["phase"] == "ready", record
    return record


async def until(nestor: Nestor, key: str, id: str, *phases: str) -> dict[str, Any]:
    with anyio.fail_after(30):
        while True:
            record: dict[str, Any] = await nestor.call("GET", f"{PATH}/{id}", key)
            if record.get("phase") in phases:
                return record
            await anyio.sleep(0.02)


async def test_it_needs_no_model_and_is_reached_as_any_runtime(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    made = await nestor.call("POST", PATH, key, json={"name": "box", "labels": {"a": "b"}}, status=202)
    assert (made["name"], made["phase"], made["labels"]) == ("box", "pending", {"a": "b"})
    operation = await nestor.ended(key, made["operation"])
    assert (operation["state"], operation["runtime"]) == ("succeeded", made["id"])
    record = await until(nestor, key, made["id"], "ready")
    assert record["session_key"]
    assert record["url"].endswith(f"/runtimes/{record['id']}")
    route = await nestor.house.routes.resolve(RuntimeId(record["id"]))
    assert isinstance(route, Route)
    assert (route.tenant, route.conversation) == (tenant, record["id"])
    asked = [one.path for one in nestor.engine.script.received if one.method == "POST"]
    assert "/api/conversations" not in asked


async def test_lists_hold_the_two_kinds_apart_and_ids_of_one_are_unknown_to_the_other(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    box = await nestor.call("POST", PATH, key, json={}, status=202)
    talk = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    boxes, talks = await nestor.call("GET", PATH, key), await nestor.call("GET", "/api/v2/conversations", key)
    assert [item["id"] for item in boxes["items"]] == [box["id"]]
    assert [item["id"] for item in talks["items"]] == [talk["id"]]
    for path in (f"/api/v2/conversations/{box['id']}", f"{PATH}/{talk['id']}"):
        await nestor.call("GET", path, key, status=404)
        await nestor.call("POST", f"{path}/stop", key, status=404)
        await nestor.call("DELETE", path, key, status=404)
    body = {"content": "hello"}
    await nestor.call("POST", f"/api/v2/conversations/{box['id']}/messages", key, json=body, status=404)
    await nestor.call("POST", "/api/v2/conversations", key, json={"id": box["id"]}, status=409)


async def test_a_name_joins_the_one_there_also_when_many_ask_at_once(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    _, other = await nestor.tenant("other")
    found: list[str] = []

    async def ask(who: str) -> None:
        found.append((await nestor.call("POST", PATH, who, json={"name": "one"}, status=202))["id"])

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(ask, key)
    assert len(set(found)) == 1
    await ask(other)
    assert found[-1] not in found[:-1], "names are each tenant's own"
    await until(nestor, key, found[0], "ready")
    named = await nestor.call("GET", f"{PATH}?name=one", key, status=200)
    assert await nestor.call("GET", f"{PATH}?name__eq=one", key, status=200) == named
    assert (await nestor.call("GET", f"{PATH}?name__eq=", key, status=200))["items"] == []
    await nestor.call("GET", f"{PATH}?name__eq=one&limit=1", key, status=422)
    await nestor.call("GET", f"{PATH}?name__eq=one&name=one", key, status=422)
    assert [item["id"] for item in named["items"]] == [found[0]]
    await nestor.call("GET", f"{PATH}/{found[-1]}", key, status=404)
    assert nestor.engine.doubles == []


async def test_a_name_is_free_after_a_deletion_which_is_then_not_undone_beside_it(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    first = (await ready(nestor, key, name="n"))["id"]
    await nestor.call("DELETE", f"{PATH}/{first}", key, status=202)
    await nestor.call("GET", f"{PATH}/{first}", key, status=410)
    second = (await ready(nestor, key, name="n"))["id"]
    assert second != first
    problem = await nestor.call("POST", f"{PATH}/{first}/undelete", key, status=409)
    assert "name n" in problem["detail"]
    await nestor.call("DELETE", f"{PATH}/{second}", key, status=202)
    await nestor.call("POST", f"{PATH}/{first}/undelete", key, status=202)
    assert (await nestor.call("POST", PATH, key, json={"name": "n"}, status=202))["id"] == first
    await until(nestor, key, first, "stopped")
    await nestor.call("POST", f"{PATH}/{first}/start?wait=ready", key, status=200)
    await nestor.call("DELETE", f"{PATH}/{first}?purge=true", key, status=202)
    await nestor.call("DELETE", f"{PATH}/{second}?purge=true", key)
    with anyio.fail_after(30):
        while nestor.engine.runtimes or nestor.engine.volumes:
            await anyio.sleep(0.02)


async def test_pause_and_resume_keep_address_and_key_and_idling_is_woken(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine) as nestor:
        tenant, key = await nestor.tenant()
        await nestor.call("PATCH", "/api/v2/settings", key, json={"limits": {"idle_pause_seconds": 3600}}, status=200)
        before = await ready(nestor, key, name="sleeper")
        path = f"{PATH}/{before['id']}"
        await nestor.call("POST", f"{path}/pause", key, status=202)
        paused = await until(nestor, key, before["id"], "paused")
        same = ("url", "session_key", "generation")
        assert [paused[name] for name in same] == [before[name] for name in same]
        found = await nestor.house.routes.resolve(RuntimeId(before["id"]))
        assert isinstance(found, Unavailable)
        assert "resume it" in found.message
        after = await nestor.call("POST", f"{path}/resume?wait=ready", key, status=200)
        assert [after[name] for name in same] == [before[name] for name in same]
        await nestor.call("PATCH", "/api/v2/settings", key, json={"limits": {"idle_pause_seconds": 0.2}}, status=200)
        await nestor.house.store.conversations.poke(TenantId(tenant), ConversationId(before["id"]))
        assert (await until(nestor, key, before["id"], "paused"))["reason"] == "idle"
        woken = await nestor.house.wake(RuntimeId(before["id"]), 30.0)
        assert isinstance(woken, Route)


async def test_variables_reach_the_runtime_and_nothing_else(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    record = await ready(nestor, key, environment={"COLOUR": VALUE, "EMPTY": ""})
    inits = [one.body for one in nestor.engine.script.received if (one.method, one.path) == ("POST", "/api/init")]
    about = {"SANDBOX_ID": record["id"]}
    assert [body["env"] for body in inits if body] == [{**about, "COLOUR": VALUE, "EMPTY": ""}]
    assert VALUE not in str(record)
    assert VALUE not in str(nestor.engine.runtimes)
    for name in ("1A", "OH_SECRET_KEY", "SESSION_API_KEY", "NESTOR_X", "A B"):
        problem = await nestor.call("POST", PATH, key, json={"environment": {name: VALUE}}, status=422)
        assert problem["field"].startswith("environment")
        assert VALUE not in str(problem)


async def test_an_unknown_id_and_another_tenants_are_answered_alike(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    _, other = await nestor.tenant("other")
    own = (await nestor.call("POST", PATH, key, json={"name": "x"}, status=202))["id"]
    unknown = "11111111-2222-4333-8444-555555555555"
    for method, verb in [
        ("GET", ""),
        ("DELETE", ""),
        *(("POST", f"/{v}") for v in ("start", "stop", "pause", "resume")),
    ]:
        bodies = [await nestor.call(method, f"{PATH}/{id}{verb}", other, status=404) for id in (own, unknown)]
        same = {"request_id": "", "instance": ""}
        assert bodies[0] | same == bodies[1] | same
    assert (await nestor.call("GET", PATH, other))["items"] == []


async def test_a_runtime_that_dies_starts_again_and_a_restart_of_the_house_keeps_it(
    data_dir: Path, engine: FakeEngine
) -> None:
    async with nestor_at(data_dir, engine) as nestor:
        _, key = await nestor.tenant()
        record = await ready(nestor, key, name="kept", environment={"COLOUR": VALUE})
    async with nestor_at(data_dir, engine) as nestor:
        again = await ready(nestor, key, name="kept")
        assert (again["id"], again["session_key"]) == (record["id"], record["session_key"])
        await nestor.call("POST", f"{PATH}/{record['id']}/stop", key, status=202)
        await until(nestor, key, record["id"], "stopped")
        back = await nestor.call("POST", f"{PATH}/{record['id']}/start?wait=ready", key, status=200)
        assert (back["phase"], back["session_key"]) == ("ready", record["session_key"])
        inits = [one.body["env"] for one in engine.script.received if (one.method, one.path) == ("POST", "/api/init")]
        assert inits == [{"SANDBOX_ID": record["id"], "COLOUR": VALUE}] * 2, "a later generation gets them too"


async def test_after_the_state_server_lost_all_it_is_there_with_its_name_and_never_ended(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    record = await ready(nestor, key, name="kept")
    ports = {name: one.server.port for name, one in nestor.engine.runtimes.items() if one.server is not None}
    assert nestor.house.state_server is not None
    await nestor.house.shipper.tick()  # what comes back is what the journal holds: here that it is ready
    raw = Redis.from_url(nestor.house.state_server.url)
    await raw.flushall()
    await raw.aclose()
    with anyio.fail_after(30):
        while (await nestor.http.get(PATH, headers=nestor.as_(key))).status_code != 200:
            await anyio.sleep(0.02)
    again = await ready(nestor, key, name="kept")
    assert (again["id"], again["session_key"]) == (record["id"], record["session_key"])
    assert [item["id"] for item in (await nestor.call("GET", PATH, key))["items"]] == [record["id"]]
    assert {name: one.server.port for name, one in nestor.engine.runtimes.items() if one.server} == ports
