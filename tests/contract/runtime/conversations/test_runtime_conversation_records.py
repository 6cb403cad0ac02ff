"""Conversations and events against the contract's captured records: the same fields, and the values that are fixed."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.demo.model_server import ScriptedModel
from runtime.events.models import StreamingDeltaEvent, compact, complete, parse
from tests.support.runtimes import Runtime, message, runtime_at

pytestmark = pytest.mark.anyio

SAMPLES = Path(__file__).parent.parent / "samples"
FREE = {"title", "current_model_id"}  # set later, or by the model
EVENTS = sorted(
    path.stem for path in SAMPLES.glob("05-event-*.json") if path.stem not in {"05-event-get", "05-event-post"}
)


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def shape(value: Any) -> Any:
    """Names of fields at every depth, and types; the elements of a list by its first."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with ScriptedModel() as model, runtime_at(tmp_path, model.base_url) as made:
        yield made


@pytest.mark.parametrize("name", EVENTS)
def test_a_captured_event_is_one_of_ours_to_the_byte(name: str) -> None:
    captured = sample(name)
    if name.endswith("SystemPromptEvent"):
        captured["tools"] = captured["tools"][:1]  # the capture abridges the others to words
    line = json.dumps(captured).encode()
    event = StreamingDeltaEvent.model_validate_json(line) if "StreamingDelta" in name else parse(line)
    assert json.loads(compact(event)) == captured
    assert list(json.loads(compact(event))) == [key for key in type(event).model_fields if key in captured]


def test_a_whole_event_has_its_nulls() -> None:
    captured = sample("05-event-get")["response"]["body"]
    compacted = {key: value for key, value in captured.items() if value is not None}
    compacted["llm_message"] = {key: value for key, value in captured["llm_message"].items() if value is not None}
    assert complete(parse(json.dumps(compacted).encode())) == captured


async def test_a_new_conversation_has_the_captured_fields(runtime: Runtime) -> None:
    captured = sample("04-conversation-start")
    body = captured["request"]["body"]
    body["workspace"]["working_dir"] = str(runtime.folder / "work")
    answer = await runtime.http.post("/api/conversations", json=body)
    assert answer.status_code == captured["response"]["status"]
    got, wanted = answer.json(), captured["response"]["body"]
    assert list(got) == list(wanted)
    assert got["agent"] == wanted["agent"]
    assert got["secret_registry"] == wanted["secret_registry"]
    assert got["tool_module_qualnames"] == wanted["tool_module_qualnames"]
    same = (
        set(wanted)
        - FREE
        - {
            *("id", "workspace", "persistence_dir", "last_user_message_id", "leaf_event_id", "stats"),
            *("created_at", "updated_at"),
        }
    )
    assert {key: got[key] for key in same} == {key: wanted[key] for key in same}
    assert got["created_at"].endswith("Z")
    assert got["persistence_dir"].endswith(got["id"].replace("-", ""))
    assert got["leaf_event_id"] == got["last_user_message_id"]


async def test_a_finished_conversation_has_the_captured_fields(runtime: Runtime) -> None:
    id = await runtime.start([{"tool": "finish", "args": {"message": "All done."}}])
    await runtime.finish(id)
    got = (await runtime.http.get(f"/api/conversations/{id}")).json()
    wanted = sample("04-conversation-get")["response"]["body"]
    assert set(wanted) <= set(got)
    assert shape(got["stats"]) == shape(wanted["stats"])
    assert got["runtime_info"] == wanted["runtime_info"]
    hex_id = id.replace("-", "")
    assert (await runtime.http.get(f"/api/conversations/{hex_id}")).json() == got
    found = (await runtime.http.get("/api/conversations/search")).json()
    assert found["next_page_id"] is None
    assert {key: found["items"][0][key] for key in wanted} == {key: got[key] for key in wanted}


