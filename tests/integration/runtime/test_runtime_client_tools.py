"""Tools that the client defines: told as an event, answered by a message, checked against the client's own schema."""

from pathlib import Path

import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import Runtime, runtime_at

pytestmark = pytest.mark.anyio

ASK = {
    "name": "ask_user",
    "description": "Ask the user.",
    "parameters": {
        "type": "object",
        "properties": {"q": {"type": "string"}, "summary": {"type": "string"}, "kind": {"type": "integer"}},
        "required": ["q"],
    },
}


async def test_a_clients_tool_is_called_and_told(tmp_path: Path, model: ScriptedModel) -> None:
    script = [
        {"tool": "ask_user", "args": {"q": "hi?", "summary": "mine"}},
        {"tool": "ask_user", "args": {"q": 1}},
        {"tool": "ask_user", "args": {}},
        {"text": "waiting"},
    ]
    async with runtime_at(tmp_path, model.base_url) as runtime:
        id = await runtime.start(script, client_tools=[ASK])
        await runtime.finish(id)
        assert "ask_user" in model.requests[-1].tools
        actions = await runtime.events(id, "ActionEvent")
        assert actions[0]["action"] == {"q": "hi?", "summary": "mine", "kind": "ClientAction_ask_user"}
        assert "action" not in actions[1]
        (observation,) = await runtime.observations(id)
        assert observation == {
            "content": [{"cache_prompt": False, "type": "text", "text": "Tool call dispatched to client."}],
            "is_error": False,
            "kind": "ClientToolObservation",
        }
        wrong = [event["error"] for event in await runtime.events(id, "AgentErrorEvent")]
        assert ["q: 1 is not of type 'string'" in wrong[0], "'q' is a required property" in wrong[1]] == [True, True]
        await check_prompt(runtime, id)
    async with runtime_at(tmp_path, model.base_url) as again:
        await again.say(id, [{"tool": "ask_user", "args": {"q": "again?"}}, {"text": "done"}])
        await again.finish(id)
        assert len(await again.observations(id)) == 2, "the tool is there after a restart"
        shown = (await again.http.get(f"/api/conversations/{id}")).json()
        assert shown["client_tools"] == [ASK]


async def check_prompt(runtime: Runtime, id: str) -> None:
    (prompt,) = await runtime.events(id, "SystemPromptEvent")
    tool = next(one for one in prompt["tools"] if one["kind"] == "ClientTool")
    assert (tool["client_tool_name"], tool["input_schema"]) == ("ask_user", ASK["parameters"])
    whole = (await runtime.http.get(f"/api/conversations/{id}/events/{prompt['id']}")).json()
    others = [one for one in whole["tools"] if one["kind"] != "ClientTool"]
    assert all("client_tool_name" not in one for one in others)
