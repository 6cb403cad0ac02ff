"""What real runtimes spend on a model with a price is kept, shown and counted once, whatever happens to them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.orchestrators import Nestor, nestor_at

from orchestrator.demo.model_server import ScriptedModel
from orchestrator.domain.spending import month_of
from orchestrator.nested.client import RuntimeClients

from .test_empty_state_server import empty, rebuilt
from .test_event_intake import Told
from .test_forks import READY, command, fork, said

pytestmark = pytest.mark.anyio
PROMPT, ANSWER = 0.001, 0.03  #: dollars a token


@pytest.fixture
async def nestor(data_dir: Path) -> AsyncIterator[Nestor]:
    async with nestor_at(data_dir, None, driver="process", zygote="off") as running:
        yield running


async def owner(nestor: Nestor, model: ScriptedModel) -> tuple[str, str]:
    """The id and key of a tenant whose model has a price."""
    tenant, key = await nestor.tenant()
    prices = {"input_cost_per_token": PROMPT, "output_cost_per_token": ANSWER}
    llm = {"model": "openai/scripted", "api_key": "sk-model-key-of-the-tests", "base_url": model.base_url, **prices}
    await nestor.call("PATCH", "/api/v2/settings", key, json={"agent_settings": {"llm": llm}}, status=200)
    return tenant, key


async def ready(nestor: Nestor, key: str) -> dict[str, Any]:
    return dict(await nestor.call("POST", "/api/v2/conversations", key, json={}, params=READY, status=200))


async def cost(nestor: Nestor, key: str, id: str) -> dict[str, Any]:
    return dict((await nestor.call("GET", f"/api/v2/conversations/{id}", key, status=200))["cost"])


async def spent(nestor: Nestor, key: str) -> dict[str, Any]:
    return dict((await nestor.call("GET", "/api/v2/usage", key, status=200))["spent"])


async def told_to(nestor: Nestor, record: dict[str, Any]) -> dict[str, Any]:
    """What the runtime itself says of the conversation's use."""
    conversation = await nestor.house.store.conversations.get(*await place(nestor, record))
    assert conversation is not None
    assert conversation.runtime is not None
    key = await nestor.house.services.keys.inner_key(conversation)
    assert key is not None
    async with RuntimeClients().open(f"http://{conversation.runtime.address}", key) as client:
        stats = (await client.conversation(conversation.id))["stats"]["usage_to_metrics"]
    usages = [one["accumulated_token_usage"] for one in stats.values()]
    return {
        "usd": round(sum(one["accumulated_cost"] for one in stats.values()), 6),
        "prompt_tokens": sum(one["prompt_tokens"] for one in usages),
        "completion_tokens": sum(one["completion_tokens"] for one in usages),
    }


async def place(nestor: Nestor, record: dict[str, Any]) -> Any:
    found = await nestor.house.store.conversations.route(record["runtime"]["id"])
    assert found is not None
    return found


async def settled(nestor: Nestor, key: str, record: dict[str, Any]) -> dict[str, Any]:
    """Its cost, once it is what the runtime itself says."""
    own = await told_to(nestor, record)
    with anyio.fail_after(20):
        while await cost(nestor, key, record["id"]) != own:
            await anyio.sleep(0.05)
    return own


def together(*costs: dict[str, Any]) -> dict[str, Any]:
    found = {name: sum(one[name] for one in costs) for name in costs[0]}
    return found | {"usd": round(found["usd"], 6)}


async def again(nestor: Nestor, key: str, record: dict[str, Any]) -> None:
    """Everything that the runtime's log holds, posted once more in its name."""
    conversation = await nestor.house.store.conversations.get(*await place(nestor, record))
    assert conversation is not None
    inner = await nestor.house.services.keys.inner_key(conversation)
    assert inner is not None
    page = await nestor.call("GET", f"/api/v2/conversations/{record['id']}/events?limit=100", key, status=200)
    batch = [one["event"] for one in page["items"]]
    assert any(one.get("key") == "stats" for one in batch)
    posts = Told(nestor, key, record, inner.open())
    assert (await posts.post(batch, first=1)).status_code == 200
    whole = next(one for one in reversed(batch) if one.get("key") == "stats")
    live = {**whole, "key": "full_state", "value": {"stats": whole["value"]}}
    assert (await posts.post([live])).status_code == 200