async def test_frames_of_a_run_have_the_captured_fields(runtime: Runtime) -> None:
    captured = sample("06-ws-frames-run")
    id = await runtime.start(llm={"stream": True}, tools=["terminal"])
    async with runtime.socket(id) as frames:
        first = await frames.next()
        await runtime.say(
            id,
            [
                {"text": "thinking aloud now", "tool": "terminal", "args": {"command": "echo tok=$MY_PROJECT_TOKEN"}},
                {"text": "Final words here."},
            ],
        )
        got = [first, *await frames.until_state()]

    def outline(frame: dict[str, Any]) -> tuple[str, str | None]:
        return frame["kind"], frame.get("key")

    def durable(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [frame for frame in found if frame["kind"] != "StreamingDeltaEvent"]

    assert [outline(frame) for frame in durable(got)] == [outline(frame) for frame in durable(captured)]
    for mine, theirs in zip(durable(got), durable(captured), strict=True):
        if mine["kind"] == "SystemPromptEvent":
            assert [tool["kind"] for tool in mine["tools"]] == [tool["kind"] for tool in theirs["tools"]]
            assert [tool["annotations"] for tool in mine["tools"]] == [tool["annotations"] for tool in theirs["tools"]]
            continue
        assert list(mine) == list(theirs)
        if mine.get("key") == "full_state":
            assert list(mine["value"]) == list(theirs["value"])
            assert mine["value"]["agent"]["llm"]["api_key"] == "**********"
            assert set(mine["value"]["agent"]) == set(theirs["value"]["agent"])
            assert set(mine["value"]["agent"]["llm"]) == set(theirs["value"]["agent"]["llm"])
        elif mine["kind"] == "ObservationEvent":
            assert set(mine["observation"]) == set(theirs["observation"])
            assert set(mine["observation"]["metadata"]) == set(theirs["observation"]["metadata"])
            assert mine["observation"]["content"] == theirs["observation"]["content"]
        elif mine["kind"] == "ActionEvent":
            assert mine["action"] == theirs["action"]
            assert mine["summary"] == theirs["summary"]
            assert mine["thought"] == theirs["thought"]


@pytest.mark.parametrize("name", ["04-conversation-get-404", "04-delete-404"])
async def test_misses_are_the_captured_ones(runtime: Runtime, name: str) -> None:
    captured = sample(name)
    answer = await runtime.http.request(captured["request"]["method"], captured["request"]["path"])
    assert (answer.status_code, answer.json()) == (captured["response"]["status"], captured["response"]["body"])


@pytest.mark.parametrize("name", ["04-conversation-get-422", "04-conversation-start-422"])
async def test_refusals_are_the_captured_ones_without_the_input(runtime: Runtime, name: str) -> None:
    captured = sample(name)
    request = captured["request"]
    answer = await runtime.http.request(request["method"], request["path"], json=request.get("body"))
    [wanted] = captured["response"]["body"]["detail"]
    assert answer.status_code == 422
    assert answer.json() == {"detail": [{key: wanted[key] for key in ("type", "loc", "msg")}]}


@pytest.mark.parametrize(
    "change",
    [
        {"max_iterations": 0},
        {"workspace": {}},
        {"workspace": None},
        {"agent": {"kind": "Nobody"}},
        {"agent": {"kind": "ACPAgent"}},
        {"agent": {"kind": "Agent"}},
        {"agent": 5},
        {"agent_profile_id": "no-uuid", "agent": None},
        {"secrets": {"1A": "x"}},
        {"secrets": {"A": {"kind": "Other"}}},
        {"secrets": {"A": {"kind": "LookupSecret"}}},
        {"tags": {"Upper": "x"}},
        {"tags": {"a": "x" * 257}},
        {"confirmation_policy": {"kind": "AskNobody"}},
        {"confirmation_policy": {"kind": "ConfirmRisky", "threshold": "MILD"}},
        {"hook_config": {"pre_tool_use": [{"hooks": [{"type": "prompt", "command": "x"}]}]}},
        {"max_budget_per_run": 0},
        {"client_tools": [{"name": "terminal", "description": "y"}]},
        {"client_tools": [{"name": "a b", "description": "y"}]},
        {"client_tools": [{"name": "x", "description": "y"}] * 2},
        {"client_tools": [{"name": "x", "description": "y", "parameters": {"type": "array"}}]},
        {"client_tools": [{"name": "x", "description": "y", "parameters": {"properties": 1}}]},
        {"initial_message": {"role": "assistant", "content": []}},
        {"initial_message": {"content": [{"type": "text", "text": "x", "more": 1}]}},
        {"initial_message": {"content": [{"type": "text", "text": "a\0b"}]}},
        {"conversation_id": "x"},
        {"worktree": True},
        {"agent": {"llm": {"model": "m", "base_url": "nonsense"}}},
        {"agent": {"llm": {"model": "m", "base_url": "http://"}}},
        {"agent": {"llm": {"model": "m", "base_url": "ftp://host/v1"}}},
        {"agent": {"llm": {"model": "m", "base_url": "http://host:99999/v1"}}},
        {"agent": {"llm": {"model": "m", "timeout": 10**400}}},
        {"agent": {"llm": {"model": "m", "retry_max_wait": 10**12}}},
        {"agent": {"llm": {"model": "m", "input_cost_per_token": 1e308}}},
        {"agent": {"llm": {"model": "m"}, "mcp_config": {"s": {}}}},
        {"agent": {"llm": {"model": "m"}, "condenser": {"kind": "Other"}}},
        {"agent": {"llm": {"model": "m"}, "condenser": {}}},
        {"agent": {"llm": {"model": "m"}, "condenser": {"kind": "LLMSummarizingCondenser", "max_size": 1}}},
        {"agent": {"llm": {"model": "m"}, "condenser": {"kind": "PipelineCondenser", "condensers": [{"kind": "X"}]}}},
        {"agent": {"llm": {"model": "m"}, "condenser": {"kind": "PipelineCondenser", "condensers": 1}}},
        {"conversation_runtime": "docker"},
    ],
)
async def test_bad_bodies_are_422_and_make_nothing(runtime: Runtime, change: dict[str, Any]) -> None:
    answer = await runtime.http.post("/api/conversations", json={**runtime.body(), **change})
    assert answer.status_code == 422, answer.text
    assert all("input" not in problem for problem in answer.json()["detail"])
    if isinstance(change.get("agent"), dict):
        named = {*change["agent"], "llm"}
        assert any(named & {*map(str, problem["loc"][2:])} for problem in answer.json()["detail"]), answer.text
    assert (await runtime.http.get("/api/conversations/count")).json() == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b'"x"', b"[" * 100_000, b'{"agent":' * 5000])
