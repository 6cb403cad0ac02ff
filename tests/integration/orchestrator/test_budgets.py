"""A budget that is reached: told once for each threshold, refuses starts with all that one wants to know, and lets
messages wait."""

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis
from support.orchestrators import MODEL, OPERATOR_KEY, Nestor, nestor_at
from support.receivers import WebhookReceiver, webhook_receiver

from orchestrator.domain.clock import rfc3339
from orchestrator.domain.conversation import Phase
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.domain.spending import Spent, month_of
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.services import messages, queueing
from orchestrator.state.keys import TenantKeys

from .test_empty_state_server import empty, rebuilt
from .test_event_intake import Told
from .test_webhooks import PATIENT, a_hook, came

pytestmark = pytest.mark.anyio
CONVERSATIONS = "/api/v2/conversations"


@pytest.fixture
async def nestor(data_dir: Path, engine: FakeEngine) -> AsyncIterator[Nestor]:
    async with nestor_at(data_dir, engine, **PATIENT, queue_seconds=30) as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as running:
        yield running


async def tenant_with(nestor: Nestor, budget: dict[str, Any] | None, **limits: object) -> tuple[str, str]:
    tenant, key = await nestor.tenant()
    await nestor.call("PATCH", "/api/v2/settings", key, json={**MODEL, "limits": limits}, status=200)
    await change(nestor, tenant, budget)
    return tenant, key


async def change(nestor: Nestor, tenant: str, budget: dict[str, Any] | None, status: int = 200) -> dict[str, Any]:
    path = f"/api/v2/tenants/{tenant}"
    return dict(await nestor.call("PATCH", path, OPERATOR_KEY, json={"budget": budget}, status=status))


async def a_user(nestor: Nestor, tenant: str, name: str) -> dict[str, str]:
    made = await nestor.call("POST", f"/api/v2/tenants/{tenant}/users", json={"name": name}, status=201)
    return {"X-Act-As-User": made["id"]}


async def ready(nestor: Nestor, key: str, **more: Any) -> dict[str, Any]:
    path = f"{CONVERSATIONS}?wait=ready&timeout=30"
    return dict(await nestor.call("POST", path, key, json={}, status=200, **more))


async def uses(nestor: Nestor, key: str, record: dict[str, Any], usd: float, tokens: int = 0) -> None:
    """Its runtime says that it has used so much in all."""
    place = await nestor.house.store.conversations.route(record["runtime"]["id"])
    assert place is not None
    stored = await nestor.house.store.conversations.get(*place)
    assert stored is not None
    inner = await nestor.house.services.keys.inner_key(stored)
    assert inner is not None
    told = Told(nestor, key, record, inner.open())
    metrics = {"accumulated_cost": usd, "accumulated_token_usage": {"prompt_tokens": tokens, "completion_tokens": 0}}
    event = {
        "id": str(uuid.uuid4()),
        "timestamp": "2026-01-01T00:00:00",
        "source": "environment",
        "kind": "ConversationStateUpdateEvent",
        "key": "stats",
        "value": {"usage_to_metrics": {"agent": metrics}},
    }
    told.log.append(event)
    assert (await told.post(told.log, first=1)).status_code == 200


@asynccontextmanager
async def raw_of(nestor: Nestor) -> AsyncIterator[Redis]:
    assert nestor.house.state_server is not None
    async with Redis.from_url(nestor.house.state_server.url, decode_responses=True) as raw:
        yield raw


def ends() -> str:
    return rfc3339(month_of(datetime.now(UTC)).ends)


async def refused(nestor: Nestor, key: str, path: str = CONVERSATIONS, **more: Any) -> dict[str, Any]:
    return dict(await nestor.call("POST", path, key, json={}, status=429, **more))


