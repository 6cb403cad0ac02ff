"""How a run is steered: interrupt, pause, confirmation, repetition, limits."""

import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import Runtime, runtime_at, terminal

pytestmark = pytest.mark.anyio

ALWAYS = {"kind": "AlwaysConfirm"}
JUDGED = {"confirmation_policy": {"kind": "ConfirmRisky"}, "security_analyzer": {"kind": "LLMSecurityAnalyzer"}}
WAITING = "waiting_for_confirmation"


async def post(runtime: Runtime, id: str, what: str, body: Any = None, *, status: int = 200) -> Any:
    answer = await runtime.http.post(f"/api/conversations/{id}/{what}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def kinds(runtime: Runtime, id: str) -> list[str]:
    found = await runtime.events(id)
    return [event["kind"] for event in found if event["kind"] != "ConversationStateUpdateEvent"]


async def running(runtime: Runtime, id: str, kind: str) -> None:
    """Until an event of that kind is there and the run goes on."""
    with anyio.fail_after(30):
        while not await runtime.events(id, kind):
            await anyio.sleep(0.02)
    assert await runtime.status(id) == "running"


# -- interrupt


async def test_an_interrupt_breaks_off_a_command_and_the_shell_stays(runtime: Runtime) -> None:
    begun = runtime.folder / "work" / "begun"
    id = await runtime.start([terminal("cd /; X=kept; touch $OLDPWD/begun; sleep 100"), {"text": "never"}])
    with anyio.fail_after(60):
        while not begun.exists():
            await anyio.sleep(0.02)
    async with runtime.socket(id) as frames:
        await frames.next()
        assert await post(runtime, id, "interrupt") == {"success": True}
        assert await runtime.status(id) == "paused"
        sent = await frames.until_state()
    assert (sent[-1]["value"]["execution_status"], [f["kind"] for f in sent[:2]]) == (
        "paused",
        ["AgentErrorEvent", "InterruptEvent"],
    )
    await runtime.say(id, [terminal("echo $X in $PWD"), {"text": "done"}])
    await runtime.finish(id)
    assert (await runtime.outputs(id))[-1] == "kept in /"


async def test_an_interrupt_cancels_the_call_of_the_model(runtime: Runtime, model: ScriptedModel) -> None:
    id = await runtime.start([{"text": "late", "sleep": 100}])
    with anyio.fail_after(60):
        while not model.requests:
            await anyio.sleep(0.02)
    before = time.monotonic()
    await post(runtime, id, "interrupt")
    assert time.monotonic() - before < 50, "it did not wait for the answer"
    assert await runtime.status(id) == "paused"
    assert (await kinds(runtime, id))[-1] == "InterruptEvent"
    await runtime.say(id, [{"text": "now"}])
    await runtime.finish(id)


async def test_an_interrupt_of_what_rests_does_nothing(runtime: Runtime) -> None:
    id = await runtime.start([{"text": "done"}])
    await runtime.finish(id)
    before = await runtime.events(id)
    assert await post(runtime, id, "interrupt") == {"success": True}
    assert await runtime.events(id) == before
    await post(runtime, "00000000-0000-4000-8000-000000000000", "interrupt", status=404)


async def test_a_pause_is_kept_when_the_step_ends_the_turn(runtime: Runtime) -> None:
    id = await runtime.start([{"tool": "finish", "args": {"message": "done"}, "sleep": 1.5}])
    await running(runtime, id, "MessageEvent")
    await post(runtime, id, "pause")
    assert await runtime.until(id) == "paused"
    assert (await kinds(runtime, id)).count("PauseEvent") == 1


# -- confirmation


async def test_an_act_waits_for_leave_and_is_done_when_it_is_given(runtime: Runtime) -> None:
    script = [terminal("echo one > proof"), terminal("cat proof"), {"text": "done"}]
    id = await runtime.start(script, confirmation_policy=ALWAYS)
    async with runtime.socket(id) as frames:
        await runtime.until(id, WAITING)
        assert not (runtime.folder / "work" / "proof").exists()
        with anyio.fail_after(20):
            while (await frames.until_state())[-1]["value"]["execution_status"] != WAITING:
                pass
        assert await post(runtime, id, "events/respond_to_confirmation", {"accept": True}) == {"success": True}
        await runtime.until(id, WAITING)
    assert len(await runtime.events(id, "ObservationEvent")) == 1
    await post(runtime, id, "run")  # the older client's way to give leave
    await runtime.finish(id)
    assert (await runtime.outputs(id))[-1] == "one"


async def test_a_rejected_act_is_not_done_and_the_agent_is_told(runtime: Runtime, model: ScriptedModel) -> None:
    script = [{"tools": [terminal("touch a"), terminal("touch b")]}, {"text": "as you wish"}]
    id = await runtime.start(script, confirmation_policy=ALWAYS)
    await runtime.until(id, WAITING)
    answer = {"accept": False, "reason": "too risky"}
    assert await post(runtime, id, "events/respond_to_confirmation", answer) == {"success": True}
    assert await runtime.status(id) == "idle"
    rejected = await runtime.events(id, "UserRejectObservation")
    assert [(one["rejection_reason"], one["rejection_source"]) for one in rejected] == [("too risky", "user")] * 2
    actions = await runtime.events(id, "ActionEvent")
    assert [one["action_id"] for one in rejected] == [one["id"] for one in actions]
    await post(runtime, id, "run")
    await runtime.finish(id)
    assert not list((runtime.folder / "work").glob("[ab]"))


async def test_words_are_no_leave(runtime: Runtime) -> None:
    id = await runtime.start([terminal("touch a"), {"text": "never"}], confirmation_policy=ALWAYS)
    await runtime.until(id, WAITING)
    await runtime.say(id, [{"text": "I see."}])
    await runtime.finish(id)
    assert not (runtime.folder / "work" / "a").exists()
    assert len(await runtime.events(id, "UserRejectObservation")) == 1


async def test_only_what_is_risky_waits(runtime: Runtime) -> None:
    script = [
        terminal("echo safe", security_risk="LOW"),
        terminal("echo risky", security_risk="HIGH"),
        {"text": "done"},
    ]
    id = await runtime.start(script, **JUDGED)
    await runtime.until(id, WAITING)
    assert [event["security_risk"] for event in await runtime.events(id, "ActionEvent")] == ["LOW", "HIGH"]
    assert await runtime.outputs(id) == ["safe"]


async def test_what_nobody_judged_waits_unless_it_is_said_otherwise(runtime: Runtime) -> None:
    script = [terminal("echo x", security_risk="LOW"), {"text": "done"}]
    asking = await runtime.start(script, confirmation_policy={"kind": "ConfirmRisky"})
    await runtime.until(asking, WAITING)  # no analyzer: the model's word counts for nothing
    lenient = {"kind": "ConfirmRisky", "confirm_unknown": False}
    await runtime.finish(await runtime.start(script, confirmation_policy=lenient))


async def test_policy_and_analyzer_are_changed_and_shown(runtime: Runtime) -> None:
    id = await runtime.start()
    assert await post(runtime, id, "confirmation_policy", {"policy": ALWAYS}) == {"success": True}
    analyzer = {"kind": "LLMSecurityAnalyzer"}
    assert await post(runtime, id, "security_analyzer", {"security_analyzer": analyzer}) == {"success": True}
    shown = (await runtime.http.get(f"/api/conversations/{id}")).json()
    assert (shown["confirmation_policy"], shown["security_analyzer"]) == (ALWAYS, analyzer)
    await post(runtime, id, "security_analyzer", {"security_analyzer": None})
    assert (await runtime.http.get(f"/api/conversations/{id}")).json()["security_analyzer"] is None
    for what, body in (
        ("confirmation_policy", {"policy": {"kind": "Other"}}),
        ("confirmation_policy", {}),
        ("security_analyzer", {"security_analyzer": {"kind": "GraySwanAnalyzer"}}),
        ("security_analyzer", {}),
        ("events/respond_to_confirmation", {}),
    ):
        await post(runtime, id, what, body, status=422)


async def test_an_act_still_waits_after_a_restart(tmp_path: Path, model: ScriptedModel) -> None:
    script = [terminal("echo after the restart"), {"text": "done"}]
    async with runtime_at(tmp_path, model.base_url) as first:
        id = await first.start(script, confirmation_policy=ALWAYS)
        await first.until(id, WAITING)
    async with runtime_at(tmp_path, model.base_url) as second:
        assert await second.status(id) == WAITING
        await post(second, id, "events/respond_to_confirmation", {"accept": True})
        await second.finish(id)
        assert await second.outputs(id) == ["after the restart"]


async def test_an_act_with_a_hidden_value_is_not_guessed_after_a_restart(tmp_path: Path, model: ScriptedModel) -> None:
    script = [terminal("echo a-very-secret-value > f"), {"text": "done"}]
    async with runtime_at(tmp_path, model.base_url) as first:
        secrets = {"S": "a-very-secret-value"}
        id = await first.start(script, confirmation_policy=ALWAYS, secrets=secrets)
        await first.until(id, WAITING)
    async with runtime_at(tmp_path, model.base_url) as second:
        await post(second, id, "events/respond_to_confirmation", {"accept": True})
        await second.finish(id)
        assert not (tmp_path / "work" / "f").exists()
        (error,) = await second.events(id, "AgentErrorEvent")
        assert "hidden value" in error["error"]


# -- limits


async def test_an_agent_that_repeats_itself_is_stuck(runtime: Runtime) -> None:
    id = await runtime.start([terminal("echo again")] * 10)
    assert await runtime.until(id) == "stuck"
    assert await runtime.outputs(id) == ["again"] * 4
    await runtime.say(id, [{"text": "something else"}])
    await runtime.finish(id)


async def test_an_agent_that_repeats_a_mistake_is_stuck_sooner(runtime: Runtime) -> None:
    id = await runtime.start([{"tool": "terminal", "args": {"bogus": 1}}] * 10)
    assert await runtime.until(id) == "stuck"
    assert len(await runtime.events(id, "AgentErrorEvent")) == 3


async def test_an_agent_that_goes_to_and_fro_is_stuck(runtime: Runtime) -> None:
    id = await runtime.start([terminal("echo to"), terminal("echo fro")] * 5)
    assert await runtime.until(id) == "stuck"
    assert await runtime.outputs(id) == ["to", "fro"] * 3


async def test_repetition_is_allowed_where_it_is_not_looked_for(runtime: Runtime) -> None:
    id = await runtime.start([terminal("echo again")] * 6, stuck_detection=False)
    await runtime.finish(id)
    thresholds = {"stuck_detection_thresholds": {"action_observation": 2}}
    assert await runtime.until(await runtime.start([terminal("echo again")] * 6, **thresholds)) == "stuck"


async def test_a_run_ends_when_it_has_cost_what_it_may(runtime: Runtime) -> None:
    prices = {"input_cost_per_token": 1.0, "output_cost_per_token": 1.0}
    id = await runtime.start([terminal("echo dear"), {"text": "never"}], llm=prices, max_budget_per_run=0.5)
    assert await runtime.until(id) == "error"
    (error,) = await runtime.events(id, "ConversationErrorEvent")
    assert error["code"] == "MaxBudgetReached"


async def test_calls_that_may_overlap_keep_their_order_in_the_log(runtime: Runtime) -> None:
    thoughts = [{"tool": "think", "args": {"thought": str(number)}} for number in range(5)]
    body = runtime.body()
    body["agent"]["tool_concurrency_limit"] = 4
    answer = await runtime.http.post("/api/conversations", json=body)
    id = answer.json()["id"]
    await runtime.say(id, [{"tools": [*thoughts, terminal("echo x")]}, {"text": "done"}])
    await runtime.finish(id)
    actions = await runtime.events(id, "ActionEvent")
    observations = await runtime.events(id, "ObservationEvent")
    assert [one["action_id"] for one in observations] == [one["id"] for one in actions]