async def test_an_agent_at_work_is_paused_when_its_money_is_spent(nestor: Nestor) -> None:
    async with ScriptedModel() as model:
        tenant, key = await owner(nestor, model)
        record = await ready(nestor, key)
        budget = {"monthly_usd": 0.01, "when_reached": "pause"}
        await nestor.call("PATCH", f"/api/v2/tenants/{tenant}", json={"budget": budget}, status=200)
        path = f"/api/v2/conversations/{record['id']}"
        content = "SCRIPT:" + json.dumps(
            [*[command(f"sleep 0.3; echo {n}") for n in range(300)], {"text": "all of it"}]
        )
        await nestor.call("POST", f"{path}/messages", key, json={"content": content}, status=202)
        found = await nestor.until(key, record["id"], "paused", "stopped", seconds=60)
        assert (found["reason"], found["desired"]) == ("limit", "running")
        assert found["cost"]["usd"] >= 0.01
        asked = len(model.requests)
        assert 0 < asked < 300
        await anyio.sleep(2)
        assert len(model.requests) == asked, "nothing more is spent"


async def test_each_answer_of_the_model_is_paid_once(nestor: Nestor) -> None:
    async with ScriptedModel() as model:
        _, key = await owner(nestor, model)
        record = await ready(nestor, key)
        nothing = {"usd": 0.0, "prompt_tokens": 0, "completion_tokens": 0}
        assert await cost(nestor, key, record["id"]) == nothing
        await said(nestor, key, record["id"], command("echo x"), last="first")
        first = await settled(nestor, key, record)
        assert first["completion_tokens"] > 0
        assert first["usd"] == round(first["prompt_tokens"] * PROMPT + first["completion_tokens"] * ANSWER, 6)
        month = await spent(nestor, key)
        assert {name: month[name] for name in first} == first
        assert month["month"] == month_of(nestor.house.services.clock.now()).name
        await again(nestor, key, record)
        assert await cost(nestor, key, record["id"]) == first

        made = await fork(nestor, key, record["id"])
        assert await cost(nestor, key, made["id"]) == nothing, "what its source used is not paid again"
        await said(nestor, key, made["id"], last="of the fork")
        other = await settled(nestor, key, made)
        assert 0 < other["completion_tokens"] < first["completion_tokens"], "one answer, and not those of its source"
        assert await cost(nestor, key, record["id"]) == first
        await again(nestor, key, made)
        assert {name: (await spent(nestor, key))[name] for name in first} == together(first, other)

        path = f"/api/v2/conversations/{record['id']}"
        await nestor.call("POST", f"{path}/stop", key, status=202)
        await nestor.until(key, record["id"], "stopped", seconds=60)
        record = await nestor.call("POST", f"{path}/start", key, params=READY, status=200)
        assert await cost(nestor, key, record["id"]) == first
        await said(nestor, key, record["id"], last="after its stop")
        second = await settled(nestor, key, record)
        assert second["usd"] > first["usd"]

        await empty(nestor)
        await rebuilt(nestor)
        assert await cost(nestor, key, record["id"]) == second
        assert {name: (await spent(nestor, key))[name] for name in first} == together(second, other)
        await said(nestor, key, record["id"], last="after the loss")
        third = await settled(nestor, key, record)
        await again(nestor, key, record)
        assert {name: (await spent(nestor, key))[name] for name in first} == together(third, other)

        await nestor.call("DELETE", f"{path}?purge=true", key, status=202)
        with anyio.fail_after(60):
            while (await nestor.http.get(path, headers=nestor.as_(key))).status_code != 404:
                await anyio.sleep(0.05)
        assert {name: (await spent(nestor, key))[name] for name in first} == together(third, other)