async def test_a_start_over_the_budget_is_told_all_about_it(nestor: Nestor) -> None:
    tenant, key = await tenant_with(nestor, {"monthly_usd": 10})
    running, stopped = await ready(nestor, key), await ready(nestor, key)
    path = f"{CONVERSATIONS}/{stopped['id']}"
    await nestor.call("POST", f"{path}/stop", key, status=202)
    await nestor.until(key, stopped["id"], "stopped")
    await uses(nestor, key, running, 9.999999)
    report = await nestor.call("POST", f"{CONVERSATIONS}?dry_run=true", key, json={}, status=200)
    month = month_of(datetime.now(UTC)).name
    (meter,) = [one for one in report["limits"] if one["rule"] == "tenant.monthly_usd"]
    assert (report["decision"], meter["limit"], meter["current"], meter["month"]) == ("start", 10.0, 9.999999, month)

    await uses(nestor, key, running, 10.25)
    answer = await nestor.http.post(CONVERSATIONS, headers=nestor.as_(key), json={})
    problem = answer.json()
    assert answer.status_code == 429
    assert (problem["code"], problem["rule"], problem["limit"], problem["current"], problem["resets_at"]) == (
        "budget_reached",
        "tenant.monthly_usd",
        10.0,
        10.25,
        ends(),
    )
    assert "$10.25" in problem["detail"]
    assert ends() in problem["hint"]
    left = (month_of(datetime.now(UTC)).ends - datetime.now(UTC)).total_seconds()
    assert abs(int(answer.headers["retry-after"]) - left) < 10
    for again in (f"{path}/start", f"{path}/resume"):
        assert (await refused(nestor, key, again))["code"] == "budget_reached"
    for tried in (CONVERSATIONS, f"{path}/start"):
        report = await nestor.call("POST", f"{tried}?dry_run=true", key, json={}, status=200)
        assert (report["decision"], report["rule"], report["limit"], report["current"]) == (
            "reject",
            "tenant.monthly_usd",
            10.0,
            10.25,
        )
        assert abs(report["retry_after"] - left) < 10
    usage = await nestor.call("GET", "/api/v2/usage", key, status=200)
    assert (usage["spent"]["usd"], usage["spent"]["ends_at"]) == (10.25, ends())
    assert {"rule": "tenant.monthly_usd", "limit": 10.0, "current": 10.25, "month": month} in usage["limits"]
    found = await nestor.call("GET", f"{CONVERSATIONS}/{running['id']}", key, status=200)
    assert (found["phase"], found["cost"]["usd"]) == ("ready", 10.25), "what runs goes on"
    started = await nestor.call("POST", f"{CONVERSATIONS}/{running['id']}/start", key)
    assert started["phase"] == "ready", "it has nothing to start"
    assert len((await nestor.call("GET", CONVERSATIONS, key, status=200))["items"]) == 2

    await change(nestor, tenant, {"monthly_usd": 11})
    await ready(nestor, key)
    await change(nestor, tenant, {"monthly_usd": 5})
    await refused(nestor, key)
    await change(nestor, tenant, None)
    await ready(nestor, key)


@pytest.mark.parametrize("policy", ["queue", "pause_oldest_idle"])
async def test_no_policy_lets_a_start_wait_for_money(nestor: Nestor, policy: str) -> None:
    _, key = await tenant_with(nestor, {"monthly_tokens": 1000}, when_full=policy)
    record = await ready(nestor, key)
    await uses(nestor, key, record, 0, tokens=1000)
    problem = await refused(nestor, key)
    assert (problem["code"], problem["rule"], problem["limit"], problem["current"]) == (
        "budget_reached",
        "tenant.monthly_tokens",
        1000,
        1000,
    )
    report = await nestor.call("POST", f"{CONVERSATIONS}?dry_run=true", key, json={}, status=200)
    assert (report["decision"], report["place"], report["would_pause"]) == ("reject", None, [])
    assert (await nestor.call("GET", f"{CONVERSATIONS}/{record['id']}", key))["phase"] == "ready"


async def test_a_user_who_spent_it_keeps_nobody_else_from_starting(nestor: Nestor) -> None:
    tenant, key = await tenant_with(nestor, {"monthly_usd_per_user": 1, "monthly_usd": 100})
    ann, bob = await a_user(nestor, tenant, "ann"), await a_user(nestor, tenant, "bob")
    await uses(nestor, key, await ready(nestor, key, headers=ann), 1.5)
    problem = await refused(nestor, key, headers=ann)
    assert (problem["rule"], problem["limit"], problem["current"]) == ("user.monthly_usd", 1.0, 1.5)
    await ready(nestor, key, headers=bob)
    await ready(nestor, key)
    spent = [
        (await nestor.call("GET", "/api/v2/usage", key, headers=who, status=200))["spent"]["usd"]
        for who in (ann, bob, {})
    ]
    assert spent == [1.5, 0.0, 1.5]


