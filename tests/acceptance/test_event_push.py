"""A real runtime's events, outside of it: pushed within a second, read by nobody, and there when it is not."""

import json
import tempfile
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.models import scripted_model
from support.orchestrators import Nestor, nestor_at

from orchestrator.nested.client import RuntimeClients

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(240)]
SOON_SECONDS = 1.0


@pytest.fixture
async def nestor() -> AsyncIterator[Nestor]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        async with nestor_at(Path(folder), None, driver="process", zygote="off", events_held=10) as running:
            yield running


async def outer(nestor: Nestor, key: str, id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        await nestor.call("GET", f"/api/v2/conversations/{id}/events?limit=100", key, status=200)
    )["items"]
    return found


async def inner(nestor: Nestor, record: dict[str, Any]) -> list[str]:
    """The ids of the runtime's own log."""
    place = await nestor.house.store.conversations.route(record["runtime"]["id"])
    assert place is not None
    conversation = await nestor.house.store.conversations.get(*place)
    assert conversation is not None
    assert conversation.runtime is not None
    key = await nestor.house.services.keys.inner_key(conversation)
    assert key is not None
    async with RuntimeClients().open(f"http://{conversation.runtime.address}", key) as client:
        return [event["id"] for event in (await client.events(conversation.id, page_id=None)).items]


async def said(nestor: Nestor, key: str, id: str, text: str) -> None:
    await nestor.call("POST", f"/api/v2/conversations/{id}/messages", key, json={"content": text}, status=202)


async def test_events_come_by_themselves_and_outlive_their_runtime(nestor: Nestor) -> None:
    with scripted_model() as model:
        _, key = await nestor.tenant()
        llm = {"model": "openai/scripted", "api_key": "sk-of-the-tests", "base_url": model, "num_retries": 0}
        await nestor.call("PATCH", "/api/v2/settings", key, json={"agent_settings": {"llm": llm}}, status=200)
        made = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
        record = await nestor.until(key, made["id"], "ready", seconds=60)
        place = await nestor.house.store.conversations.route(record["runtime"]["id"])
        assert place is not None
        await said(nestor, key, record["id"], "one")  # with this one the runtime imports its model library
        await finished(nestor, key, record["id"], runs=1)
        delays = await told(nestor, key, place, record["id"])
        assert max(delays) <= SOON_SECONDS, delays
        items = await outer(nestor, key, record["id"])
        assert [item["sequence"] for item in items] == list(range(1, len(items) + 1))
        assert [item["event"]["id"] for item in items] == await inner(nestor, record)
        for verb, phase in (("pause", "paused"), ("stop", "stopped")):
            await nestor.call("POST", f"/api/v2/conversations/{record['id']}/{verb}", key, status=202)
            await nestor.until(key, record["id"], phase, seconds=30)
            assert await outer(nestor, key, record["id"]) == items
        await nestor.call("DELETE", f"/api/v2/conversations/{record['id']}", key, status=202)
        await nestor.call("POST", f"/api/v2/conversations/{record['id']}/undelete", key, status=202)
        await nestor.until(key, record["id"], "stopped", seconds=30)
        assert not await nestor.house.driver.list(nestor.house.installation)
        assert await outer(nestor, key, record["id"]) == items


async def finished(nestor: Nestor, key: str, id: str, *, runs: int) -> None:
    """Until the log says so."""
    with anyio.fail_after(90):
        while sum(item["event"].get("value") == "finished" for item in await outer(nestor, key, id)) < runs:
            await anyio.sleep(0.1)


async def told(nestor: Nestor, key: str, place: Any, id: str) -> list[float]:
    """How long after it happened each event of the next run came to a reader, while nobody read the runtime's log."""
    log, feed = nestor.house.intake._events, nestor.house.feed

    async def load() -> Any:
        return await nestor.house.store.conversations.get(*place)

    delays: list[float] = []
    start = await log.length(await load())

    async def read() -> None:
        async for update in feed.follow(place[1], load, after=start):
            if update.event is not None:
                event = json.loads(update.event.payload)
                delays.append((datetime.now() - datetime.fromisoformat(event["timestamp"])).total_seconds())
                if event.get("value") == "finished":
                    return

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.sleep(1)  # who comes asks once
            pulls = log.pulls
            await said(nestor, key, id, "two")
    assert log.pulls == pulls, "somebody read the runtime's log"
    assert len(delays) >= 3
    return delays
