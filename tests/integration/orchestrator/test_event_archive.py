"""The log across archive and state server: one cursor for all surfaces, in every phase, whatever was lost."""

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis
from support.orchestrators import OPERATOR_KEY, Nestor, nestor_at

from orchestrator.drivers.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio
HELD = 20


@pytest.fixture
async def nestor(data_dir: Path, engine: FakeEngine) -> AsyncIterator[Nestor]:
    async with nestor_at(data_dir, engine, events_held=HELD, undelete_seconds=1) as running:
        yield running


async def talked(nestor: Nestor, key: str, events: int) -> dict[str, Any]:
    """A ready conversation with that many events, all of them taken."""
    body = {"initial_message": f"SAY:{events - 1}"}
    record = await nestor.call("POST", "/api/v2/conversations?wait=ready", key, json=body, status=200)
    assert len(await logged(nestor, key, record["id"])) == events
    return record


async def logged(nestor: Nestor, key: str, id: str, limit: int = 100) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    while True:
        path = f"/api/v2/conversations/{id}/events?after={len(items)}&limit={limit}"
        page = await nestor.call("GET", path, key, status=200)
        items += page["items"]
        if page["next_page_id"] is None:
            assert [item["sequence"] for item in items] == list(range(1, len(items) + 1))
            return items


def inner(engine: FakeEngine, record: dict[str, Any]) -> list[str]:
    log = engine.volumes[record["runtime"]["id"]].memory.conversations[record["id"]]
    return [event["id"] for event in log]


async def held(nestor: Nestor, record: dict[str, Any]) -> int:
    """How many the state server has."""
    place = await nestor.house.store.conversations.route(record["runtime"]["id"])
    assert place is not None
    return (await nestor.house.store.events.held(*place)).events


async def rests(nestor: Nestor, key: str, record: dict[str, Any], verb: str, phase: str) -> None:
    """Until it rests, with all of its log archived."""
    await nestor.call("POST", f"/api/v2/conversations/{record['id']}/{verb}", key, status=202)
    await nestor.until(key, record["id"], phase)
    with anyio.fail_after(20):
        while await held(nestor, record) > (HELD if phase == "paused" else 0):
            await anyio.sleep(0.02)


async def test_a_long_log_is_bounded_in_the_state_server_and_whole_for_readers(
    nestor: Nestor, engine: FakeEngine
) -> None:
    key = await nestor.ready_tenant()
    record = await talked(nestor, key, 1000)
    assert await held(nestor, record) <= 2 * HELD + 100  # a page of a pull comes at once
    items = await logged(nestor, key, record["id"], limit=37)
    assert [item["event"]["id"] for item in items] == inner(engine, record)
    for verb, phase in (("pause", "paused"), ("stop", "stopped")):
        await rests(nestor, key, record, verb, phase)
        assert await logged(nestor, key, record["id"]) == items
    await nestor.call("POST", f"/api/v2/conversations/{record['id']}/start?wait=ready", key, status=200)
    await nestor.call("POST", f"/api/v2/conversations/{record['id']}/messages", key, json={"content": "more"})
    with anyio.fail_after(20):
        while len(longer := await logged(nestor, key, record["id"])) < 1002:
            await anyio.sleep(0.05)
    assert longer[:1000] == items