async def test_a_message_to_a_sleeping_one_is_taken_and_waits_for_the_budget(nestor: Nestor) -> None:
    tenant, key = await tenant_with(nestor, {"monthly_usd": 1}, idle_pause_seconds=0.2)
    record = await ready(nestor, key)
    await uses(nestor, key, record, 2)
    path = f"{CONVERSATIONS}/{record['id']}"
    paused = await nestor.until(key, record["id"], "paused")
    assert paused["reason"] == "idle"
    told = await nestor.call("POST", f"{path}/messages", key, json={"content": "go on", "client_id": "m"}, status=202)
    assert told["state"] == "queued"
    with anyio.fail_after(20):
        while (await nestor.call("GET", path, key, status=200))["queue"] is None:
            await anyio.sleep(0.02)
    await anyio.sleep(0.5)
    found = await nestor.call("GET", path, key, status=200)
    assert (found["phase"], found["queue"]["place"]) == ("paused", 1)
    assert (await nestor.call("GET", f"{path}/messages/m", key, status=200))["state"] == "queued"
    await change(nestor, tenant, {"monthly_usd": 3})
    with anyio.fail_after(20):
        while (await nestor.call("GET", f"{path}/messages/m", key, status=200))["state"] == "queued":
            await anyio.sleep(0.05)


async def test_a_tenant_that_waits_for_money_keeps_no_other_from_its_turn(
    nestor: Nestor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "_TENANTS_A_TICK", 1)
    _, poor = await tenant_with(nestor, {"monthly_usd": 1}, idle_pause_seconds=0.2)
    record = await ready(nestor, poor)
    await uses(nestor, poor, record, 2)
    await nestor.until(poor, record["id"], "paused")
    path = f"{CONVERSATIONS}/{record['id']}"
    await nestor.call("POST", f"{path}/messages", poor, json={"content": "go on", "client_id": "m"}, status=202)
    with anyio.fail_after(20):
        while (await nestor.call("GET", path, poor, status=200))["queue"] is None:
            await anyio.sleep(0.02)
    _, key = await tenant_with(nestor, None, max_runtimes=1, when_full="queue")
    first = await ready(nestor, key)
    second = await nestor.call("POST", CONVERSATIONS, key, json={})
    await nestor.call("POST", f"{CONVERSATIONS}/{first['id']}/stop", key)
    with anyio.fail_after(15):
        await nestor.until(key, second["id"], "ready")


async def test_what_runs_is_paused_where_the_budget_says_so_and_goes_on_when_it_is_raised(nestor: Nestor) -> None:
    budget = {"monthly_usd_per_user": 1, "when_reached": "pause"}
    tenant, key = await tenant_with(nestor, budget)
    ann, bob = await a_user(nestor, tenant, "ann"), await a_user(nestor, tenant, "bob")
    hers, his = await ready(nestor, key, headers=ann), await ready(nestor, key, headers=bob)
    await uses(nestor, key, hers, 1.01)
    path = f"{CONVERSATIONS}/{hers['id']}"
    told = await nestor.call("POST", f"{path}/messages", key, json={"content": "go on", "client_id": "m"}, status=202)
    assert told["state"] == "queued"
    paused = await nestor.until(key, hers["id"], "paused")
    assert (paused["reason"], paused["desired"], paused["status"]) == ("limit", "running", "paused")
    assert "spent" in paused["message"]
    assert "raised the budget" in paused["hint"]
    assert (await nestor.call("GET", f"{path}/messages/m", key, status=200))["state"] == "queued"
    assert (await refused(nestor, key, f"{path}/resume"))["rule"] == "user.monthly_usd"
    assert (await nestor.call("GET", f"{CONVERSATIONS}/{his['id']}", key, status=200))["phase"] == "ready"
    await change(nestor, tenant, budget | {"monthly_usd_per_user": 2})
    with anyio.fail_after(20):
        while (await nestor.call("GET", f"{path}/messages/m", key, status=200))["state"] == "queued":
            await anyio.sleep(0.05)
    assert (await nestor.call("GET", path, key, status=200))["phase"] == "ready"


