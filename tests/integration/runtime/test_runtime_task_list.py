"""The agent's list of tasks: kept, shown, replaced, and there again after a restart, in a fork and on a branch."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import Runtime, runtime_at

pytestmark = pytest.mark.anyio

VIEW: dict[str, Any] = {"tool": "task_tracker", "args": {"command": "view"}}
TASKS = [{"title": "one", "notes": "n", "status": "done"}, {"title": "two", "notes": "", "status": "todo"}]
SHOWN = "1. [done] one\n   n\n2. [todo] two"


def plan(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"tool": "task_tracker", "args": {"command": "plan", "task_list": list(tasks)}}


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel() as made:
        yield made


async def turn(runtime: Runtime, id: str, *steps: dict[str, Any]) -> str:
    """The agent does these and ends its turn; what it saw last."""
    await runtime.say(id, [*steps, {"text": "done"}])
    assert await runtime.until(id, seconds=90) == "finished"  # the first run imports the model library
    return (await runtime.outputs(id))[-1]


async def test_it_is_kept_shown_and_replaced(tmp_path: Path, model: ScriptedModel) -> None:
    async with runtime_at(tmp_path, model.base_url) as runtime:
        id = await runtime.start()
        assert await turn(runtime, id, VIEW) == "The task list is empty."
        assert await turn(runtime, id, plan(*TASKS), VIEW) == SHOWN
        (*_, last) = await runtime.observations(id)
        assert (last["command"], last["task_list"], last["is_error"]) == ("view", TASKS, False)
        assert await turn(runtime, id, plan(), VIEW) == "The task list is empty."
        await turn(runtime, id, plan({"title": "x", "status": "begun"}), plan({"notes": "no title"}))
        errors = [event["error"] for event in await runtime.events(id, "AgentErrorEvent")]
        assert ["status" in errors[0], "title: Field required" in errors[1]] == [True, True]
        assert await turn(runtime, id, VIEW) == "The task list is empty."


async def test_it_is_there_again_after_a_restart_and_in_a_fork(tmp_path: Path, model: ScriptedModel) -> None:
    async with runtime_at(tmp_path, model.base_url) as first:
        id = await first.start()
        await turn(first, id, plan(*TASKS))
        early = (await first.events(id, "MessageEvent"))[-1]["id"]
        await turn(first, id, plan({"title": "later"}))
        forked = await first.http.post(f"/api/conversations/{id}/fork", json={"from_event_id": early})
        assert await turn(first, forked.json()["id"], VIEW) == SHOWN
    async with runtime_at(tmp_path, model.base_url) as second:
        assert await turn(second, id, VIEW) == "1. [todo] later"


async def test_it_goes_back_with_the_conversation(tmp_path: Path, model: ScriptedModel) -> None:
    async with runtime_at(tmp_path, model.base_url) as runtime:
        id = await runtime.start()
        await turn(runtime, id, plan(*TASKS))
        early = (await runtime.events(id, "MessageEvent"))[-1]["id"]
        await turn(runtime, id, plan({"title": "later"}))
        back = await runtime.http.post(f"/api/conversations/{id}/navigate", json={"event_id": early})
        assert back.status_code == 200, back.text
        assert await turn(runtime, id, VIEW) == SHOWN
