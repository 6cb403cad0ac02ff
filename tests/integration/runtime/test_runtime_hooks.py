"""Hooks of a conversation: real commands that see what is to be done, and may hold it back."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import KEY, MODEL_KEY, SECRET_KEY, Runtime, runtime_at, terminal

pytestmark = pytest.mark.anyio

DENY = 'echo {\\"decision\\":\\"deny\\",\\"reason\\":\\"no\\"}; exit 2'


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with ScriptedModel(required_key=MODEL_KEY) as model, runtime_at(tmp_path, model.base_url) as made:
        yield made


def hooks(point: str, command: str, matcher: str = "*", **more: Any) -> dict[str, Any]:
    return {"hook_config": {point: [{"matcher": matcher, "hooks": [{"command": command, **more}]}]}}


async def told(runtime: Runtime, id: str) -> list[dict[str, Any]]:
    return await runtime.events(id, "HookExecutionEvent")


async def test_a_hook_that_denies_keeps_the_tool_from_running(runtime: Runtime) -> None:
    id = await runtime.start([terminal("touch made"), {"text": "done"}], **hooks("pre_tool_use", DENY, "terminal"))
    await runtime.finish(id)
    assert not (runtime.folder / "work" / "made").exists()
    (event,) = await told(runtime, id)
    assert (event["hook_event_type"], event["success"], event["blocked"], event["exit_code"], event["reason"]) == (
        *("PreToolUse", False, True, 2, "no"),
    )
    assert event["hook_input"]["tool_input"]["command"] == "touch made"
    (rejected,) = await runtime.events(id, "UserRejectObservation")
    assert (rejected["rejection_reason"], rejected["rejection_source"]) == ("no", "hook")
    assert rejected["action_id"] == event["action_id"]


@pytest.mark.parametrize(
    ("command", "runs"),
    [("exit 1", True), ('echo \'{"decision": "deny"}\'', False), ("echo no json", True), ("exit 2", False)],
)
async def test_only_a_denial_blocks(runtime: Runtime, command: str, runs: bool) -> None:
    id = await runtime.start([terminal("touch made"), {"text": "done"}], **hooks("pre_tool_use", command))
    await runtime.finish(id)
    assert (runtime.folder / "work" / "made").exists() is runs


async def test_a_matcher_chooses_the_tool(runtime: Runtime) -> None:
    script = [terminal("touch made"), {"tool": "think", "args": {"thought": "x"}}, {"text": "done"}]
    id = await runtime.start(script, **hooks("pre_tool_use", "exit 2", "/file_.*|think/"))
    await runtime.finish(id)
    assert [event["tool_name"] for event in await told(runtime, id)] == ["think"]
    assert (runtime.folder / "work" / "made").exists()


async def test_a_guard_whose_matcher_is_no_expression_guards_every_tool(runtime: Runtime) -> None:
    id = await runtime.start([terminal("touch made"), {"text": "done"}], **hooks("pre_tool_use", "exit 2", "term("))
    await runtime.finish(id)
    assert not (runtime.folder / "work" / "made").exists()


async def test_a_hook_sees_the_act_and_nothing_of_the_server(runtime: Runtime) -> None:
    command = "cat > seen; env > environment; echo $OPENHANDS_TOOL_NAME"
    id = await runtime.start([terminal("echo hi"), {"text": "done"}], **hooks("post_tool_use", command))
    await runtime.finish(id)
    seen = json.loads((runtime.folder / "work" / "seen").read_text())
    assert (seen["event_type"], seen["tool_name"], seen["session_id"]) == ("PostToolUse", "terminal", id)
    assert seen["tool_response"]["content"][0]["text"] == "hi"
    environment = (runtime.folder / "work" / "environment").read_text()
    assert [value for value in (KEY, SECRET_KEY, MODEL_KEY) if value in environment] == []
    assert (await told(runtime, id))[0]["stdout"] == "terminal\n"


async def test_a_hook_that_takes_too_long_is_ended_and_blocks_nothing(runtime: Runtime) -> None:
    slow = hooks("pre_tool_use", "sleep 1000 & sleep 1000", timeout=1)
    id = await runtime.start([terminal("touch made"), {"text": "done"}], **slow)
    await runtime.finish(id)
    (event,) = await told(runtime, id)
    assert (event["success"], event["blocked"], event["error"]) == (False, False, "not done after 1 seconds")
    assert (runtime.folder / "work" / "made").exists()


async def test_a_message_that_a_hook_blocks_is_not_answered(runtime: Runtime) -> None:
    id = await runtime.start(**hooks("user_prompt_submit", "grep -q forbidden && exit 2; exit 0"))
    await runtime.say(id, "this is forbidden")
    assert await runtime.status(id) == "idle"
    shown = (await runtime.http.get(f"/api/conversations/{id}")).json()
    (message,) = await runtime.events(id, "MessageEvent")
    assert list(shown["blocked_messages"]) == [message["id"]]
    await runtime.say(id, [{"text": "fine"}])
    await runtime.finish(id)


async def test_a_hook_adds_to_what_the_user_says(runtime: Runtime) -> None:
    command = 'echo \'{"additionalContext": "It is Monday."}\''
    id = await runtime.start([{"text": "done"}], **hooks("user_prompt_submit", command))
    await runtime.finish(id)
    message = (await runtime.events(id, "MessageEvent"))[0]
    assert [part["text"] for part in message["extended_content"]] == ["It is Monday."]


@pytest.mark.parametrize(
    "says",
    [
        "echo not tested yet >&2; exit 2",
        """echo '{"decision": "deny", "additionalContext": "not tested yet"}'; exit 2""",
        """echo '{"decision": "deny", "reason": "no", "additionalContext": "not tested yet"}'""",
    ],
)
async def test_a_stop_hook_sends_the_agent_back_to_work(runtime: Runtime, says: str) -> None:
    once = f"test -e again && exit 0; touch again; {says}"
    id = await runtime.start([{"text": "done"}, {"text": "really done"}], **hooks("stop", once))
    await runtime.finish(id)
    messages = await runtime.events(id, "MessageEvent")
    assert [event["source"] for event in messages] == ["user", "agent", "environment", "agent"]
    assert "not tested yet" in messages[2]["llm_message"]["content"][0]["text"]


async def test_beginning_and_end_of_the_session_are_told_once(runtime: Runtime) -> None:
    config = {
        "hook_config": {
            "session_start": [{"hooks": [{"command": "echo start >> sessions"}]}],
            "session_end": [{"hooks": [{"command": "echo end >> sessions"}]}],
        }
    }
    id = await runtime.start([{"text": "one"}], **config)
    await runtime.finish(id)
    await runtime.say(id, [{"text": "two"}])
    await runtime.finish(id)
    assert (await runtime.http.delete(f"/api/conversations/{id}")).status_code == 200
    assert (runtime.folder / "work" / "sessions").read_text() == "start\nend\n"


async def test_a_hook_in_the_background_makes_nobody_wait(runtime: Runtime) -> None:
    hook = hooks("pre_tool_use", "while [ ! -e made ]; do sleep 0.05; done", **{"async": True})
    id = await runtime.start([terminal("touch made"), {"text": "done"}], **hook)
    await runtime.finish(id)
    with anyio.fail_after(20):
        while not await told(runtime, id):
            await anyio.sleep(0.05)
    shown = (await runtime.http.get(f"/api/conversations/{id}")).json()
    assert shown["hook_config"]["pre_tool_use"][0]["hooks"][0]["async"] is True


async def test_a_client_that_reads_the_state_from_its_socket_knows_the_hooks(runtime: Runtime) -> None:
    id = await runtime.start(**hooks("stop", "true"))
    async with runtime.socket(id) as frames:
        (state,) = await frames.until_state()
    shown = (await runtime.http.get(f"/api/conversations/{id}")).json()["hook_config"]
    assert state["value"]["hook_config"]["stop"][0]["hooks"][0]["command"] == "true"
    assert set(state["value"]["hook_config"]) == set(shown)