async def test_each_threshold_is_told_once_also_over_a_loss_of_state(nestor: Nestor, receiver: WebhookReceiver) -> None:
    _, key = await tenant_with(nestor, {"monthly_usd": 10, "thresholds": [80, 50, 100, 50]})
    await a_hook(nestor, key, receiver.url, "budget.threshold_reached")
    await a_hook(nestor, key, receiver.url, "budget.threshold_reached")
    record, other = await ready(nestor, key), await ready(nestor, key)
    await uses(nestor, key, record, 5)
    await uses(nestor, key, record, 5)
    posts = await came(receiver, lambda posts: len(posts) == 2)
    assert posts[0].body["data"] == {
        "rule": "tenant.monthly_usd",
        "unit": "usd",
        "threshold_percent": 50,
        "limit": 10.0,
        "spent": 5.0,
        "month": month_of(datetime.now(UTC)).name,
        "resets_at": ends(),
        "user_id": None,
    }
    await empty(nestor)
    await rebuilt(nestor)
    await uses(nestor, key, other, 4.5)
    await uses(nestor, key, record, 7)
    posts = await came(receiver, lambda posts: len([p for p in posts if p.body["type"].startswith("budget")]) == 6)
    told = [post.body for post in posts if post.body["type"].startswith("budget")]
    assert sorted(body["data"]["threshold_percent"] for body in told) == [50, 50, 80, 80, 100, 100]
    assert len({body["id"] for body in told}) == 3
    usage = await nestor.call("GET", "/api/v2/usage", key, status=200)
    assert usage["spent"]["usd"] == 11.5


async def test_a_budget_is_the_operators_and_shown_to_its_tenant(nestor: Nestor) -> None:
    tenant, key = await tenant_with(nestor, {"monthly_usd": 12.5, "thresholds": [90, 10, 90]})
    shown = {
        "monthly_usd": 12.5,
        "monthly_tokens": None,
        "monthly_usd_per_user": None,
        "monthly_tokens_per_user": None,
        "thresholds": [10, 90],
        "when_reached": "refuse_starts",
    }
    found = await nestor.call("GET", f"/api/v2/tenants/{tenant}", key, status=200)
    assert found["budget"] == shown
    changed = await nestor.call("PATCH", f"/api/v2/tenants/{tenant}", json={"limits": {"max_runtimes": 9}}, status=200)
    assert changed["budget"] == shown
    response = await nestor.http.patch(
        f"/api/v2/tenants/{tenant}", headers=nestor.as_(key), json={"budget": {"monthly_usd": 1e6}}
    )
    assert response.status_code in (403, 404)
    for bad in (
        {},
        {"thresholds": [50]},
        {"monthly_usd": 0},
        {"monthly_usd": -1},
        {"monthly_usd": 1e10},
        {"monthly_usd": "much"},
        {"monthly_tokens": 0},
        {"monthly_tokens": 1.5},
        {"monthly_usd": 1, "thresholds": []},
        {"monthly_usd": 1, "thresholds": [0]},
        {"monthly_usd": 1, "yearly_usd": 1},
        {"monthly_usd": 1, "when_reached": "delete"},
    ):
        problem = await change(nestor, tenant, bad, status=422)
        assert "budget" in json.dumps(problem), problem
    assert (await nestor.call("GET", f"/api/v2/tenants/{tenant}", key, status=200))["budget"] == shown
    for month in ("2026", "2026-13", "2026-1", "26-01", "0000-01", "now", "２０２６-01"):
        problem = await nestor.call("GET", f"/api/v2/usage?month={month}", key, status=422)
        assert problem["field"] == "month"
    past = await nestor.call("GET", "/api/v2/usage?month=2025-12", key, status=200)
    assert (past["spent"]["month"], past["spent"]["usd"]) == ("2025-12", 0.0)


