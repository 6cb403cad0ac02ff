"""Agent profiles: named agents that the settings and conversations can be given."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import MODEL_KEY, Runtime, message, runtime_at

pytestmark = pytest.mark.anyio


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with ScriptedModel(required_key=MODEL_KEY) as model, runtime_at(tmp_path, model.base_url) as made:
        yield made


async def saved(runtime: Runtime, name: str = "tidy", **more: Any) -> str:
    """Its id. The model that it names is saved as well."""
    await runtime.http.post("/api/profiles/fast", json={"llm": runtime.llm()})
    body = {"name": name, "llm_profile_ref": "fast", "system_message_suffix": "Be tidy.", **more}
    answer = await runtime.http.post(f"/api/agent-profiles/{name}", json=body)
    assert answer.status_code == 201, answer.text
    id: str = (await runtime.http.get(f"/api/agent-profiles/{name}")).json()["profile"]["id"]
    return id


def start(runtime: Runtime, id: str, **more: Any) -> dict[str, Any]:
    return {"agent_profile_id": id, "workspace": {"working_dir": str(runtime.folder / "work")}, **more}


async def test_a_conversation_is_started_with_a_profile_and_says_so(runtime: Runtime) -> None:
    id = await saved(runtime, tools=[{"name": "terminal"}])
    body = start(runtime, id, initial_message=message([{"text": "done"}]))
    answer = await runtime.http.post("/api/conversations", json=body)
    assert answer.status_code == 201, answer.text
    info = answer.json()
    assert info["launched_agent_profile"] == {
        "agent_profile_id": id,
        "revision": 0,
        "secret_refs": None,
        "llm_profile_ref": "fast",
    }
    assert [tool["name"] for tool in info["agent"]["tools"]] == ["terminal"]
    await runtime.finish(info["id"])
    found = (await runtime.http.get(f"/api/conversations/{info['id']}/events/search")).json()["items"]
    assert "Be tidy." in found[0]["dynamic_context"]["text"]
    assert MODEL_KEY not in answer.text


async def test_what_cannot_be_started_is_refused(runtime: Runtime) -> None:
    id = await saved(runtime)
    agent = runtime.body()["agent"]
    for more in ({"agent": agent}, {"agent_settings": {"llm": runtime.llm()}}):
        assert (await runtime.http.post("/api/conversations", json=start(runtime, id, **more))).status_code == 422
    assert (await runtime.http.post("/api/conversations", json=start(runtime, "x"))).status_code == 422
    unknown = await runtime.http.post("/api/conversations", json=start(runtime, str(uuid4())))
    assert unknown.status_code == 404
    lacking = await saved(runtime, "lacking", mcp_server_refs=["absent"])
    assert (await runtime.http.post("/api/conversations", json=start(runtime, lacking))).status_code == 422
    await runtime.http.delete("/api/profiles/fast")
    refused = await runtime.http.post("/api/conversations", json=start(runtime, id))
    assert refused.status_code == 422
    assert "fast" in refused.text
    forged = {**runtime.body(), "launched_agent_profile": {"agent_profile_id": id}}
    assert (await runtime.http.post("/api/conversations", json=forged)).json()["launched_agent_profile"] is None


async def test_profiles_are_listed_counted_renamed_and_removed(runtime: Runtime) -> None:
    id = await saved(runtime)
    assert await saved(runtime) == id, "the same one, again"
    listed = (await runtime.http.get("/api/agent-profiles")).json()
    assert listed["active_agent_profile_id"] is None
    assert [(one["id"], one["name"], one["revision"]) for one in listed["profiles"]] == [(id, "tidy", 1)]
    await saved(runtime, "other")
    assert (await runtime.http.post("/api/agent-profiles/tidy/rename", json={"new_name": "other"})).status_code == 409
    renamed = await runtime.http.post("/api/agent-profiles/tidy/rename", json={"new_name": "neat"})
    assert (renamed.status_code, renamed.json()["name"]) == (200, "neat")
    assert (await runtime.http.get("/api/agent-profiles/tidy")).status_code == 404
    assert (await runtime.http.get("/api/agent-profiles/neat")).json()["profile"]["id"] == id
    assert (await runtime.http.delete("/api/agent-profiles/neat")).status_code == 200
    assert (await runtime.http.delete("/api/agent-profiles/neat")).status_code == 404


async def test_one_becomes_the_settings(runtime: Runtime) -> None:
    id = await saved(runtime, tool_concurrency_limit=3)
    answer = await runtime.http.post(f"/api/agent-profiles/{id}/activate")
    assert answer.json()["agent_settings_applied"] is True
    settings = (await runtime.http.get("/api/settings")).json()
    assert settings["active_agent_profile_id"] == id
    assert settings["agent_settings"]["tool_concurrency_limit"] == 3
    assert settings["agent_settings"]["llm"]["model"] == runtime.llm()["model"]
    await runtime.http.delete("/api/agent-profiles/tidy")
    assert (await runtime.http.get("/api/settings")).json()["active_agent_profile_id"] is None
    assert (await runtime.http.post(f"/api/agent-profiles/{id}/activate")).status_code == 404


async def test_what_one_would_be_is_shown_without_its_keys(runtime: Runtime) -> None:
    await saved(runtime, mcp_server_refs=["absent"])
    shown = (await runtime.http.post("/api/agent-profiles/tidy/materialize")).json()
    assert (shown["valid"], shown["dangling_mcp_server_refs"], shown["resolved_settings"]) == (False, ["absent"], None)
    await saved(runtime)
    shown = await runtime.http.post("/api/agent-profiles/tidy/materialize")
    assert (shown.json()["valid"], shown.json()["llm_api_key_set"]) == (True, True)
    assert shown.json()["resolved_settings"]["llm"]["api_key"] == "**********"
    assert MODEL_KEY not in shown.text


@pytest.mark.parametrize(
    "more",
    [
        {"secret_refs": ["A"]},
        {"disabled_skills": ["x"]},
        {"meta_profile_ref": "m"},
        {"agent_kind": "acp"},
        {"llm_profile_ref": ""},
        {"unknown": 1},
        {"condenser": {"max_size": 1}},
    ],
)
async def test_what_is_not_honoured_is_not_kept(runtime: Runtime, more: dict[str, Any]) -> None:
    body = {"name": "tidy", "llm_profile_ref": "fast", **more}
    assert (await runtime.http.post("/api/agent-profiles/tidy", json=body)).status_code == 422
    assert (await runtime.http.get("/api/agent-profiles")).json()["profiles"] == []
