"""Names, copies, branches, children and models of conversations against the contract's captured answers."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import Runtime, runtime_at

pytestmark = pytest.mark.anyio

SAMPLES = Path(__file__).parent.parent / "samples"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def body(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())["response"]["body"]


async def post(runtime: Runtime, id: str, what: str, sent: Any, status: int) -> Any:
    answer = await runtime.http.post(f"/api/conversations/{id}/{what}", json=sent)
    assert answer.status_code == status, answer.text
    return answer.json()


async def texts(runtime: Runtime, id: str) -> list[str]:
    messages = await runtime.events(id, "MessageEvent")
    return [event["llm_message"]["content"][0]["text"] for event in messages]


async def said(runtime: Runtime, id: str, text: str) -> dict[str, Any]:
    """The agent's message with that text."""
    found = await runtime.events(id, "MessageEvent")
    return next(event for event in found if event["llm_message"]["content"][0]["text"] == text)


async def turned(runtime: Runtime, *answers: str) -> str:
    """A conversation in which the agent gave these answers, one a turn."""
    id = await runtime.start()
    for answer in answers:
        await runtime.say(id, [{"text": answer}])
        await runtime.finish(id)
    return id


# -- names


async def test_title_and_tags_are_changed(runtime: Runtime) -> None:
    id = await runtime.start(tags={"old": "1"})
    path = f"/api/conversations/{id}"
    answer = await runtime.http.patch(path, json={"title": " New title ", "tags": {"env": "dev"}})
    assert (answer.status_code, answer.json()) == (200, body("04-patch"))
    shown = (await runtime.http.get(path)).json()
    assert (shown["title"], shown["tags"]) == ("New title", {"env": "dev"})
    assert (await runtime.http.patch(path, json={})).status_code == 200
    for wrong in ({"title": "  "}, {"tags": {"Env": "x"}}, {"title": "a\0"}, [], {"tags": "x"}):
        assert (await runtime.http.patch(path, json=wrong)).status_code == 422
    assert (await runtime.http.get(path)).json()["title"] == "New title"
    assert (await runtime.http.patch(f"/api/conversations/{UNKNOWN}", json={})).status_code == 404


async def test_several_are_read_in_the_order_that_is_asked(runtime: Runtime) -> None:
    first, second = await runtime.start(), await runtime.start()
    query = [("ids", second), ("ids", UNKNOWN), ("ids", first)]
    found = (await runtime.http.get("/api/conversations", params=query)).json()
    assert [one and one["id"] for one in found] == [second, None, first]
    assert (await runtime.http.get("/api/conversations")).status_code == 422
    assert (await runtime.http.get("/api/conversations", params={"ids": "x"})).status_code == 422


# -- copies


async def test_a_fork_has_the_log_and_goes_its_own_way(runtime: Runtime) -> None:
    id = await turned(runtime, "one", "two")
    made = await post(runtime, id, "fork", {"title": "forked"}, 201)
    captured = body("04-fork")
    assert set(captured) <= set(made)
    assert (made["title"], made["execution_status"], made["forked_from_conversation_id"]) == ("forked", "idle", id)
    assert made["stats"]["usage_to_metrics"] == {}
    assert made["workspace"] == (await runtime.http.get(f"/api/conversations/{id}")).json()["workspace"]
    assert await runtime.events(made["id"]) == await runtime.events(id)
    await runtime.say(made["id"], [{"text": "three"}])
    await runtime.finish(made["id"])
    assert (await texts(runtime, made["id"]))[-1] == "three"
    assert (await texts(runtime, id))[-1] == "two"


async def test_a_fork_from_an_event_does_not_know_what_came_after(runtime: Runtime, model: ScriptedModel) -> None:
    id = await turned(runtime, "one", "two", "three")
    event = await said(runtime, id, "one")
    wanted = {"from_event_id": event["id"], "reset_metrics": False, "tags": {"a": "b"}, "id": str(uuid4())}
    made = await post(runtime, id, "fork", wanted, 201)
    assert (made["id"], made["forked_from_event_id"], made["tags"]) == (wanted["id"], event["id"], {"a": "b"})
    assert made["stats"]["usage_to_metrics"]["agent"]["accumulated_token_usage"]["prompt_tokens"] > 0
    assert (await texts(runtime, made["id"]))[-1] == "one"
    await runtime.say(made["id"], [{"text": "other"}])
    await runtime.finish(made["id"])
    assert model.requests[-1].messages == 4, "system, user, agent, user"


async def test_a_fork_that_cannot_be_leaves_nothing(runtime: Runtime) -> None:
    id = await turned(runtime, "one")
    await post(runtime, id, "fork", {"id": id}, 409)
    await post(runtime, id, "fork", {"from_event_id": UNKNOWN}, 404)
    await post(runtime, UNKNOWN, "fork", {}, 404)
    await post(runtime, id, "fork", {"tags": {"A": "x"}}, 422)
    assert (await runtime.http.get("/api/conversations/count")).json() == 1


