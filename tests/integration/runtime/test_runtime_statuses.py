"""The table of statuses (contract 4.4): what a run, a message, a pause and an interrupt make of each."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import Runtime, message, runtime_at, terminal

pytestmark = pytest.mark.anyio

Bring = Callable[[Runtime], Awaitable[str]]


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with ScriptedModel() as model, runtime_at(tmp_path, model.base_url) as made:
        yield made


async def ended(runtime: Runtime, status: str, script: list[dict[str, Any]], **more: Any) -> str:
    id = await runtime.start(script, **more)
    assert await runtime.until(id, status, seconds=90) == status  # the first run imports the model library
    return id


async def idle(runtime: Runtime) -> str:
    return await runtime.start()


async def finished(runtime: Runtime) -> str:
    return await ended(runtime, "finished", [{"text": "done"}])


async def failed(runtime: Runtime) -> str:
    return await ended(runtime, "error", [{"status": 400, "error": "x", "times": 1}])


async def stuck(runtime: Runtime) -> str:
    thresholds = {"stuck_detection_thresholds": {"action_observation": 2}}
    return await ended(runtime, "stuck", [terminal("echo again")] * 2, **thresholds)


async def paused(runtime: Runtime) -> str:
    id = await runtime.start([{"text": "late", "sleep": 60}])
    await runtime.until(id, "running")
    assert (await runtime.http.post(f"/api/conversations/{id}/interrupt")).json() == {"success": True}
    assert await runtime.status(id) == "paused"
    await runtime.say(id, [{"text": "done"}], run=False)
    return id


async def waiting(runtime: Runtime) -> str:
    policy = {"confirmation_policy": {"kind": "AlwaysConfirm"}}
    return await ended(runtime, "waiting_for_confirmation", [terminal("echo x"), {"text": "done"}], **policy)


RESTING: dict[str, Bring] = {"idle": idle, "finished": finished, "error": failed, "stuck": stuck, "paused": paused}


@pytest.mark.parametrize("status", RESTING)
async def test_what_rests_can_be_run_and_says_so_at_once(runtime: Runtime, status: str) -> None:
    """Also an idle conversation that nobody has said anything to: the model is called with the prompt alone."""
    id = await RESTING[status](runtime)
    assert await runtime.status(id) == status
    async with runtime.socket(id) as frames:
        await frames.next()
        answer = await runtime.http.post(f"/api/conversations/{id}/run")
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        sent = await frames.until_state(90)
    moves = [frame["value"] for frame in sent if frame.get("key") == "execution_status"]
    assert moves[0] == "running"
    assert moves[-1] == sent[-1]["value"]["execution_status"] != "running"


@pytest.mark.parametrize(
    ("status", "after"),
    [("idle", "idle"), ("finished", "idle"), ("error", "idle"), ("stuck", "idle"), ("paused", "paused")],
)
async def test_a_message_that_nobody_asked_to_run(runtime: Runtime, status: str, after: str) -> None:
    id = await RESTING[status](runtime)
    await runtime.say(id, [{"text": "x"}], run=False)
    assert await runtime.status(id) == after


@pytest.mark.parametrize("what", ["pause", "interrupt"])
@pytest.mark.parametrize("status", ["idle", "finished", "waiting_for_confirmation"])
async def test_what_does_not_run_can_be_paused_and_interrupted_without_effect(
    runtime: Runtime, what: str, status: str
) -> None:
    id = await ({**RESTING, "waiting_for_confirmation": waiting}[status])(runtime)
    before = await runtime.events(id)
    assert (await runtime.http.post(f"/api/conversations/{id}/{what}")).json() == {"success": True}
    assert await runtime.status(id) == status
    assert await runtime.events(id) == before


async def test_an_answer_that_nobody_waits_for_is_no_error(runtime: Runtime) -> None:
    id = await runtime.start()
    for accept in (True, False):
        sent = {"accept": accept, "reason": "r"}
        answer = await runtime.http.post(f"/api/conversations/{id}/events/respond_to_confirmation", json=sent)
        assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert (await runtime.status(id), await runtime.events(id)) == ("idle", [])


async def test_a_deleted_one_says_so_to_who_listens(runtime: Runtime) -> None:
    id = await waiting(runtime)
    async with runtime.socket(id) as frames:
        await frames.next()
        assert (await runtime.http.delete(f"/api/conversations/{id}")).json() == {"success": True}
        assert await frames.close_code() == 4004
    again = await runtime.http.delete(f"/api/conversations/{id}")
    assert (again.status_code, again.json()) == (404, {"detail": "Not Found"})
    answer = await runtime.http.post(f"/api/conversations/{id}/events", json=message("x"))
    assert answer.status_code == 404
