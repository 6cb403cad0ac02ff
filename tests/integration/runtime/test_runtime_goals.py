"""A goal is pursued over several turns, judged by the model, and survives what interrupts it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from orchestrator.demo.model_server import ScriptedModel
from orchestrator.demo.script import Step
from tests.support.runtimes import KEY, Runtime, RuntimeProcess, runtime_at, terminal

pytestmark = pytest.mark.anyio

UNKNOWN = "00000000-0000-4000-8000-000000000000"
WAITING = "waiting_for_confirmation"


def verdict(complete: bool, missing: str = "", score: float = 0.5, around: str = "{}") -> Step:
    text = json.dumps({"score": score, "complete": complete, "missing": missing})
    return Step(text=around.replace("{}", text))


async def post(runtime: Runtime, id: str, what: str, body: Any = None, *, status: int = 200) -> Any:
    answer = await runtime.http.post(f"/api/conversations/{id}/{what}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def script(*steps: Any) -> str:
    return f"SCRIPT:{json.dumps(list(steps))}"


async def pursue(runtime: Runtime, id: str, *steps: Any, most: int = 10) -> None:
    wanted = {"objective": script(*steps), "max_iterations": most}
    assert await post(runtime, id, "goal", wanted) == {"success": True}


async def goals(runtime: Runtime, id: str) -> list[dict[str, Any]]:
    return [event["value"] for event in await runtime.events(id, "ConversationStateUpdateEvent") if _is_goal(event)]


def _is_goal(event: dict[str, Any]) -> bool:
    return bool(event.get("key") == "goal")


async def progress(runtime: Runtime, id: str) -> list[tuple[str, int]]:
    return [(goal["status"], goal["iteration"]) for goal in await goals(runtime, id)]


async def texts(runtime: Runtime, id: str) -> list[tuple[str, str]]:
    found = await runtime.events(id, "MessageEvent")
    return [(event["source"], event["llm_message"]["content"][0]["text"]) for event in found]


async def test_a_goal_takes_as_many_turns_as_the_judge_wants(runtime: Runtime, model: ScriptedModel) -> None:
    id = await runtime.start()
    model.asides += [verdict(False, "the second file"), verdict(True, score=0.9, around="Well:\n```json\n{}\n```")]
    async with runtime.socket(id) as frames:
        await frames.next()
        await pursue(runtime, id, terminal("touch one"), {"text": "half"}, terminal("touch two"), {"text": "whole"})
        assert await runtime.status(id) == "running"
        sent = await frames.until_state(60)
    assert await runtime.status(id) == "finished"
    told = [frame["value"] for frame in sent if frame.get("key") == "goal"]
    assert told == await goals(runtime, id)
    assert [list(goal) for goal in told] == [
        ["active", "status", "iteration", "max_iterations", "objective", "verdict"]
    ] * 3
    assert [(goal["active"], goal["status"], goal["iteration"], goal["verdict"]) for goal in told] == [
        (True, "running", 0, None),
        (True, "running", 1, {"score": 0.5, "complete": False, "missing": "the second file"}),
        (False, "complete", 2, {"score": 0.9, "complete": True, "missing": ""}),
    ]
    assert sent[-1]["value"]["execution_status"] == "finished"
    said = await texts(runtime, id)
    assert [source for source, _ in said] == ["user", "agent", "environment", "agent"]
    assert "the second file" in said[2][1]
    assert {"one", "two"} <= {path.name for path in (runtime.folder / "work").iterdir()}
    shown = (await runtime.http.get(f"/api/conversations/{id}")).json()
    usage = shown["stats"]["usage_to_metrics"]
    assert usage["goal-judge"]["accumulated_token_usage"]["prompt_tokens"] > 0
    assert [seen.tools for seen in model.requests].count(()) == 2, "the judge has no tools"
    statuses = [f["value"] for f in sent if f.get("key") == "execution_status"]
    assert statuses == ["running", "finished"], "one run from the beginning to the end"


async def test_a_goal_ends_with_its_iterations(runtime: Runtime, model: ScriptedModel) -> None:
    id = await runtime.start()
    model.asides += [Step(text="no verdict at all {"), verdict(False)]
    await pursue(runtime, id, {"text": "a"}, {"text": "b"}, most=2)
    await runtime.finish(id)
    assert await progress(runtime, id) == [("running", 0), ("running", 1), ("capped", 2)]
    assert (await goals(runtime, id))[1]["verdict"]["score"] == 0, "what cannot be read is no verdict in favour"
    await post(runtime, id, "goal/resume", status=400)
    model.asides.append(verdict(True))
    await pursue(runtime, id, {"text": "c"})
    await runtime.finish(id)
    assert (await progress(runtime, id))[-1] == ("complete", 1)


async def test_what_runs_cannot_be_given_a_goal(runtime: Runtime) -> None:
    id = await runtime.start([{"text": "late", "sleep": 30}])
    await post(runtime, id, "goal", {"objective": "x"}, status=409)
    await post(runtime, id, "interrupt")
    assert await goals(runtime, id) == []
    for wrong in ({}, {"objective": " "}, {"objective": "x", "max_iterations": 0}, {"objective": 1}, None):
        await post(runtime, id, "goal", wrong, status=422)
    for what, body in (("goal", {"objective": "x"}), ("goal/stop", None), ("goal/resume", None)):
        await post(runtime, UNKNOWN, what, body, status=404)
    await post(runtime, id, "goal/resume", status=400)
    assert await post(runtime, id, "goal/stop") == {"success": True}
    assert await goals(runtime, id) == []


async def test_of_two_at_once_one_is_pursued(runtime: Runtime, model: ScriptedModel) -> None:
    id = await runtime.start()
    model.asides.append(verdict(True))
    answers: list[int] = []

    async def one() -> None:
        wanted = {"objective": script({"text": "x", "sleep": 1})}
        answers.append((await runtime.http.post(f"/api/conversations/{id}/goal", json=wanted)).status_code)

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        group.start_soon(one)
    assert sorted(answers) == [200, 409]
    await runtime.finish(id)
    assert [source for source, _ in await texts(runtime, id)] == ["user", "agent"]


async def test_a_goal_counts_as_a_run(tmp_path: Path, model: ScriptedModel) -> None:
    async with runtime_at(tmp_path, model.base_url, max_concurrent_runs=1) as runtime:
        busy = await runtime.start([{"text": "late", "sleep": 30}])
        id = await runtime.start()
        await post(runtime, id, "goal", {"objective": "x"}, status=429)
        assert await texts(runtime, id) == []
        await post(runtime, busy, "interrupt")


async def test_stop_lets_the_turn_end_and_resume_goes_on(runtime: Runtime, model: ScriptedModel) -> None:
    id = await runtime.start()
    model.asides.append(verdict(False, "more"))
    await pursue(runtime, id, {"text": "one"}, terminal("sleep 1; echo ended"), {"text": "two"}, {"text": "three"})
    with anyio.fail_after(60):
        while not await runtime.events(id, "ActionEvent"):
            await anyio.sleep(0.02)
    await post(runtime, id, "goal/stop")
    assert (await progress(runtime, id))[-1] == ("interrupted", 1)
    await runtime.finish(id)
    assert await runtime.outputs(id) == ["ended"], "the turn was not broken off"
    assert (await texts(runtime, id))[-1] == ("agent", "two")
    model.asides.append(verdict(True))
    assert await post(runtime, id, "goal/resume") == {"success": True}
    await post(runtime, id, "goal/resume", status=409)
    await runtime.finish(id)
    assert (await progress(runtime, id))[-2:] == [("running", 1), ("complete", 2)]


async def test_stop_does_not_wait_for_the_judge(runtime: Runtime, model: ScriptedModel) -> None:
    id = await runtime.start()
    model.asides.append(Step(text="late", sleep=30))
    await pursue(runtime, id, {"text": "done"})
    with anyio.fail_after(60):
        while [seen.tools for seen in model.requests].count(()) < 1:
            await anyio.sleep(0.02)
    await post(runtime, id, "goal/stop")
    with anyio.fail_after(10):
        assert await runtime.until(id) == "finished"
    assert await progress(runtime, id) == [("running", 0), ("interrupted", 0)]


@pytest.mark.parametrize("how", ["pause", "interrupt"])
async def test_pause_and_interrupt_keep_the_goal_for_later(runtime: Runtime, model: ScriptedModel, how: str) -> None:
    id = await runtime.start()
    await pursue(runtime, id, terminal("sleep 1.5"), {"text": "done"})
    with anyio.fail_after(60):
        while not await runtime.events(id, "ActionEvent"):
            await anyio.sleep(0.02)
    await post(runtime, id, how)
    assert await runtime.until(id) == "paused"
    assert await progress(runtime, id) == [("running", 0), ("interrupted", 0)]
    model.asides.append(verdict(True))
    await post(runtime, id, "goal/resume")
    await runtime.finish(id)
    assert (await progress(runtime, id))[-1] == ("complete", 1)


async def test_who_speaks_takes_the_agent_off_its_goal(runtime: Runtime) -> None:
    id = await runtime.start()
    await pursue(runtime, id, terminal("sleep 1"), {"text": "never"})
    with anyio.fail_after(60):
        while not await runtime.events(id, "ActionEvent"):
            await anyio.sleep(0.02)
    await runtime.say(id, [{"text": "something else"}])
    await runtime.finish(id)
    assert await progress(runtime, id) == [("running", 0), ("interrupted", 0)]
    assert (await texts(runtime, id))[-1] == ("agent", "something else")


async def test_a_goal_waits_for_leave_and_goes_on_with_it(runtime: Runtime, model: ScriptedModel) -> None:
    id = await runtime.start(confirmation_policy={"kind": "AlwaysConfirm"})
    model.asides.append(verdict(True))
    await pursue(runtime, id, terminal("echo x > proof"), {"text": "done"})
    await runtime.until(id, WAITING)
    await post(runtime, id, "goal", {"objective": "x"}, status=409)
    assert await progress(runtime, id) == [("running", 0)]
    await post(runtime, id, "events/respond_to_confirmation", {"accept": True})
    await runtime.finish(id)
    assert (await progress(runtime, id))[-1] == ("complete", 1)
    await pursue(runtime, id, terminal("echo x > other"), {"text": "done"})
    await runtime.until(id, WAITING)
    await post(runtime, id, "events/respond_to_confirmation", {"accept": False})
    assert (await progress(runtime, id))[-1] == ("interrupted", 0)
    assert await runtime.status(id) == "idle"


async def test_the_money_of_a_run_is_for_all_of_its_turns(runtime: Runtime, model: ScriptedModel) -> None:
    price = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.001}
    id = await runtime.start(llm=price, max_budget_per_run=0.000001)
    model.asides.append(verdict(False))
    await pursue(runtime, id, {"text": "a"}, {"text": "b"})
    assert await runtime.until(id) == "error"
    (error,) = await runtime.events(id, "ConversationErrorEvent")
    assert error["code"] == "MaxBudgetReached"
    assert await progress(runtime, id) == [("running", 0), ("running", 1), ("interrupted", 1)]


async def test_a_judge_that_fails_is_an_error_and_no_round(runtime: Runtime, model: ScriptedModel) -> None:
    id = await runtime.start()
    model.asides.append(Step(status=429))
    await pursue(runtime, id, {"text": "done"})
    assert await runtime.until(id) == "error"
    assert [e["code"] for e in await runtime.events(id, "ConversationErrorEvent")] == ["LLMRateLimitError"]
    assert (await texts(runtime, id))[-1] == ("agent", "done")
    assert await progress(runtime, id) == [("running", 0), ("interrupted", 0)]


async def test_an_objective_that_a_hook_blocks_is_not_pursued(runtime: Runtime, model: ScriptedModel) -> None:
    hook = {"user_prompt_submit": [{"hooks": [{"command": "echo no >&2; exit 2"}]}]}
    id = await runtime.start(hook_config=hook)
    await pursue(runtime, id, {"text": "never"})
    assert await runtime.until(id) == "error"
    assert [e["code"] for e in await runtime.events(id, "ConversationErrorEvent")] == ["GoalBlocked"]
    assert not model.requests
    assert (await progress(runtime, id))[-1] == ("interrupted", 0)


async def test_a_killed_runtime_says_that_the_goal_was_interrupted(tmp_path: Path, model: ScriptedModel) -> None:
    process = RuntimeProcess(tmp_path)
    try:
        await anyio.to_thread.run_sync(process.start)
        async with _client(process, tmp_path, model) as runtime:
            id = await runtime.start()
            model.asides.append(verdict(False, "the rest"))
            await pursue(runtime, id, {"text": "one"}, terminal("sleep 100"), {"text": "two"})
            with anyio.fail_after(60):
                while not await runtime.events(id, "ActionEvent"):
                    await anyio.sleep(0.02)
        process.kill()
        await anyio.to_thread.run_sync(process.start)
        async with _client(process, tmp_path, model) as runtime:
            assert await runtime.status(id) == "error"
            last = (await goals(runtime, id))[-1]
            assert (last["active"], last["status"], last["iteration"]) == (False, "interrupted", 1)
            model.asides.append(verdict(True))
            await post(runtime, id, "goal/resume")
            await runtime.finish(id)
            assert (await progress(runtime, id))[-1] == ("complete", 2)
            said = await texts(runtime, id)
            assert any("the rest" in text and "interrupted" in text for source, text in said if source == "user")
    finally:
        process.ensure_gone()


@asynccontextmanager
async def _client(process: RuntimeProcess, folder: Path, model: ScriptedModel) -> AsyncIterator[Runtime]:
    headers = {"X-Session-API-Key": KEY}
    async with httpx.AsyncClient(base_url=process.url, headers=headers, timeout=30, trust_env=False) as http:
        yield Runtime(http, process.url, folder, model.base_url)
