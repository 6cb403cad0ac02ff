"""What is kept of calls of the model, how long they may be, and what a start request says beside the agent."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator.demo.model_server import ScriptedModel
from orchestrator.demo.script import Step
from runtime.agent.size import tokens_of
from tests.support.runtimes import MODEL_KEY, Runtime, message, runtime_at, terminal

pytestmark = pytest.mark.anyio

SAMPLE = Path(__file__).parents[2] / "contract" / "runtime" / "samples" / "05-event-LLMCompletionLogEvent.json"


# -- completion logs


@pytest.mark.parametrize("stream", [False, True])
async def test_each_call_is_logged_field_for_field_and_masked(
    runtime: Runtime, model: ScriptedModel, stream: bool
) -> None:
    script = [terminal("echo $S_KEY"), {"text": "done"}]
    secrets = {"S_KEY": "value-of-s-key"}
    id = await runtime.start(script, llm={"log_completions": True, "stream": stream}, secrets=secrets)
    await runtime.finish(id)
    logged = await runtime.events(id, "LLMCompletionLogEvent")
    assert len(logged) == 2
    for event in logged:
        assert list(event) == list(json.loads(SAMPLE.read_text()))
        assert (event["source"], event["model_name"], event["usage_id"]) == ("environment", "openai/scripted", "agent")
        assert event["filename"].startswith("openai__scripted-")
        assert event["filename"].endswith(".json")
        whole = json.loads(event["log_data"])
        assert {"context_window", "messages", "tools", "kwargs", "response", "cost", "latency_sec"} <= set(whole)
        for value in (MODEL_KEY, "value-of-s-key"):
            assert value not in event["log_data"]
    first, second = (json.loads(event["log_data"]) for event in logged)
    call = first["response"]["choices"][0]["message"]["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])["command"]) == ("terminal", "echo $S_KEY")
    assert second["messages"][-1]["role"] == "tool"
    assert second["response"]["choices"][0]["message"]["content"] == "done"
    assert second["usage_summary"]["prompt_tokens"] > 0
    (action,) = await runtime.events(id, "ActionEvent")
    assert action["parent_id"] == logged[0]["id"], "it hangs on the tree like every event"
    model.asides.append(Step(text="an answer"))
    before = await runtime.events(id)
    assert (await runtime.http.post(f"/api/conversations/{id}/ask_agent", json={"question": "?"})).status_code == 200
    assert await runtime.events(id) == before, "a question leaves no events"


async def test_nobody_asked_for_it_so_nothing_is_logged(runtime: Runtime) -> None:
    id = await runtime.start([{"text": "done"}])
    await runtime.finish(id)
    assert await runtime.events(id, "LLMCompletionLogEvent") == []


# -- length


def test_the_estimate_counts_characters_and_images() -> None:
    text = {"role": "user", "content": "x" * 3500}
    assert 1000 <= tokens_of([text], []) <= 1020
    image = {"type": "image_url", "image_url": {"url": "data:" + "x" * 1_000_000}}
    assert tokens_of([{"role": "user", "content": [image]}], []) < 2_000
    assert tokens_of([text], [{"name": "tool", "description": "y" * 3500}]) > 2_000


async def test_a_call_that_is_too_long_is_not_made(runtime: Runtime, model: ScriptedModel) -> None:
    id = await runtime.start([{"text": "never"}], llm={"max_input_tokens": 50})
    assert await runtime.until(id) == "error"
    (error,) = await runtime.events(id, "ConversationErrorEvent")
    assert (error["code"], "max_input_tokens" in error["detail"]) == ("LLMContextWindowExceedError", True)
    assert not model.requests


async def test_where_there_is_a_condenser_it_makes_room(runtime: Runtime, model: ScriptedModel) -> None:
    id = await _talked(runtime, llm={"max_input_tokens": 8_000}, turns=6, characters=6_000)
    assert await runtime.events(id, "Condensation")
    assert await runtime.events(id, "ConversationErrorEvent") == []


async def _talked(runtime: Runtime, *, llm: dict[str, Any], turns: int, characters: int) -> str:
    sent = runtime.body(tools=(), llm=llm)
    sent["agent"]["condenser"] = {"kind": "LLMSummarizingCondenser", "llm": runtime.llm(), "keep_first": 1}
    id = str((await runtime.http.post("/api/conversations", json=sent)).json()["id"])
    for turn in range(turns):
        said = {**message(f"message {turn} {'x' * characters}"), "run": True}
        assert (await runtime.http.post(f"/api/conversations/{id}/events", json=said)).status_code == 200
        await runtime.finish(id)
    return id


# -- the start request (contract 4.1)


async def start(runtime: Runtime, status: int, **more: Any) -> Any:
    answer = await runtime.http.post("/api/conversations", json={**runtime.body(), **more})
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.mark.parametrize("run", [{"run": False}, {}])
async def test_a_first_message_runs_whatever_it_says(runtime: Runtime, run: dict[str, Any]) -> None:
    made = await start(runtime, 201, initial_message={**message([{"text": "done"}]), **run})
    assert made["execution_status"] == "idle"
    await runtime.finish(made["id"])


async def test_what_a_server_of_one_kind_makes_of_containers(runtime: Runtime) -> None:
    for fine in ({"conversation_runtime": "local"}, {"conversation_runtime": None}, {"container": None}):
        await start(runtime, 201, **fine)
    await start(runtime, 201, container={"memory": "2g", "cpus": 1.5, "browser": False})
    for wrong in ({"more": 1}, {"memory": "much"}, {"cpus": 0}):
        await start(runtime, 422, container=wrong)
    await start(runtime, 422, conversation_runtime="docker")


async def test_plugins_are_refused_and_the_rest_is_ignored(runtime: Runtime) -> None:
    await start(runtime, 422, plugins=[{"source": "github:x/y"}])
    await start(runtime, 422, prompt="x" * 2001)
    body = {
        **runtime.body(),
        "plugins": [],
        "agent_definitions": [],
        "title_llm_profile": "p",
        "prompt": "p",
        "user_id": "u",
        "unknown": True,
    }
    await start(runtime, 201, **body)


async def test_a_title_is_made_unless_it_is_not_wanted(runtime: Runtime) -> None:
    for wanted, title in (({}, "SCRIPT:"), ({"autotitle": False}, None), ({"title": "mine"}, "mine")):
        made = await start(runtime, 201, initial_message=message([{"text": "done"}]), **wanted)
        await runtime.finish(made["id"])
        shown = (await runtime.http.get(f"/api/conversations/{made['id']}")).json()
        assert shown["title"] == title or (title and shown["title"].startswith(title)), wanted


async def test_an_unreadable_token_is_refused_when_it_is_said_to_be_one(runtime: Runtime) -> None:
    body = runtime.body(llm={"api_key": "gAAAAAunreadable"})
    assert (await runtime.http.post("/api/conversations", json={**body, "secrets_encrypted": True})).status_code == 422
    assert (await runtime.http.get("/api/conversations/count")).json() == 0


async def test_of_two_that_make_the_same_one_makes_it(runtime: Runtime) -> None:
    id = "11111111-2222-4333-8444-555555555555"
    answers: list[int] = []

    async def one() -> None:
        sent = {**runtime.body(), "conversation_id": id, "initial_message": message([{"text": "done"}])}
        answers.append((await runtime.http.post("/api/conversations", json=sent)).status_code)

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(one)
    assert sorted(answers) == [200, 200, 200, 201]
    await runtime.finish(id)
    assert len(await runtime.events(id, "MessageEvent")) == 2


async def test_a_full_runtime_makes_none_that_would_run(tmp_path: Path, model: ScriptedModel) -> None:
    async with runtime_at(tmp_path, model.base_url, max_concurrent_runs=1) as runtime:
        busy = await runtime.start([{"text": "late", "sleep": 30}])
        await start(runtime, 429, initial_message=message([{"text": "x"}]))
        idle = await start(runtime, 201)
        assert (await runtime.http.post(f"/api/conversations/{idle['id']}/run")).status_code == 429
        assert (await runtime.http.get("/api/conversations/count")).json() == 2
        await runtime.http.post(f"/api/conversations/{busy}/interrupt")


async def test_at_most_99_are_asked_for_at_once(runtime: Runtime) -> None:
    id = await runtime.start()
    for count, status in ((99, 200), (100, 422)):
        query = [("ids", id)] * count
        assert (await runtime.http.get("/api/conversations", params=query)).status_code == status
