"""Event routes and sockets against the contract's captures: the same fields and frames, and the fixed values."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import Runtime, message, runtime_at

pytestmark = pytest.mark.anyio

UNKNOWN = UUID("5a1e4c33-6d0b-4a51-9c53-0c1f6f7f4a10")
SAMPLES = Path(__file__).parent.parent / "samples"


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with ScriptedModel() as model, runtime_at(tmp_path, model.base_url) as made:
        yield made


@pytest.fixture
async def id(runtime: Runtime) -> str:
    made = await runtime.start([{"text": "short reply here"}])
    await runtime.finish(made)
    return made


async def test_a_posted_message_is_answered_as_captured(runtime: Runtime) -> None:
    captured = sample("05-event-post")
    id = await runtime.start()
    answer = await runtime.http.post(f"/api/conversations/{id}/events", json=captured["request"]["body"])
    assert (answer.status_code, answer.json()) == (captured["response"]["status"], captured["response"]["body"])
    assert (await runtime.events(id, "MessageEvent"))[0]["llm_message"]["content"][0]["text"].startswith("x SCRIPT")


async def test_the_route_of_messages_is_one_of_many(runtime: Runtime) -> None:
    """It is looked at ahead of the framework's; every other request at its path is answered as by those."""
    id = await runtime.start()
    path, body = f"/api/conversations/{id}/events", sample("05-event-post")["request"]["body"]
    without = await runtime.http.post(path.replace("-", ""), json=body)
    unknown = await runtime.http.post(f"/api/conversations/{UNKNOWN}/events", json=body)
    no_id = await runtime.http.post("/api/conversations/none/events", json=body)
    stranger = await runtime.http.post(path, json=body, headers={"X-Session-API-Key": "wrong"})
    other = await runtime.http.put(path, json=body)
    assert [one.status_code for one in (without, unknown, no_id, stranger, other)] == [200, 404, 422, 401, 405]
    assert (unknown.json(), no_id.json()["detail"][0]["loc"][0]) == ({"detail": "Not Found"}, "path")
    assert (await runtime.http.get(path)).status_code == 200
    assert len(await runtime.events(id, "MessageEvent")) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "user", "content": [{"type": "text", "text": "x", "more": 1}]}, "content"),
        ({"role": "wizard", "content": [{"type": "text", "text": "x"}]}, "role"),
        ({"role": "user", "content": [{"type": "sound", "text": "x"}]}, "content"),
        ({"role": "user", "content": [{"type": "text", "text": "nul \0"}]}, ""),
        ({"role": "user", "content": [{"type": "text", "text": "x"}], "event_id": "no id"}, "event_id"),
    ],
)
async def test_a_wrong_message_is_refused_and_not_stored(runtime: Runtime, body: Any, field: str) -> None:
    id = await runtime.start()
    answer = await runtime.http.post(f"/api/conversations/{id}/events", json=body)
    assert answer.status_code == 422
    assert field in json.dumps(answer.json())
    assert await runtime.events(id) == []


async def test_the_captured_page_and_count(runtime: Runtime, id: str) -> None:
    captured = sample("05-events-search-page")
    query = captured["request"]["path"].rpartition("?")[2]
    answer = await runtime.http.get(f"/api/conversations/{id}/events/search?{query}")
    wanted = captured["response"]["body"]
    assert answer.status_code == captured["response"]["status"]
    assert list(answer.json()) == list(wanted)
    assert [item["kind"] for item in answer.json()["items"]] == [item["kind"] for item in wanted["items"]]
    assert answer.json()["next_page_id"] == (await runtime.events(id))[2]["id"]
    counted = await runtime.http.get(f"/api/conversations/{id}/events/count")
    assert type(counted.json()) is type(sample("05-events-count")["response"]["body"])
    assert counted.json() == len(await runtime.events(id))


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 422),
        ("limit=101", 422),
        ("sort_order=X", 422),
        ("timestamp__gte=x", 422),
        ("page_id=x", 422),
        (f"page_id={UNKNOWN}", 400),
    ],
)
async def test_wrong_searches_are_refused(runtime: Runtime, id: str, query: str, status: int) -> None:
    answer = await runtime.http.get(f"/api/conversations/{id}/events/search?{query}")
    assert answer.status_code == status


async def test_times_with_a_zone_and_without_mean_the_same(runtime: Runtime, id: str) -> None:
    events = await runtime.events(id)
    third = datetime.fromisoformat(events[2]["timestamp"])
    zoned = third.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=-7)))
    for moment in (third.isoformat(), zoned.isoformat(), third.isoformat() + "Z"):
        since = {"timestamp__gte": moment}
        got = await runtime.http.get(f"/api/conversations/{id}/events/search", params=since)
        assert got.json()["items"] == events[2:]
        assert (await runtime.http.get(f"/api/conversations/{id}/events/count", params=since)).json() == len(events[2:])
        before = await runtime.http.get(f"/api/conversations/{id}/events/search", params={"timestamp__lt": moment})
        assert before.json()["items"] == events[:2]


async def test_filters_may_be_combined_and_words_are_found_in_any_case(runtime: Runtime, id: str) -> None:
    path = f"/api/conversations/{id}/events"
    query = {"kind": "openhands.sdk.event.MessageEvent", "source": "agent", "body": "SHORT Reply"}
    found = (await runtime.http.get(f"{path}/search", params=query)).json()["items"]
    assert [event["llm_message"]["content"][0]["text"] for event in found] == ["short reply here"]
    assert (await runtime.http.get(f"{path}/count", params=query)).json() == 1
    users = (await runtime.http.get(f"{path}/search", params={**query, "source": "user"})).json()["items"]
    assert [event["source"] for event in users] == ["user"]  # the script holds the words too