async def test_a_fork_outlives_the_server(tmp_path: Path, model: ScriptedModel) -> None:
    async with runtime_at(tmp_path, model.base_url) as first:
        id = await turned(first, "one")
        made = await post(first, id, "fork", {}, 201)
        log = await first.events(made["id"])
    async with runtime_at(tmp_path, model.base_url) as second:
        assert await second.events(made["id"]) == log
        shown = (await second.http.get(f"/api/conversations/{made['id']}")).json()
        assert shown["forked_from_conversation_id"] == id


# -- branches


async def test_going_back_is_a_branch_and_nothing_is_lost(runtime: Runtime, model: ScriptedModel) -> None:
    id = await turned(runtime, "one", "two")
    before = await runtime.events(id)
    event = await said(runtime, id, "one")
    answer = await post(runtime, id, "navigate", {"event_id": event["id"]}, 200)
    assert set(body("04-navigate")) <= set(answer)
    assert answer["leaf_event_id"] == event["id"]
    assert await runtime.events(id) == before
    await runtime.say(id, [{"text": "instead"}])
    await runtime.finish(id)
    assert await texts(runtime, id) == [*(await texts(runtime, id))[:4], *(await texts(runtime, id))[4:]]
    assert model.requests[-1].messages == 4, "system, user, one, user: not two"
    mine = [event for event in await runtime.events(id) if event not in before]
    assert mine[0]["parent_id"] == event["id"]


async def test_going_back_to_the_beginning_starts_with_a_prompt(runtime: Runtime, model: ScriptedModel) -> None:
    id = await turned(runtime, "one")
    answer = await post(runtime, id, "navigate", {"event_id": None}, 200)
    assert answer["leaf_event_id"] is None
    await runtime.say(id, [{"text": "anew"}])
    await runtime.finish(id)
    assert model.requests[-1].messages == 2, "system and user"


async def test_a_branch_may_end_in_the_middle_of_an_act(runtime: Runtime) -> None:
    id = await runtime.start([{"tool": "think", "args": {"thought": "x"}}, {"text": "done"}])
    await runtime.finish(id)
    (action,) = await runtime.events(id, "ActionEvent")
    await post(runtime, id, "navigate", {"event_id": action["id"]}, 200)
    await runtime.say(id, [{"text": "fine"}])
    await runtime.finish(id)


async def test_nobody_goes_back_under_a_running_agent(runtime: Runtime) -> None:
    id = await runtime.start([{"text": "late", "sleep": 30}])
    await post(runtime, id, "navigate", {"event_id": None}, 409)
    await post(runtime, id, "interrupt", None, 200)
    await post(runtime, id, "navigate", {"event_id": UNKNOWN}, 404)
    await post(runtime, id, "navigate", {}, 422)


# -- children and models


async def test_a_child_works_on_its_part(runtime: Runtime) -> None:
    id = await turned(runtime, "one")
    answer = await post(runtime, id, "children", {"task": 'SCRIPT:[{"text":"child done"}]', "isolation": "shared"}, 201)
    captured = body("04-children")
    assert list(answer) == list(captured)
    assert (answer["parent_conversation_id"], answer["isolation"]) == (id, "shared")
    child = answer["conversation_id"]
    await runtime.finish(child)
    assert (await texts(runtime, child))[-1] == "child done"
    parent = (await runtime.http.get(f"/api/conversations/{id}")).json()
    assert parent["sub_conversation_ids"] == [child]
    assert (await runtime.http.get(f"/api/conversations/{child}")).json()["parent_conversation_id"] == id
    assert (await runtime.http.delete(f"/api/conversations/{child}")).status_code == 200
    assert (await runtime.http.get(f"/api/conversations/{id}")).json()["sub_conversation_ids"] == []


async def test_a_parent_that_is_none_is_refused(runtime: Runtime) -> None:
    for change in ({"parent_conversation_id": UNKNOWN},):
        answer = await runtime.http.post("/api/conversations", json={**runtime.body(), **change})
        assert answer.status_code == 422
    assert (await runtime.http.get("/api/conversations/count")).json() == 0


async def test_another_model_answers_the_next_run(runtime: Runtime, model: ScriptedModel) -> None:
    id = await turned(runtime, "one")
    await post(runtime, id, "switch_llm", {"llm": runtime.llm(model="openai/other")}, 200)
    await runtime.say(id, [{"text": "two"}])
    await runtime.finish(id)
    assert model.requests[-1].model == "other"
    shown = (await runtime.http.get(f"/api/conversations/{id}")).json()
    assert (shown["agent"]["llm"]["model"], shown["agent"]["llm"]["api_key"]) == ("openai/other", None)
    await post(runtime, id, "switch_llm", {"llm": {"model": 1}}, 422)
    await post(runtime, id, "load_plugin", {"plugin_ref": "x"}, 400)
