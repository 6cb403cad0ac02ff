"""A whole turn over the wire, and everything that may come between its beginning and its end."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import MODEL_KEY, Runtime, message, runtime_at, terminal

pytestmark = pytest.mark.anyio

FINISH = {"tool": "finish", "args": {"message": "All done."}}


def outline(events: list[dict[str, Any]]) -> list[str]:
    """Kind, with the key and short value of state updates."""
    named = []
    for event in events:
        if event["kind"] != "ConversationStateUpdateEvent":
            named.append(event["kind"])
        elif event["key"] == "execution_status":
            named.append(f"status {event['value']}")
        else:
            named.append(event["key"])
    return named


async def test_a_turn_is_told_in_the_order_of_the_contract(runtime: Runtime) -> None:
    id = await runtime.start()
    script = [
        {"text": "thinking aloud", **terminal("echo hi", summary="say hi", security_risk="LOW")},
        {
            "tools": [
                {"tool": "think", "args": {"thought": "hm"}},
                {"tool": "task_tracker", "args": {"command": "plan", "task_list": [{"title": "a"}]}},
            ]
        },
        {"tool": "terminal", "args": {"bogus": "x"}},
        {"tool": "nothing", "args": {}},
        {"text": "Final words."},
    ]
    async with runtime.socket(id) as frames:
        first = await frames.next()
        assert (first["key"], first["value"]["execution_status"]) == ("full_state", "idle")
        await runtime.say(id, script, run=False)
        answer = await runtime.http.post(f"/api/conversations/{id}/run")
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        assert await runtime.status(id) != "idle"
        sent = await frames.until_state()
    assert outline(sent) == [
        "SystemPromptEvent",
        "MessageEvent",
        "last_user_message_id",
        "status running",
        *("stats", "ActionEvent", "ObservationEvent"),
        *("stats", "ActionEvent", "ActionEvent", "ObservationEvent", "ObservationEvent"),
        *("stats", "ActionEvent", "AgentErrorEvent"),
        *("stats", "ActionEvent", "AgentErrorEvent"),
        *("stats", "MessageEvent", "status finished"),
        "full_state",
    ]
    stored = await runtime.events(id)
    assert stored == sent[:-1]
    final = sent[-1]["value"]
    assert final["execution_status"] == "finished"
    assert final["leaf_event_id"] == stored[-2]["id"]
    assert {"execution_status", "confirmation_policy", "agent", "workspace", "persistence_dir", "stats"} <= set(final)
    assert MODEL_KEY not in json.dumps(sent)

    leaf = None
    for event in stored:
        assert event.get("parent_id") == leaf, event
        if event["kind"] != "ConversationStateUpdateEvent":
            leaf = event["id"]
    actions = [event for event in stored if event["kind"] == "ActionEvent"]
    assert actions[0]["summary"] == "say hi"
    assert actions[0]["thought"][0]["text"] == "thinking aloud"
    assert actions[0]["action"] == {"command": "echo hi", "is_input": False, "reset": False, "kind": "TerminalAction"}
    assert actions[1]["summary"] == 'think: {"thought": "hm"}'
    assert all("action" not in action and "summary" not in action for action in actions[3:])
    errors = [event["error"] for event in stored if event["kind"] == "AgentErrorEvent"]
    assert "Field required" in errors[0]
    assert "'nothing' not found" in errors[1]

    info = (await runtime.http.get(f"/api/conversations/{id}")).json()
    assert info["execution_status"] == "finished"
    assert info["agent"]["llm"]["api_key"] is None
    usage = info["stats"]["usage_to_metrics"]["agent"]
    assert usage["accumulated_token_usage"]["prompt_tokens"] > 0
    assert len(usage["response_latencies"]) == 5
    final_response = await runtime.http.get(f"/api/conversations/{id}/agent_final_response")
    assert final_response.json() == {"response": "Final words."}


async def test_a_first_message_is_run_and_the_answer_comes_before(runtime: Runtime) -> None:
    answer = await runtime.http.post(
        "/api/conversations", json=runtime.body(initial_message={**message([FINISH]), "run": False})
    )
    assert (answer.status_code, answer.json()["execution_status"]) == (201, "idle")
    id = answer.json()["id"]
    await runtime.finish(id)
    assert outline(await runtime.events(id))[-3:] == ["ActionEvent", "ObservationEvent", "status finished"]
    assert (await runtime.http.get(f"/api/conversations/{id}/agent_final_response")).json() == {"response": "All done."}


async def test_creating_twice_makes_one(runtime: Runtime) -> None:
    body = runtime.body(conversation_id=str(uuid4()), initial_message=message([FINISH]))
    answers: list[httpx.Response] = []

    async def create() -> None:
        answers.append(await runtime.http.post("/api/conversations", json=body))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(create)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    id = body["conversation_id"]
    await runtime.until(id)
    assert (await runtime.http.get("/api/conversations/count")).json() == 1
    assert outline(await runtime.events(id)).count("MessageEvent") == 1


async def test_a_message_of_a_known_id_counts_once(runtime: Runtime) -> None:
    id = await runtime.start()
    event_id = str(uuid4())
    for _ in range(3):
        await runtime.say(id, [{"text": "one"}], event_id=event_id)
    await runtime.finish(id)
    await runtime.say(id, [{"text": "one"}], event_id=event_id)
    assert await runtime.status(id) == "finished"
    messages = await runtime.events(id, "MessageEvent")
    assert [event["source"] for event in messages] == ["user", "agent"]
    assert messages[0]["id"] == event_id


async def test_a_message_while_running_joins_the_run(runtime: Runtime) -> None:
    id = await runtime.start([{"sleep": 1, "text": "first answer"}])
    await runtime.until(id, "running")
    await runtime.say(id, [{"text": "second answer"}])
    await runtime.finish(id)
    texts = [event["llm_message"]["content"][0]["text"] for event in await runtime.events(id, "MessageEvent")]
    assert texts[2:] == ["first answer", "second answer"]
    assert outline(await runtime.events(id)).count("status running") == 1


async def test_running_twice_is_a_conflict(runtime: Runtime) -> None:
    id = await runtime.start([{"sleep": 1, "text": "x"}])
    answer = await runtime.http.post(f"/api/conversations/{id}/run")
    assert answer.status_code == 409
    assert answer.json() == {"detail": "Conversation already running. Wait for completion or pause first."}
    await runtime.until(id)


@pytest.mark.parametrize("last", [FINISH, {"text": "done"}])
async def test_a_pause_holds_even_when_the_step_ends_the_turn(runtime: Runtime, last: dict[str, Any]) -> None:
    id = await runtime.start()
    async with runtime.socket(id) as frames:
        await frames.next()
        await runtime.say(id, [{"sleep": 1, **last}, {"text": "after"}])
        while (await frames.next()).get("value") != "running":
            pass
        for _ in range(2):
            assert (await runtime.http.post(f"/api/conversations/{id}/pause")).json() == {"success": True}
        rest = await frames.until_state()
    assert outline(rest)[0] == "PauseEvent"
    assert outline(rest)[-2:] == ["status paused", "full_state"]
    assert outline(rest).count("PauseEvent") == 1
    assert await runtime.status(id) == "paused"
    assert (await runtime.http.post(f"/api/conversations/{id}/run")).status_code == 200
    assert await runtime.until(id, "finished") == "finished"


async def test_pausing_what_does_not_run_changes_nothing(runtime: Runtime) -> None:
    id = await runtime.start()
    assert (await runtime.http.post(f"/api/conversations/{id}/pause")).json() == {"success": True}
    assert await runtime.status(id) == "idle"
    assert await runtime.events(id) == []


async def test_the_iteration_limit_is_an_error(runtime: Runtime) -> None:
    id = await runtime.start([{"tool": "think", "args": {"thought": str(n)}} for n in range(9)], max_iterations=3)
    assert await runtime.until(id) == "error"
    [error] = await runtime.events(id, "ConversationErrorEvent")
    assert error["code"] == "MaxIterationsReached"
    assert len(await runtime.events(id, "ActionEvent")) == 3
    assert outline(await runtime.events(id))[-2:] == ["ConversationErrorEvent", "status error"]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "LLMBadRequestError", "config"),
        (401, "LLMAuthenticationError", "auth"),
        (429, "LLMRateLimitError", "rate_limit"),
        (500, "LLMServiceUnavailableError", "transient"),
        (503, "LLMServiceUnavailableError", "transient"),
    ],
)
async def test_errors_of_the_model_are_events(runtime: Runtime, status: int, code: str, kind: str) -> None:
    detail = f"scripted failure with {MODEL_KEY}"
    id = await runtime.start([{"status": status, "error": detail}])
    assert await runtime.until(id) == "error"
    [error] = await runtime.events(id, "ConversationErrorEvent")
    assert (error["code"], error["classification"]["kind"]) == (code, kind)
    assert "scripted failure with <secret-hidden>" in error["detail"]
    await runtime.say(id, [{"text": "again"}], run=False)
    assert await runtime.status(id) == "idle"
    assert (await runtime.http.post(f"/api/conversations/{id}/run")).status_code == 200
    assert await runtime.until(id, "finished") == "finished"


async def test_a_failing_model_is_asked_again_as_often_as_configured(runtime: Runtime, model: ScriptedModel) -> None:
    llm = {"num_retries": 2, "retry_min_wait": 0, "retry_max_wait": 0, "retry_multiplier": 0}
    id = await runtime.start([{"status": 500, "error": "x"}], llm=llm)
    assert await runtime.until(id) == "error"
    assert len([seen for seen in model.requests if seen.path.endswith("/chat/completions")]) == 3


async def test_a_model_that_is_not_there_is_an_error_and_not_a_hang(runtime: Runtime) -> None:
    id = await runtime.start([], llm={"base_url": "http://127.0.0.1:9/v1"})
    assert await runtime.until(id) == "error"
    [error] = await runtime.events(id, "ConversationErrorEvent")
    assert error["code"] == "LLMServiceUnavailableError"


async def test_a_tool_nobody_knows_is_accepted_and_fails_the_run(runtime: Runtime) -> None:
    id = await runtime.start([FINISH], tools=("terminal", "browser_tool_set"))
    assert await runtime.until(id) == "error"
    [error] = await runtime.events(id, "ConversationErrorEvent")
    assert error["code"] == "ToolNotFound"
    assert "browser_tool_set" in error["detail"]


async def test_streaming_is_live_only(runtime: Runtime) -> None:
    id = await runtime.start(llm={"stream": True})
    async with runtime.socket(id) as frames:
        await frames.next()
        await runtime.say(id, [{"text": "thinking now", **terminal("echo x")}, {"text": "Final words here."}])
        sent = await frames.until_state()
    assert not [frame["detail"] for frame in sent if frame["kind"] == "ConversationErrorEvent"]
    deltas = [frame for frame in sent if frame["kind"] == "StreamingDeltaEvent"]
    assert "".join(frame.get("content", "") for frame in deltas) == "thinking nowFinal words here."
    assert all("parent_id" not in frame for frame in deltas)
    stored = await runtime.events(id)
    assert stored == [frame for frame in sent[:-1] if frame["kind"] != "StreamingDeltaEvent"]
    assert stored[-2]["llm_message"]["content"][0]["text"] == "Final words here."
    usage = (await runtime.http.get(f"/api/conversations/{id}")).json()["stats"]["usage_to_metrics"]["agent"]
    assert usage["accumulated_token_usage"]["completion_tokens"] > 0


async def test_too_many_runs_are_refused_and_the_message_is_kept(tmp_path: Path, model: ScriptedModel) -> None:
    async with runtime_at(tmp_path, model.base_url, max_concurrent_runs=1) as runtime:
        busy = await runtime.start([{"sleep": 2, "text": "x"}])
        other = await runtime.start()
        answer = await runtime.http.post(f"/api/conversations/{other}/events", json={**message("hello"), "run": True})
        assert answer.status_code == 429
        assert (await runtime.http.post(f"/api/conversations/{other}/run")).status_code == 429
        assert (
            await runtime.http.post("/api/conversations", json=runtime.body(initial_message=message("x")))
        ).status_code == 429
        assert len(await runtime.events(other, "MessageEvent")) == 1
        await runtime.until(busy)
        assert (await runtime.http.post(f"/api/conversations/{other}/run")).status_code == 200
        assert await runtime.until(other) == "finished"


async def test_deleting_ends_everything(runtime: Runtime) -> None:
    id = await runtime.start()
    mark = f"97531.{uuid4().int % 10**8}"
    async with runtime.socket(id) as frames:
        await frames.next()
        await runtime.say(id, [terminal(f"(setsid sleep {mark} &); sleep {mark}")])
        while (await frames.next())["kind"] != "ActionEvent":
            pass
        await _until_running(mark, expected=True)
        assert (await runtime.http.delete(f"/api/conversations/{id}")).json() == {"success": True}
        assert await frames.close_code() == 4004
    await _until_running(mark, expected=False)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events/search"), ("POST", "/run")):
        answer = await runtime.http.request(method, f"/api/conversations/{id}{path}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    assert [one.name for one in (runtime.folder / "conversations").iterdir()] == [".owners"]


async def _until_running(mark: str, *, expected: bool) -> None:
    def running() -> bool:
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and f"sleep\0{mark}".encode() in (entry / "cmdline").read_bytes():
                    return True
            except OSError:
                continue
        return False

    with anyio.fail_after(10):
        while running() is not expected:
            await anyio.sleep(0.02)