async def test_streams_read_across_archive_and_state_server(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await talked(nestor, key, 300)
    items = await logged(nestor, key, record["id"])
    place = await nestor.house.store.conversations.route(record["runtime"]["id"])
    assert place is not None

    async def load() -> Any:
        return await nestor.house.store.conversations.get(*place)

    seen: list[int] = []
    with anyio.fail_after(20):
        async for update in nestor.house.feed.follow(place[1], load, after=5):
            if update.event is not None:
                assert json.loads(update.event.payload) == items[update.event.sequence - 1]["event"]
                seen.append(update.event.sequence)
                if seen[-1] == 300:
                    break
    assert seen == list(range(6, 301))


async def emptied(nestor: Nestor) -> None:
    """The state server loses everything, and is rebuilt."""
    assert nestor.house.state_server is not None
    raw = Redis.from_url(nestor.house.state_server.url)
    await raw.flushall()
    await raw.aclose()
    with anyio.fail_after(20):
        while (await nestor.http.get("/api/v2/tenants", headers=nestor.as_(OPERATOR_KEY))).status_code == 503:
            await anyio.sleep(0.02)


async def test_an_empty_state_server_gives_each_event_its_number_again(nestor: Nestor, engine: FakeEngine) -> None:
    key = await nestor.ready_tenant()
    running, gone = await talked(nestor, key, 230), await talked(nestor, key, 170)
    await rests(nestor, key, gone, "stop", "stopped")
    before = {one["id"]: await logged(nestor, key, one["id"]) for one in (running, gone)}
    await emptied(nestor)
    await nestor.until(key, running["id"], "ready")
    assert await logged(nestor, key, gone["id"]) == before[gone["id"]], "its runtime is gone, its archive is not"
    assert await logged(nestor, key, running["id"]) == before[running["id"]]
    await nestor.call("POST", f"/api/v2/conversations/{running['id']}/messages", key, json={"content": "more"})
    with anyio.fail_after(20):
        while len(after := await logged(nestor, key, running["id"])) < 232:
            await anyio.sleep(0.05)
    assert [item["event"]["id"] for item in after] == inner(engine, running)
    await nestor.call("POST", f"/api/v2/conversations/{gone['id']}/start?wait=ready", key, status=200)
    assert await logged(nestor, key, gone["id"]) == before[gone["id"]]


async def test_a_deletion_keeps_the_archive_until_it_cannot_be_undone(nestor: Nestor, data_dir: Path) -> None:
    key = await nestor.ready_tenant()
    kept, purged = await talked(nestor, key, 120), await talked(nestor, key, 120)
    items = await logged(nestor, key, kept["id"])
    place = await nestor.house.store.conversations.route(purged["runtime"]["id"])
    assert place is not None
    folder = data_dir / "events" / place[0]
    for record in (kept, purged):
        await nestor.call("DELETE", f"/api/v2/conversations/{record['id']}", key, status=202)
    await nestor.call("POST", f"/api/v2/conversations/{kept['id']}/undelete", key, status=202)
    await nestor.until(key, kept["id"], "stopped")
    with anyio.fail_after(20):
        while (folder / purged["id"]).exists() or await nestor.house.store.conversations.get(*place):
            await anyio.sleep(0.05)
    assert (folder / kept["id"]).exists()
    assert await logged(nestor, key, kept["id"]) == items


async def test_an_event_that_is_nowhere_is_told_and_never_passed_over(nestor: Nestor, data_dir: Path) -> None:
    key = await nestor.ready_tenant()
    record = await talked(nestor, key, 200)
    await rests(nestor, key, record, "stop", "stopped")
    for path in (data_dir / "events").rglob("0*.events"):
        path.unlink()
    answer = await nestor.http.get(f"/api/v2/conversations/{record['id']}/events", headers=nestor.as_(key))
    assert answer.status_code == 503
    assert answer.json()["code"] == "event_archive_damaged"
    assert str(data_dir) not in answer.text
    assert str(uuid.UUID(record["id"])) not in answer.json()["detail"]
    with anyio.fail_after(10):  # and no reader is left waiting for what does not come
        stream = await nestor.http.get(f"/api/v2/conversations/{record['id']}/events/stream", headers=nestor.as_(key))
    assert stream.status_code == 503
    assert stream.json()["code"] == "event_archive_damaged"


async def test_readers_who_come_to_a_damaged_part_are_sent_away(nestor: Nestor, data_dir: Path) -> None:
    key = await nestor.ready_tenant()
    record = await talked(nestor, key, 400)
    await rests(nestor, key, record, "stop", "stopped")
    last = max((data_dir / "events").rglob("0*.events"))
    first = int(last.name.partition("-")[0])
    last.unlink()
    url = f"/api/v2/conversations/{record['id']}/events/stream"
    numbers = []
    with anyio.fail_after(10):
        async with nestor.http.stream("GET", url, headers=nestor.as_(key)) as stream:
            lines = [line async for line in stream.aiter_lines() if line]
        numbers = [int(line[3:]) for line in lines if line.startswith("id:")]
        again = await nestor.http.get(url, headers=nestor.as_(key) | {"Last-Event-ID": str(numbers[-1])})
    assert numbers == list(range(1, len(numbers) + 1)), "whole pages before the damage"
    assert lines[-2:] == ["event: resync", 'data: {"after": 400}']
    assert 100 <= len(numbers) < first
    assert again.status_code == 503