async def test_what_a_hostile_runtime_says_of_its_use_harms_nothing(nestor: Nestor) -> None:
    _, key = await tenant_with(nestor, {"monthly_usd": 100})
    record = await ready(nestor, key)
    for usd, tokens in ((-5.0, -5), (True, True), ("1", None), (1e308, 10**30)):
        await uses(nestor, key, record, usd, tokens)  # type: ignore[arg-type]  # that is the point
    usage = await nestor.call("GET", "/api/v2/usage", key, status=200)
    assert (usage["spent"]["usd"], usage["spent"]["prompt_tokens"]) == (1e9, 10**15)


async def test_what_was_used_before_anybody_counted_is_of_no_month(nestor: Nestor) -> None:
    tenant, key = await tenant_with(nestor, {"monthly_usd": 100})
    record = await ready(nestor, key)
    async with raw_of(nestor) as raw:  # as a version left it that did not count
        kept = TenantKeys(TenantId(tenant)).conversation(ConversationId(record["id"]))
        assert await raw.hdel(kept, "used_micros", "used_prompt", "used_completion") == 3
    await uses(nestor, key, record, 400)
    assert (await nestor.call("GET", "/api/v2/usage", key, status=200))["spent"]["usd"] == 0
    await uses(nestor, key, record, 402.5)
    assert (await nestor.call("GET", "/api/v2/usage", key, status=200))["spent"]["usd"] == 2.5
    found = await nestor.call("GET", f"{CONVERSATIONS}/{record['id']}", key, status=200)
    assert found["cost"]["usd"] == 402.5


async def test_a_message_to_a_stopped_one_waits_for_the_budget_also_when_its_place_is_given_up(
    nestor: Nestor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "WAKE_MS", 300)
    tenant, key = await tenant_with(nestor, {"monthly_usd": 1}, idle_pause_seconds=0.2, stop_paused_seconds=0.3)
    record = await ready(nestor, key)
    await uses(nestor, key, record, 2)
    stopped = await nestor.until(key, record["id"], "stopped")
    assert stopped["reason"] == "idle"
    path = f"{CONVERSATIONS}/{record['id']}"
    await nestor.call("POST", f"{path}/messages", key, json={"content": "go on", "client_id": "m"}, status=202)
    await anyio.sleep(2)
    found = await nestor.call("GET", path, key, status=200)
    assert (found["phase"], found["queue"]["place"]) == ("stopped", 1)
    assert (await nestor.call("GET", f"{path}/messages/m", key, status=200))["state"] == "queued"
    await change(nestor, tenant, {"monthly_usd": 3})
    with anyio.fail_after(20):
        while (await nestor.call("GET", f"{path}/messages/m", key, status=200))["state"] == "queued":
            await anyio.sleep(0.05)


async def test_a_tenant_that_nobody_can_read_stops_nothing_that_is_done_for_it(nestor: Nestor) -> None:
    tenant, key = await tenant_with(nestor, {"monthly_usd": 1, "when_reached": "pause"}, idle_pause_seconds=2)
    record = await ready(nestor, key)
    async with raw_of(nestor) as raw:
        await raw.set(TenantKeys(TenantId(tenant)).tenant, "{damaged")
    with anyio.fail_after(20):
        while True:
            found = await nestor.house.store.conversations.get(TenantId(tenant), ConversationId(record["id"]))
            if found is not None and found.phase is Phase.PAUSED:
                break
            await anyio.sleep(0.05)


async def test_a_ledger_of_long_ago_does_not_come_back_with_the_others(nestor: Nestor) -> None:
    tenant, key = await tenant_with(nestor, None)
    record = await ready(nestor, key)
    place = (TenantId(tenant), ConversationId(record["id"]))
    await nestor.house.store.spending.report(*place, Spent(5_000_000), at=datetime(2020, 1, 1, tzinfo=UTC))
    await uses(nestor, key, record, 7)
    await empty(nestor)
    await rebuilt(nestor)
    assert (await nestor.call("GET", "/api/v2/usage", key, status=200))["spent"]["usd"] == 2
    async with raw_of(nestor) as raw:
        there = [
            await raw.exists(TenantKeys(place[0]).ledger(month, None))
            for month in ("2020-01", month_of(datetime.now(UTC)).name)
        ]
    assert there == [0, 1]