async def test_what_is_no_json_object_is_422(runtime: Runtime, content: bytes) -> None:
    answer = await runtime.http.post(
        "/api/conversations", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422


async def test_an_agent_can_be_given_as_settings_and_unknown_keys_are_ignored(runtime: Runtime) -> None:
    body = runtime.body(stuck_detection_thresholds={"x": 1}, user_id="u")
    body["agent_settings"] = {"agent_kind": "openhands", "llm": body.pop("agent")["llm"]}
    answer = await runtime.http.post("/api/conversations", json=body)
    assert answer.status_code == 201
    assert [tool["name"] for tool in answer.json()["agent"]["tools"]] == ["terminal", "file_editor", "task_tracker"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 422),
        ("limit=101", 422),
        ("limit=1", 200),
        ("limit=", 422),
        ("limit=1000", 422),
        ("limit=9&limit=0", 422),
        ("sort_order=X", 422),
        ("status=stopped", 422),
        ("page_id=5a1e4c33-6d0b-4a51-9c53-0c1f6f7f4a10", 400),
    ],
)
async def test_search_parameters_are_checked(runtime: Runtime, query: str, status: int) -> None:
    id = await runtime.start([{"text": "x"}])
    await runtime.finish(id)
    assert (await runtime.http.get(f"/api/conversations/search?{query}")).status_code == status
    if "status" not in query:
        assert (await runtime.http.get(f"/api/conversations/{id}/events/search?{query}")).status_code == status


