"""Limits on runtimes and starts, and the three things that may become of a start that is one too many."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from support.orchestrators import MODEL, Nestor, nestor_at

from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.drivers.values import Limits
from orchestrator.proxy.route import Route, Unavailable
from orchestrator.state.funnel import command
from orchestrator.state.keys import TenantKeys

pytestmark = pytest.mark.anyio
CONVERSATIONS = "/api/v2/conversations"


@pytest.fixture
async def nestor(data_dir: Path, engine: FakeEngine) -> AsyncIterator[Nestor]:
    async with nestor_at(data_dir, engine, tenant_max_runtimes=3, queue_seconds=30) as running:
        yield running


async def tenant_with(nestor: Nestor, name: str = "acme", **limits: object) -> tuple[str, str]:
    """The id and key of a tenant that has a model and these limits."""
    tenant, key = await nestor.tenant(name)
    await nestor.call("PATCH", "/api/v2/settings", key, json={**MODEL, "limits": limits}, status=200)
    return tenant, key


async def ready(nestor: Nestor, key: str, **body: object) -> dict[str, Any]:
    record = await nestor.call("POST", f"{CONVERSATIONS}?wait=ready&timeout=30", key, json=body, status=200)
    assert record["phase"] == "ready", record
    return dict(record)


async def refused(nestor: Nestor, key: str, status: int = 429, path: str = CONVERSATIONS) -> httpx.Response:
    response = await nestor.http.post(path, headers=nestor.as_(key), json={})
    assert response.status_code == status, response.text
    return response


def running(nestor: Nestor) -> int:
    """Runtimes that run, counted at the engine."""
    return sum(not runtime.paused and runtime.exit_code is None for runtime in nestor.engine.runtimes.values())


async def test_a_start_over_the_limit_is_told_which_limit(nestor: Nestor) -> None:
    _, key = await tenant_with(nestor, max_runtimes=2)
    for _ in range(2):
        await ready(nestor, key)
    response = await refused(nestor, key)
    problem = response.json()
    assert (problem["code"], problem["rule"], problem["limit"], problem["current"]) == (
        "limit_reached",
        "tenant.runtimes",
        2,
        2,
    )
    assert problem["retryable"] is True
    assert int(response.headers["retry-after"]) >= 1
    assert response.headers["ratelimit-policy"] == '"tenant.runtimes";q=2'
    assert response.headers["ratelimit"].startswith('"tenant.runtimes";r=0;t=')
    assert response.headers["x-ratelimit-remaining"] == "0"
    listed = await nestor.call("GET", CONVERSATIONS, key, status=200)
    assert len(listed["items"]) == 2, "what was refused left no record"
    report = await nestor.call("POST", f"{CONVERSATIONS}?dry_run=true", key, json={}, status=200)
    assert (report["decision"], report["retry_after"]) == ("reject", int(response.headers["retry-after"]))


async def test_a_tenant_lowers_the_operators_limit_and_does_not_raise_it(nestor: Nestor) -> None:
    _, key = await tenant_with(nestor, max_runtimes=1000)
    report = await nestor.call("POST", f"{CONVERSATIONS}?dry_run=true", key, json={}, status=200)
    assert report["limits"] == [{"rule": "tenant.runtimes", "limit": 3, "current": 0}]
    _, lower = await tenant_with(nestor, "lower", max_runtimes=1)
    report = await nestor.call("POST", f"{CONVERSATIONS}?dry_run=true", lower, json={}, status=200)
    assert report["limits"][0]["limit"] == 1


async def limit_of(nestor: Nestor, key: str) -> int | None:
    report = await nestor.call("POST", f"{CONVERSATIONS}?dry_run=true", key, json={}, status=200)
    return next((meter["limit"] for meter in report["limits"] if meter["rule"] == "tenant.runtimes"), None)


async def test_the_operator_gives_one_tenant_more_than_others(nestor: Nestor) -> None:
    tenant, key = await tenant_with(nestor, max_runtimes=50)
    _, other = await tenant_with(nestor, "other")
    path = f"/api/v2/tenants/{tenant}"
    changed = await nestor.call("PATCH", path, json={"limits": {"max_runtimes": 7, "starts_per_minute": 9}}, status=200)
    assert changed["limits"] == {"max_runtimes": 7, "starts_per_minute": 9}
    assert [await limit_of(nestor, one) for one in (key, other)] == [7, 3]
    await nestor.call("PATCH", path, json={"limits": {"max_runtimes": 2}}, status=200)
    assert await limit_of(nestor, key) == 2
    for _ in range(2):
        await ready(nestor, key)
    await refused(nestor, key)
    await nestor.call("PATCH", path, json={"limits": {"max_runtimes": 0}}, status=200)
    assert await limit_of(nestor, key) == 50, "its own"
    await nestor.call("PATCH", path, json={"limits": {"max_runtimes": None, "starts_per_minute": None}}, status=200)
    assert (await nestor.call("GET", path, status=200))["limits"] == {}
    assert await limit_of(nestor, key) == 3
    for bad in ({"max_runtimes": -1}, {"max_runtimes": "many"}, {"when_full": "queue"}):
        await nestor.call("PATCH", path, json={"limits": bad}, status=422)
    response = await nestor.http.patch(path, headers=nestor.as_(key), json={"limits": {"max_runtimes": 9}})
    assert response.status_code in (403, 404), "its own key does not raise it"
    assert await limit_of(nestor, key) == 3


async def test_the_operator_gives_a_tenant_sizes_of_its_own_and_a_first_one(nestor: Nestor) -> None:
    tenant, key = await tenant_with(nestor)
    _, other = await tenant_with(nestor, "other")
    path = f"/api/v2/tenants/{tenant}"
    changed = await nestor.call("PATCH", path, json={"sizes": [4, 1]}, status=200)
    assert (changed["sizes"], changed["limits"]) == ([4, 1], {})
    await nestor.call("PATCH", path, json={"limits": {"starts_per_minute": 9}}, status=200)
    assert (await nestor.call("GET", path, status=200))["sizes"] == [4, 1]

    async def made(key: str, **body: int) -> Limits:
        record = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json=body, status=200)
        assert record["size"] == nestor.engine.runtimes[f"nestor-{record['runtime']['id']}-g1"].spec.limits.size
        return nestor.engine.runtimes[f"nestor-{record['runtime']['id']}-g1"].spec.limits

    assert await made(key) == Limits().times(4)
    assert await made(key, size=1) == Limits()
    assert await made(other) == Limits()
    for who, size in ((key, 2), (key, 8), (other, 4)):
        told = await nestor.call("POST", "/api/v2/conversations", who, json={"size": size}, status=422)
        assert told["field"] == "size"
    assert told["hint"].endswith(": 1")
    unknown = await nestor.call("PATCH", path, json={"sizes": [1, 3]}, status=422)
    assert "1, 2, 4, 8" in unknown["hint"]
    assert (await nestor.http.patch(path, headers=nestor.as_(key), json={"sizes": [8]})).status_code in (403, 404)
    await nestor.call("PATCH", path, json={"sizes": None}, status=200)
    assert await made(key) == Limits()


@pytest.mark.parametrize("name", ["max_runtimes", "starts_per_minute_per_user", "when_full"])
async def test_only_the_tenant_itself_sets_its_limits(nestor: Nestor, name: str) -> None:
    tenant, key = await tenant_with(nestor)
    user = (await nestor.call("POST", f"/api/v2/tenants/{tenant}/users", json={"name": "u"}, status=201))["id"]
    limits = {name: "queue" if name == "when_full" else 5}
    acting = {"X-Act-As-User": user}
    problem = await nestor.call("PATCH", "/api/v2/settings", key, json={"limits": limits}, headers=acting, status=422)
    assert problem["field"] == f"limits.{name}"
    body = {"settings": {"limits": limits}}
    problem = await nestor.call("POST", CONVERSATIONS, key, json=body, status=422)
    assert problem["field"] == f"limits.{name}"


async def test_slots_come_back_on_stop_pause_delete_and_failure(nestor: Nestor) -> None:
    _, key = await tenant_with(nestor, max_runtimes=1)
    for act in ("stop", "pause", "delete", "fail"):
        if act == "fail":
            nestor.engine.script.fail("POST", "/api/settings", 400, times=1)
            record = await nestor.call("POST", f"{CONVERSATIONS}?wait=ready&timeout=20", key, json={}, status=200)
            assert record["phase"] == "failed"
        else:
            record = await ready(nestor, key)
            await refused(nestor, key)
            method, path = ("DELETE", "") if act == "delete" else ("POST", f"/{act}")
            accepted = await nestor.call(method, f"{CONVERSATIONS}/{record['id']}{path}", key, status=202)
            await nestor.ended(key, accepted["operation"])
    with anyio.fail_after(10):  # the slot of a failure comes back a moment after it is told
        while (await nestor.http.post(CONVERSATIONS, headers=nestor.as_(key), json={})).status_code == 429:
            await anyio.sleep(0.02)


async def test_a_resume_over_the_limit_is_refused_and_changes_nothing(nestor: Nestor) -> None:
    _, key = await tenant_with(nestor, max_runtimes=1)
    first = await ready(nestor, key)
    path = f"{CONVERSATIONS}/{first['id']}"
    accepted = await nestor.call("POST", f"{path}/pause", key, status=202)
    await nestor.ended(key, accepted["operation"])
    second = await ready(nestor, key)
    before = await nestor.call("GET", path, key, status=200)
    await refused(nestor, key, path=f"{path}/resume")
    assert await nestor.call("GET", path, key, status=200) == before
    assert (await nestor.call("POST", f"{path}/resume?dry_run=true", key, status=200))["decision"] == "reject"
    await nestor.call("POST", f"{CONVERSATIONS}/{second['id']}/stop", key, status=202)
    await nestor.until(key, second["id"], "stopped")
    await nestor.call("POST", f"{path}/resume", key, status=202)
    await nestor.until(key, first["id"], "ready")


async def test_starts_in_a_minute_are_limited(nestor: Nestor) -> None:
    _, key = await tenant_with(nestor, starts_per_minute=2)
    for _ in range(2):
        record = await ready(nestor, key)
        await nestor.call("POST", f"{CONVERSATIONS}/{record['id']}/stop", key, status=202)
        await nestor.until(key, record["id"], "stopped")
    response = await refused(nestor, key)
    assert response.json()["rule"] == "tenant.starts"
    assert response.headers["ratelimit-policy"] == '"tenant.starts";q=2;w=60'
    assert 1 <= int(response.headers["retry-after"]) <= 60


@pytest.mark.parametrize("whose", ["user", "key"])
async def test_starts_in_a_minute_are_limited_for_each_user_and_key(nestor: Nestor, whose: str) -> None:
    tenant, key = await tenant_with(nestor, **{f"starts_per_minute_per_{whose}": 1})
    path, both = f"/api/v2/tenants/{tenant}", ("one", "other")
    if whose == "user":
        users = [(await nestor.call("POST", f"{path}/users", json={"name": name}, status=201))["id"] for name in both]
        callers = [{**nestor.as_(key), "X-Act-As-User": user} for user in users]
    else:
        keys = [
            (await nestor.call("POST", f"{path}/api-keys", json={"name": name}, status=201))["key"] for name in both
        ]
        callers = [nestor.as_(own) for own in keys]
    for caller in callers:
        assert (await nestor.http.post(CONVERSATIONS, headers=caller, json={})).status_code == 202
    response = await nestor.http.post(CONVERSATIONS, headers=callers[0], json={})
    assert (response.status_code, response.json()["rule"]) == (429, f"{whose}.starts")
    assert 1 <= int(response.headers["retry-after"]) <= 60


async def test_starts_in_a_minute_are_limited_on_the_host(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine, starts_per_minute=1) as nestor:
        one, other = await nestor.ready_tenant("one"), await nestor.ready_tenant("other")
        await ready(nestor, one)
        response = await refused(nestor, other, status=503)
        assert (response.json()["code"], response.json()["rule"]) == ("capacity", "host.starts")
        assert 1 <= int(response.headers["retry-after"]) <= 60


async def test_users_and_keys_have_limits_of_their_own(nestor: Nestor) -> None:
    tenant, key = await tenant_with(nestor, max_runtimes_per_user=1)
    users = [
        (await nestor.call("POST", f"/api/v2/tenants/{tenant}/users", json={"name": name}, status=201))["id"]
        for name in ("ada", "bob")
    ]
    for user in users:
        response = await nestor.http.post(CONVERSATIONS, headers={**nestor.as_(key), "X-Act-As-User": user}, json={})
        assert response.status_code == 202
    response = await nestor.http.post(CONVERSATIONS, headers={**nestor.as_(key), "X-Act-As-User": users[0]}, json={})
    assert (response.status_code, response.json()["rule"]) == (429, "user.runtimes")
    await nestor.call("PATCH", "/api/v2/settings", key, json={"limits": {"max_runtimes_per_key": 2}}, status=200)
    assert (await refused(nestor, key)).json()["rule"] == "key.runtimes"
    other = await nestor.call("POST", f"/api/v2/tenants/{tenant}/api-keys", json={"name": "k2"}, status=201)
    await nestor.call("POST", CONVERSATIONS, other["key"], json={}, status=202)


async def test_a_retried_start_counts_once(nestor: Nestor) -> None:
    _, key = await tenant_with(nestor, max_runtimes=1, starts_per_minute=1)
    headers = {"Idempotency-Key": "again"}
    body = {"id": "6f1c0b0e-0000-4000-8000-000000000001"}
    first = await nestor.call("POST", CONVERSATIONS, key, json=body, headers=headers, status=202)
    assert await nestor.call("POST", CONVERSATIONS, key, json=body, headers=headers, status=202) == first
    joined = await nestor.call("POST", CONVERSATIONS, key, json=body, status=202)
    assert joined["operation"] == first["operation"]
    again = await nestor.call("POST", f"{CONVERSATIONS}/{first['id']}/start", key)  # 202, or 200 once it is ready
    assert again["operation"] == first["operation"]
    assert (await nestor.until(key, first["id"], "ready", "failed"))["phase"] == "ready"


async def test_a_burst_never_has_more_alive_than_the_limit(nestor: Nestor) -> None:
    _, key = await tenant_with(nestor, max_runtimes=3, when_full="queue")
    most, answers = 0, []

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, running(nestor))
            await anyio.sleep(0.001)

    async def start() -> None:
        response = await nestor.http.post(CONVERSATIONS, headers=nestor.as_(key), json={})
        answers.append(response.json())

    async with anyio.create_task_group() as watching:
        watching.start_soon(watch)
        async with anyio.create_task_group() as tasks:
            for _ in range(12):
                tasks.start_soon(start)
        for number in range(12):  # each that became ready makes room for the next
            with anyio.fail_after(30):
                while True:
                    page = await nestor.call("GET", CONVERSATIONS, key, status=200)
                    here = [item for item in page["items"] if item["phase"] == "ready"]
                    if here:
                        break
                    await anyio.sleep(0.02)
            await nestor.call("POST", f"{CONVERSATIONS}/{here[-1]['id']}/stop", key, status=202)
            await nestor.until(key, here[-1]["id"], "stopped")
            assert number < 12
        watching.cancel_scope.cancel()
    assert most == 3
    phases = [item["phase"] for item in (await nestor.call("GET", CONVERSATIONS, key, status=200))["items"]]
    assert phases == ["stopped"] * 12


async def test_a_queued_start_shows_its_place_and_leaves_on_stop_and_delete(nestor: Nestor) -> None:
    _, key = await tenant_with(nestor, max_runtimes=1, when_full="queue")
    first = await ready(nestor, key)
    report = await nestor.call("POST", f"{CONVERSATIONS}?dry_run=true", key, json={}, status=200)
    assert (report["decision"], report["place"], report["rule"]) == ("queue", 1, "tenant.runtimes")
    waiting = [await nestor.call("POST", CONVERSATIONS, key, json={}, status=202) for _ in range(3)]
    assert [record["phase"] for record in waiting] == ["pending"] * 3
    assert [record["queue"]["place"] for record in waiting] == [1, 2, 3]
    assert waiting[0]["queue"]["until"] > waiting[0]["created_at"]
    await nestor.call("POST", f"{CONVERSATIONS}/{waiting[0]['id']}/stop", key, status=202)
    await nestor.until(key, waiting[0]["id"], "stopped")
    await nestor.call("DELETE", f"{CONVERSATIONS}/{waiting[1]['id']}", key, status=202)
    with anyio.fail_after(10):
        while (await nestor.call("GET", f"{CONVERSATIONS}/{waiting[2]['id']}", key))["queue"]["place"] != 1:
            await anyio.sleep(0.02)
    await nestor.call("POST", f"{CONVERSATIONS}/{first['id']}/stop", key, status=202)
    record = await nestor.until(key, waiting[2]["id"], "ready")
    assert record["queue"] is None
    assert record["operation"] == waiting[2]["operation"]


async def test_a_start_that_waits_too_long_fails_with_the_reason(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine, tenant_max_runtimes=1, queue_seconds=0.5, when_full="queue") as nestor:
        key = await nestor.ready_tenant()
        await ready(nestor, key)
        late = await nestor.call("POST", CONVERSATIONS, key, json={}, status=202)
        failed = await nestor.until(key, late["id"], "failed")
        assert (failed["reason"], failed["retryable"], failed["queue"]) == ("limit", True, None)
        assert (await nestor.ended(key, late["operation"]))["state"] == "failed"
        again = await nestor.call("POST", f"{CONVERSATIONS}/{late['id']}/start", key, status=202)
        assert again["queue"]["place"] == 1


async def test_the_queue_is_bounded(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine, tenant_max_runtimes=1, queue_length=2, when_full="queue") as nestor:
        key = await nestor.ready_tenant()
        await ready(nestor, key)
        for _ in range(2):
            await nestor.call("POST", CONVERSATIONS, key, json={}, status=202)
        response = await refused(nestor, key)
        report = await nestor.call("POST", f"{CONVERSATIONS}?dry_run=true", key, json={}, status=200)
        assert report["decision"] == "reject"
        assert report["retry_after"] == int(response.headers["retry-after"])
        told = [(answer["rule"], answer["limit"], answer["current"]) for answer in (response.json(), report)]
        assert told == [("tenant.queue", 2, 2)] * 2


async def test_the_oldest_idle_one_is_paused_for_a_new_one(nestor: Nestor) -> None:
    _, key = await tenant_with(nestor, max_runtimes=2, when_full="pause_oldest_idle")
    first, second = await ready(nestor, key), await ready(nestor, key)
    report = await nestor.call("POST", f"{CONVERSATIONS}?dry_run=true", key, json={}, status=200)
    assert (report["decision"], report["would_pause"]) == ("pause", [first["id"]])
    assert (await nestor.call("GET", f"{CONVERSATIONS}/{first['id']}", key))["phase"] == "ready", "nothing was done"
    third = await ready(nestor, key)
    evicted = await nestor.call("GET", f"{CONVERSATIONS}/{first['id']}", key)
    assert (evicted["phase"], evicted["reason"], evicted["desired"]) == ("paused", "evicted", "running")
    assert running(nestor) == 2
    # its next use wakes it, in the place of the one that is unused for longest by then
    await nestor.call("POST", f"{CONVERSATIONS}/{first['id']}/messages", key, json={"content": "hello"}, status=202)
    await nestor.until(key, first["id"], "ready")
    assert (await nestor.until(key, second["id"], "paused"))["reason"] == "evicted"
    assert (await nestor.call("GET", f"{CONVERSATIONS}/{third['id']}", key))["phase"] == "ready"
    assert running(nestor) == 2


async def test_a_running_agent_is_never_paused_for_another(nestor: Nestor) -> None:
    _, key = await tenant_with(nestor, max_runtimes=1, when_full="pause_oldest_idle")
    record = await ready(nestor, key)
    at_work = {"execution_status": "running"}
    nestor.engine.script.fail("GET", f"/api/conversations/{record['id']}", 200, times=None, body=at_work)
    report = await nestor.call("POST", f"{CONVERSATIONS}?dry_run=true", key, json={}, status=200)
    assert (report["decision"], report["would_pause"]) == ("reject", [])
    assert (await refused(nestor, key)).json()["rule"] == "tenant.runtimes"
    assert (await nestor.call("GET", f"{CONVERSATIONS}/{record['id']}", key))["phase"] == "ready"


async def test_one_that_began_to_work_after_it_was_chosen_is_spared(nestor: Nestor) -> None:
    _, key = await tenant_with(nestor, max_runtimes=2, when_full="pause_oldest_idle")
    first, second = await ready(nestor, key), await ready(nestor, key)
    idle, at_work = {"execution_status": "idle"}, {"execution_status": "running"}
    # asked once while it is chosen, and again by the worker that is about to pause it
    nestor.engine.script.fail("GET", f"/api/conversations/{first['id']}", 200, times=1, body=idle)
    nestor.engine.script.fail("GET", f"/api/conversations/{first['id']}", 200, times=None, body=at_work)
    third = await nestor.call("POST", CONVERSATIONS, key, json={}, status=202)
    await nestor.until(key, third["id"], "ready")
    assert (await nestor.call("GET", f"{CONVERSATIONS}/{first['id']}", key))["phase"] == "ready"
    assert (await nestor.call("GET", f"{CONVERSATIONS}/{second['id']}", key))["reason"] == "evicted"


async def test_two_that_wake_each_other_out_go_on(nestor: Nestor) -> None:
    """One place, two conversations in turn: no deadlock, and never both at once."""
    _, key = await tenant_with(nestor, max_runtimes=1, when_full="pause_oldest_idle")
    ids = [(await ready(nestor, key))["id"] for _ in range(2)]
    for turn in range(3):
        id = ids[turn % 2]
        body = {"content": f"turn {turn}"}
        await nestor.call("POST", f"{CONVERSATIONS}/{id}/messages", key, json=body, status=202)
        await nestor.until(key, id, "ready")
        assert running(nestor) == 1


@pytest.mark.parametrize("when_full", ["reject", "queue"])
async def test_a_message_waits_for_a_place_and_is_not_refused(nestor: Nestor, when_full: str) -> None:
    _, key = await tenant_with(nestor, max_runtimes=1, idle_pause_seconds=0.3, when_full=when_full)
    first = await ready(nestor, key)
    await nestor.until(key, first["id"], "paused")
    await nestor.call("PATCH", "/api/v2/settings", key, json={"limits": {"idle_pause_seconds": 0}}, status=200)
    second = await ready(nestor, key)
    path = f"{CONVERSATIONS}/{first['id']}"
    await nestor.call("POST", f"{path}/messages", key, json={"content": "later"}, status=202)
    with anyio.fail_after(10):
        while (await nestor.call("GET", path, key))["queue"] is None:
            await anyio.sleep(0.02)
    found = await nestor.house.wake(RuntimeId(first["runtime"]["id"]), 0.2)
    assert isinstance(found, Unavailable)
    rule = {"rule": "tenant.runtimes", "limit": 1, "current": 1}
    if when_full == "queue":
        assert found.message == "it waits for a place, as number 1 of the queue: tenant.runtimes is full (1 of 1)"
        rule["place"] = 1
    assert (found.details, found.retry_after) == (rule, 5)
    await nestor.call("POST", f"{CONVERSATIONS}/{second['id']}/stop", key, status=202)
    await nestor.until(key, first["id"], "ready")
    nestor.house.routes.invalidate(RuntimeId(first["runtime"]["id"]))
    assert isinstance(await nestor.house.routes.resolve(RuntimeId(first["runtime"]["id"])), Route)


async def test_the_host_is_shared_in_turns(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine, max_runtimes=2, when_full="queue") as nestor:
        greedy, modest = await nestor.ready_tenant("greedy"), await nestor.ready_tenant("modest")
        running_now = [(await ready(nestor, greedy))["id"] for _ in range(2)]
        queued = [(await nestor.call("POST", CONVERSATIONS, greedy, json={}, status=202))["id"] for _ in range(4)]
        late = [(await nestor.call("POST", CONVERSATIONS, modest, json={}, status=202))["id"] for _ in range(2)]
        for id in running_now:
            await nestor.call("POST", f"{CONVERSATIONS}/{id}/stop", greedy, status=202)
        await nestor.until(greedy, queued[0], "ready")
        await nestor.until(modest, late[0], "ready")
        assert running(nestor) == 2
        for key, id in ((greedy, queued[0]), (modest, late[0])):
            await nestor.call("POST", f"{CONVERSATIONS}/{id}/stop", key, status=202)
        await nestor.until(greedy, queued[1], "ready")
        await nestor.until(modest, late[1], "ready")
        assert running(nestor) == 2


async def test_a_full_host_is_told_without_telling_of_others(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine, max_runtimes=1) as nestor:
        one, other = await nestor.ready_tenant("one"), await nestor.ready_tenant("other")
        first = await ready(nestor, one)
        response = await refused(nestor, other, status=503)
        problem = response.json()
        assert (problem["code"], problem["rule"]) == ("capacity", "host.runtimes")
        assert "current" not in problem
        assert int(response.headers["retry-after"]) >= 1
        await nestor.call("POST", f"{CONVERSATIONS}/{first['id']}/stop", one, status=202)
        await nestor.until(one, first["id"], "stopped")
        await nestor.ended(one, (await nestor.call("GET", f"{CONVERSATIONS}/{first['id']}", one))["operation"])
        with anyio.fail_after(10):
            while (await nestor.http.post(CONVERSATIONS, headers=nestor.as_(other), json={})).status_code == 503:
                await anyio.sleep(0.02)


async def test_the_place_of_a_replica_that_died_is_found_again(data_dir: Path, engine: FakeEngine) -> None:
    """The orchestrator ends while one start waits and one runs; the next one goes on with both."""
    async with nestor_at(data_dir, engine, tenant_max_runtimes=1, when_full="queue", lease_seconds=1) as nestor:
        key = await nestor.ready_tenant()
        first = await ready(nestor, key)
        second = await nestor.call("POST", CONVERSATIONS, key, json={}, status=202)
    async with nestor_at(data_dir, engine, tenant_max_runtimes=1, when_full="queue", lease_seconds=1) as nestor:
        assert (await nestor.call("GET", f"{CONVERSATIONS}/{second['id']}", key))["queue"]["place"] == 1
        await nestor.call("POST", f"{CONVERSATIONS}/{first['id']}/stop", key, status=202)
        await nestor.until(key, second["id"], "ready")
        assert running(nestor) == 1


async def test_a_flood_of_refused_starts_leaves_nothing_in_the_store(nestor: Nestor) -> None:
    tenant, key = await tenant_with(nestor, max_runtimes=1)
    await ready(nestor, key)
    for _ in range(20):
        await refused(nestor, key)
    for pattern in (f"t:{{{tenant}}}:o:*", "x:runtime:*", f"t:{{{tenant}}}:c:????????-????-????-????-????????????"):
        found = await nestor.house.store._funnel.one(command("KEYS", pattern))
        assert len(found) == 1, (pattern, found)


async def test_what_runs_is_counted_again_after_the_counts_were_lost(nestor: Nestor) -> None:
    tenant, key = await tenant_with(nestor, max_runtimes=1)
    record = await ready(nestor, key)
    store, place = nestor.house.store, (TenantId(tenant), ConversationId(record["id"]))
    await store._funnel.one(command("DEL", TenantKeys(place[0]).slots))
    await store.conversations.poke(*place)
    nestor.house.workers.wake()
    with anyio.fail_after(10):
        while not await store.slots.oldest(place[0], limit=9):
            await anyio.sleep(0.02)
    await refused(nestor, key)


async def test_usage_tells_what_runs_and_waits_and_how_limits_stand(nestor: Nestor) -> None:
    tenant, key = await tenant_with(nestor, max_runtimes=2, starts_per_minute=9, when_full="queue")
    path = f"/api/v2/tenants/{tenant}/users"
    users = [await nestor.call("POST", path, json={"name": name}, status=201) for name in ("ann", "bob")]
    ann = {"X-Act-As-User": users[0]["id"]}
    first = await nestor.call("POST", f"{CONVERSATIONS}?wait=ready&timeout=60", key, json={}, headers=ann, status=200)
    await ready(nestor, key)
    await nestor.call("POST", CONVERSATIONS, key, json={}, status=202)
    whole = await nestor.call("GET", "/api/v2/usage", key, status=200)
    assert (whole["runtimes"], whole["waiting"], whole["when_full"]) == (2, 1, "queue")
    of_runtimes, of_starts = whole["limits"]
    assert of_runtimes == {"rule": "tenant.runtimes", "limit": 2, "current": 2}
    assert of_starts | {"current": 0} == {"rule": "tenant.starts", "limit": 9, "current": 0, "window_seconds": 60}
    assert (await nestor.call("GET", "/api/v2/usage", key, headers=ann, status=200))["runtimes"] == 1
    bob = {"X-Act-As-User": users[1]["id"]}
    assert (await nestor.call("GET", "/api/v2/usage", key, headers=bob, status=200))["runtimes"] == 0
    _, other = await nestor.tenant("other")
    apart = await nestor.call("GET", "/api/v2/usage", other, status=200)
    assert (apart["runtimes"], apart["waiting"], apart["limits"][0]["current"]) == (0, 0, 0)
    await nestor.call("POST", f"{CONVERSATIONS}/{first['id']}/stop", key, headers=ann, status=202)
    with anyio.fail_after(60):  # its place goes to the one that waits
        while (now := await nestor.call("GET", "/api/v2/usage", key, status=200))["waiting"]:
            await anyio.sleep(0.02)
    assert now["runtimes"] <= 2
    assert (await nestor.call("GET", "/api/v2/usage", key, headers=ann, status=200))["runtimes"] == 0
    await nestor.call("GET", "/api/v2/usage", status=403)