async def test_events_by_id_come_with_their_nulls_and_null_for_a_miss(runtime: Runtime, id: str) -> None:
    event = (await runtime.events(id, "MessageEvent"))[0]
    answer = await runtime.http.request(
        "GET", f"/api/conversations/{id}/events", json=[event["id"], str(uuid4()), "no id", event["id"]]
    )
    first, *others = answer.json()
    assert others == [None, None, first]
    assert list(first) == list(sample("05-event-get")["response"]["body"])
    assert first == (await runtime.http.get(f"/api/conversations/{id}/events/{event['id']}")).json()
    missing = await runtime.http.get(f"/api/conversations/{id}/events/{uuid4()}")
    assert missing.status_code == 404


async def test_bad_frames_get_the_captured_answers(runtime: Runtime) -> None:
    id = await runtime.start()
    async with runtime.socket(id) as frames:
        assert (await frames.next())["key"] == "full_state"
        for captured, sent in zip(sample("06-ws-bad-frame"), ('{"foo":1}', "no json"), strict=True):
            await frames.connection.send(sent)
            got = await frames.next()
            assert list(got) == list(captured)
            assert {key: got[key] for key in ("source", "code", "kind")} == {
                key: captured[key] for key in ("source", "code", "kind")
            }


async def test_the_whole_state_has_the_captured_fields(runtime: Runtime) -> None:
    captured = sample("06-ws-frame-full_state")
    id = await runtime.start(tools=["terminal"])
    async with runtime.socket(id) as frames:
        got = await frames.next()
    assert list(got) == list(captured)
    assert set(captured["value"]) <= set(got["value"])
    assert got["value"]["agent"]["llm"]["api_key"] == captured["value"]["agent"]["llm"]["api_key"]


async def test_a_session_socket_tells_a_turn_as_captured(runtime: Runtime) -> None:
    captured = sample("06-ws-session-frames")
    id = await runtime.start(llm={"stream": True}, tools=["terminal"])
    async with runtime.socket(id, kind="session") as frames:
        got = [await frames.next(), await frames.next()]
        await runtime.say(id, [{"text": "short reply here"}])
        while got[-1]["type"] != "transient" or len(got) < 3:
            got.append(await frames.next())
    assert outline(got) == outline(captured)
    for mine, theirs in zip(without_repeats(got), without_repeats(captured), strict=True):
        assert set(mine) - {"event"} <= set(theirs)
        assert set(theirs) - set(mine) <= {"chunk_id"}
    assert got[0] == captured[0]
    durable = [frame for frame in got if frame["type"] == "durable"]
    assert [frame["seq"] for frame in durable] == list(range(len(durable)))
    assert [frame["event"] for frame in durable] == await runtime.events(id)
    started = next(frame for frame in got if frame["type"] == "item_started")
    assert (started["attempt"], started["anchor_seq"]) == (1, 3)
    deltas = [frame for frame in got if frame["type"] == "delta"]
    assert [frame["order"] for frame in deltas] == list(range(len(deltas)))
    assert "".join(frame["content"] for frame in deltas) == "short reply here"
    answer = next(frame["event"] for frame in durable if frame["event"].get("llm_response_id"))
    assert {frame["item_id"] for frame in (started, *deltas)} == {answer["id"]}


async def test_a_session_socket_resumes_behind_what_was_seen(runtime: Runtime, id: str) -> None:
    events = await runtime.events(id)
    for after, rest in ((-1, events), (2, events[3:]), (len(events) - 1, []), (len(events) + 50, [])):
        async with runtime.socket(id, f"?after_seq={after}", kind="session") as frames:
            assert await frames.next() == {"type": "sync", "from_seq": after, "through_seq": len(events) - 1}
            assert (await frames.next())["type"] == "transient"
            got = [await frames.next() for _ in rest]
            assert [(frame["seq"], frame["event"]) for frame in got] == [(events.index(event), event) for event in rest]
            await frames.connection.send("no json")
            error = await frames.next()
            assert (error["type"], error["code"], set(error)) == (
                "error",
                "JSONDecodeError",
                {"type", "code", "detail"},
            )


async def test_an_answer_that_is_broken_off_closes_its_item(runtime: Runtime) -> None:
    id = await runtime.start(llm={"stream": True})
    async with runtime.socket(id, kind="session") as frames:
        await runtime.say(id, [{"text": "one two three four five six", "slow": 5}])
        while (frame := await frames.next())["type"] != "item_started":
            pass
        assert (await runtime.http.post(f"/api/conversations/{id}/interrupt")).status_code == 200
        while (ended := await frames.next())["type"] != "item_aborted":
            pass
    assert ended == {"type": "item_aborted", "item_id": frame["item_id"], "attempt": 1, "reason": "paused"}
    assert frame["item_id"] not in {event["id"] for event in await runtime.events(id)}


async def test_a_message_may_come_over_a_session_socket(runtime: Runtime) -> None:
    id = await runtime.start()
    async with runtime.socket(id, kind="session") as frames:
        await frames.connection.send(json.dumps(message([{"text": "said"}])))
        while (await frames.next()).get("event", {}).get("value") != "finished":
            pass
    assert len(await runtime.events(id, "MessageEvent")) == 2


def outline(frames: list[dict[str, Any]]) -> list[str]:
    """Type and kind, a row of deltas as one: how a text is cut is the model's affair."""
    named: list[str] = []
    for frame in frames:
        event = frame.get("event", {})
        name = " ".join(filter(None, (frame["type"], event.get("kind"), event.get("key"))))
        if not (named and name == "delta" == named[-1]):
            named.append(name)
    return named


def without_repeats(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for frame in frames:
        if not (kept and frame["type"] == "delta" == kept[-1]["type"]):
            kept.append(frame)
    return kept