async def test_pages_of_conversations(runtime: Runtime) -> None:
    ids = [await runtime.start() for _ in range(5)]
    for order, wanted in (("CREATED_AT", ids), ("CREATED_AT_DESC", ids[::-1])):
        found: list[str] = []
        page = ""
        while True:
            answer = (await runtime.http.get(f"/api/conversations/search?limit=2&sort_order={order}{page}")).json()
            found += [item["id"] for item in answer["items"]]
            if answer["next_page_id"] is None:
                break
            assert "-" not in answer["next_page_id"]
            page = f"&page_id={answer['next_page_id']}"
        assert found == wanted
    await runtime.http.get("/api/conversations/search?limit=3")
    assert (await runtime.http.delete(f"/api/conversations/{ids[3]}")).status_code == 200
    ids[3] = await runtime.start()  # as many as before, and others
    for query in (
        "",
        "limit=3",
        "limit=5",
        "limit=100",
    ):  # answered ahead of the framework; with one thing more it is not
        short, whole = [
            await runtime.http.get(f"/api/conversations/search?{query}{more}") for more in ("", "&status=idle")
        ]
        assert short.content == whole.content
        assert short.headers["content-type"] == whole.headers["content-type"]
    keyless = {"X-Session-API-Key": "wrong"}
    assert (await runtime.http.get("/api/conversations/search?limit=3", headers=keyless)).status_code == 401
    assert (await runtime.http.get("/api/conversations/count?status=idle")).json() == 5
    assert (await runtime.http.get("/api/conversations/count?status=error")).json() == 0
    assert (await runtime.http.get("/api/conversations/count?status=stopped")).status_code == 422


async def test_event_routes(runtime: Runtime) -> None:
    id = await runtime.start([{"tool": "think", "args": {"thought": "x"}}, {"text": "the needle"}])
    await runtime.finish(id)
    stored = await runtime.events(id)
    base = f"/api/conversations/{id}/events"
    assert (await runtime.http.get(f"{base}/count")).json() == len(stored)
    assert (await runtime.http.get(f"{base}/count?kind=ActionEvent&source=agent")).json() == 1
    assert (await runtime.http.get(f"{base}/{uuid4()}")).json() == {"detail": "Not Found"}
    for events, known in ((base, stored[0]["id"]), ("/api/bash/bash_events/", "absent")):
        ids = [known, *["0" * 32] * 999]
        found = (await runtime.http.request("GET", events, json=ids)).json()
        assert (len(found), bool(found[0]), any(found[1:])) == (1000, known != "absent", False)
        assert (await runtime.http.request("GET", events, json=[*ids, "0" * 32])).status_code == 422
    assert (await runtime.http.get(f"{base}/absent")).status_code == 404
    page = (await runtime.http.get(f"{base}/search?limit=2")).json()
    assert page == {"items": stored[:2], "next_page_id": stored[2]["id"]}
    newest = (await runtime.http.get(f"{base}/search?limit=1&sort_order=TIMESTAMP_DESC")).json()["items"]
    assert newest == stored[-1:]
    said = (await runtime.http.get(f"{base}/search?body=NEEDLE")).json()["items"]
    assert [event["source"] for event in said] == ["user", "agent"]
    since = stored[4]["timestamp"]
    for text in (since, f"{since}Z", f"{since}%2B00:00"):
        assert (await runtime.http.get(f"{base}/search?timestamp__gte={text}")).json()["items"] == stored[4:]
    for wrong in (
        {"role": "assistant", "content": []},
        {**message("x"), "event_id": "x"},
        {"action": "run", "args": {}},
    ):
        assert (await runtime.http.post(base, json=wrong)).status_code == 422
    assert (await runtime.http.get(f"{base}/count")).json() == len(stored)


async def test_routes_need_the_key(runtime: Runtime) -> None:
    id = await runtime.start()
    for method, path in (
        ("POST", ""),
        ("GET", "/search"),
        ("GET", f"/{id}"),
        ("DELETE", f"/{id}"),
        ("POST", f"/{id}/run"),
        ("GET", f"/{id}/events/search"),
        ("POST", f"/{id}/events"),
        ("POST", f"/{id}/secrets"),
    ):
        answer = await runtime.http.request(
            method, f"/api/conversations{path}", headers={"X-Session-API-Key": "wrong"}, json={}
        )
        assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"}), path
