"""Profiles, MCP servers in the settings, catalogues and skills against the contract."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import Runtime, runtime_at

pytestmark = pytest.mark.anyio

SAMPLES = Path(__file__).parent.parent / "samples"


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


async def saved(runtime: Runtime, name: str = "fast", **llm: Any) -> None:
    sent = sample("10-profile-save")["request"]["body"]
    sent["llm"] |= llm
    answer = await runtime.http.post(f"/api/profiles/{name}", json=sent)
    assert answer.status_code == 201, answer.text


async def test_a_profile_is_saved_and_shown_as_captured(runtime: Runtime) -> None:
    empty = await runtime.http.get("/api/profiles")
    assert empty.json() == sample("10-profiles")["response"]["body"]
    answer = await runtime.http.post("/api/profiles/fast", json=sample("10-profile-save")["request"]["body"])
    captured = sample("10-profile-save")["response"]
    assert (answer.status_code, answer.json()) == (captured["status"], captured["body"])
    wanted = sample("10-profile-get")["response"]["body"]
    plain = await runtime.http.get("/api/profiles/fast", headers={"X-Expose-Secrets": "plaintext"})
    assert plain.json() == wanted
    hidden = (await runtime.http.get("/api/profiles/fast")).json()
    assert hidden == {**wanted, "config": {**wanted["config"], "api_key": "**********"}}
    sealed = await runtime.http.get("/api/profiles/fast", headers={"X-Expose-Secrets": "encrypted"})
    assert sealed.json()["config"]["api_key"].startswith("gAAAAA")
    (listed,) = (await runtime.http.get("/api/profiles")).json()["profiles"]
    assert (listed["name"], listed["model"], listed["api_key_set"]) == ("fast", "openai/fake", True)
    kept = "".join(path.read_text() for path in (runtime.folder / "persistence").iterdir() if path.is_file())
    assert "sk-fake-key-1" not in kept


async def test_a_profile_that_is_shown_and_sent_back_keeps_its_keys(runtime: Runtime) -> None:
    llm = {"model": "m", "api_key": "key-1", "aws_session_token": "token-1", "extra_headers": {"X-Api-Key": "key-2"}}
    assert (await runtime.http.post("/api/profiles/kept", json={"llm": llm})).status_code == 201
    before = (await runtime.http.get("/api/profiles/kept", headers={"X-Expose-Secrets": "plaintext"})).json()["config"]
    shown = (await runtime.http.get("/api/profiles/kept")).json()["config"]
    shown["model"] = "another"
    assert (await runtime.http.post("/api/profiles/kept", json={"llm": shown})).status_code == 201
    after = (await runtime.http.get("/api/profiles/kept", headers={"X-Expose-Secrets": "plaintext"})).json()["config"]
    assert after == {**before, "model": "another"}
    assert [after["api_key"], after["aws_session_token"]] == ["key-1", "token-1"]
    cleared = {**shown, "api_key": None}
    assert (await runtime.http.post("/api/profiles/kept", json={"llm": cleared})).status_code == 201
    assert (await runtime.http.get("/api/profiles/kept")).json()["api_key_set"] is False


async def test_a_profile_becomes_the_settings(runtime: Runtime) -> None:
    await saved(runtime)
    answer = await runtime.http.post("/api/profiles/fast/activate")
    assert answer.json() == sample("10-profile-activate")["response"]["body"]
    settings = (await runtime.http.get("/api/settings", headers={"X-Expose-Secrets": "plaintext"})).json()
    assert settings["active_profile"] == "fast"
    assert settings["agent_settings"]["llm"]["api_key"] == "sk-fake-key-1"
    await saved(runtime, "slow", model="openai/slow")
    patched = await runtime.http.patch("/api/settings", json={"active_profile": "slow"})
    assert (patched.json()["active_profile"], patched.json()["agent_settings"]["llm"]["model"]) == (
        "slow",
        "openai/slow",
    )
    unknown = await runtime.http.patch("/api/settings", json={"active_profile": "none"})
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Profile 'none' not found"})


async def test_profiles_are_renamed_and_deleted(runtime: Runtime) -> None:
    await saved(runtime)
    await saved(runtime, "other")
    await runtime.http.post("/api/profiles/fast/activate")
    taken = await runtime.http.post("/api/profiles/fast/rename", json={"new_name": "other"})
    assert taken.status_code == 409
    assert (await runtime.http.post("/api/profiles/fast/rename", json={"new_name": "new"})).status_code == 200
    listed = (await runtime.http.get("/api/profiles")).json()
    assert ([one["name"] for one in listed["profiles"]], listed["active_profile"]) == (["new", "other"], "new")
    assert (await runtime.http.delete("/api/profiles/new")).status_code == 200
    assert (await runtime.http.get("/api/profiles")).json()["active_profile"] is None
    for method, path in (("GET", "new"), ("DELETE", "new"), ("POST", "new/activate")):
        assert (await runtime.http.request(method, f"/api/profiles/{path}")).status_code == 404


@pytest.mark.parametrize("name", ["..", "a%2Fb", ".x", "x" * 65, "a b"])
async def test_a_name_that_is_none_is_refused(runtime: Runtime, name: str) -> None:
    sent = sample("10-profile-save")["request"]["body"]
    assert (await runtime.http.post(f"/api/profiles/{name}", json=sent)).status_code in (404, 405, 422)
    assert (await runtime.http.get("/api/profiles")).json()["profiles"] == []


async def test_a_profile_outlives_the_server_and_is_lost_under_another_key(tmp_path: Path) -> None:
    async with runtime_at(tmp_path) as first:
        await saved(first)
    async with runtime_at(tmp_path) as second:
        plain = await second.http.get("/api/profiles/fast", headers={"X-Expose-Secrets": "plaintext"})
        assert plain.json()["config"]["api_key"] == "sk-fake-key-1"
    before = (tmp_path / "persistence" / "profiles.json").read_bytes()
    async with runtime_at(tmp_path, secret_key="another-key-than-before") as other:
        plain = await other.http.get("/api/profiles/fast", headers={"X-Expose-Secrets": "plaintext"})
        assert plain.json()["config"]["api_key"] is None
        assert (await other.http.delete("/api/profiles/fast")).status_code == 409
    assert (tmp_path / "persistence" / "profiles.json").read_bytes() == before


async def test_a_conversation_takes_a_profile_over(runtime: Runtime, model: ScriptedModel) -> None:
    await saved(runtime, **runtime.llm(model="openai/profile"))
    id = await runtime.start([{"text": "one"}])
    await runtime.finish(id)
    path = f"/api/conversations/{id}/switch_profile"
    assert (await runtime.http.post(path, json={"profile_name": "none"})).status_code == 404
    assert (await runtime.http.post(path, json={"profile_name": "fast"})).status_code == 200
    await runtime.say(id, [{"text": "two"}])
    await runtime.finish(id)
    assert model.requests[-1].model == "profile"


async def test_mcp_servers_are_kept_one_by_one(runtime: Runtime) -> None:
    server = {"url": "http://127.0.0.1:1/mcp", "headers": {"Authorization": "Bearer hidden-token"}}
    added = await runtime.http.post("/api/settings/mcp/tools", json=server)
    assert added.status_code == 201
    assert added.json()["agent_settings"]["mcp_config"]["tools"]["headers"] == {"Authorization": "**********"}
    assert (await runtime.http.post("/api/settings/mcp/tools", json=server)).status_code == 409
    changed = await runtime.http.patch("/api/settings/mcp/tools", json={"timeout": 5})
    assert changed.json()["agent_settings"]["mcp_config"]["tools"]["timeout"] == 5
    plain = await runtime.http.get("/api/settings", headers={"X-Expose-Secrets": "plaintext"})
    assert plain.json()["agent_settings"]["mcp_config"]["tools"]["headers"] == server["headers"]
    assert (await runtime.http.patch("/api/settings/mcp/tools", json={"timeout": "x"})).status_code == 422
    assert (await runtime.http.delete("/api/settings/mcp/tools")).json()["agent_settings"]["mcp_config"] == {}
    assert (await runtime.http.patch("/api/settings/mcp/tools", json={})).status_code == 404
    assert (await runtime.http.delete("/api/settings/mcp/tools")).status_code == 404


async def test_there_are_tools_models_and_forms_to_choose_from(runtime: Runtime) -> None:
    names = (await runtime.http.get("/api/tools/")).json()
    assert set(names) <= set(sample("10-tools")["response"]["body"])
    redirect = await runtime.http.get("/api/tools")
    assert redirect.status_code == 307
    catalog = (await runtime.http.get("/api/tools/catalog")).json()["tools"]
    assert [one["name"] for one in catalog] == names
    providers = (await runtime.http.get("/api/llm/providers")).json()["providers"]
    assert {"openai", "anthropic"} <= set(providers)
    models = (await runtime.http.get("/api/llm/models", params={"provider": "anthropic"})).json()["models"]
    assert models
    assert (await runtime.http.get("/api/llm/models", params={"provider": "nobody"})).json() == {"models": []}
    assert (await runtime.http.get("/api/llm/models/verified")).status_code == 200
    for form in ("agent-schema", "conversation-schema"):
        sections = (await runtime.http.get(f"/api/settings/{form}")).json()["sections"]
        fields = {one["key"]: one for section in sections for one in section["fields"]}
        assert all(one["value_type"] for one in fields.values())
        if form == "agent-schema":
            assert (fields["llm.api_key"]["secret"], fields["llm.num_retries"]["value_type"]) == (True, "integer")


# -- skills


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project-with-skills"
    (root / ".openhands" / "microagents").mkdir(parents=True)
    (root / ".agents" / "skills" / "pdf").mkdir(parents=True)
    (root / "AGENTS.md").write_text("Run make test.\n")
    (root / ".openhands" / "microagents" / "docker.md").write_text(
        "---\nname: docker\ntriggers:\n- docker\n- container\n---\nUse compose.\n"
    )
    (root / ".openhands" / "microagents" / "broken.md").write_text("---\nname: [\n---\nx")
    (root / ".openhands" / "microagents" / "huge.md").write_text("x" * 300_000)
    (root / ".openhands" / "microagents" / "out.md").symlink_to("/etc/hostname")
    (root / ".agents" / "skills" / "pdf" / "SKILL.md").write_text("---\nname: pdf\ndescription: Reads PDF\n---\nHow.\n")
    (root / ".agents" / "skills" / "pdf" / "more.md").write_text("material")
    return root


async def test_a_projects_skills_are_found(runtime: Runtime, project: Path) -> None:
    sent = {"load_user": False, "project_dir": str(project)}
    found = (await runtime.http.post("/api/skills", json=sent)).json()
    by_name = {one["name"]: one for one in found["skills"]}
    assert {name: one["type"] for name, one in by_name.items()} == {
        "agents": "repo",
        "docker": "knowledge",
        "pdf": "agentskills",
    }
    assert (by_name["docker"]["triggers"], by_name["docker"]["content"]) == (["docker", "container"], "Use compose.\n")
    assert (by_name["pdf"]["description"], by_name["pdf"]["is_agentskills_format"]) == ("Reads PDF", True)
    assert (found["sources"]["project"], found["sources"]["public"]) == (3, 0)
    nothing = (await runtime.http.post("/api/skills", json={"load_user": False, "project_dir": "/none"})).json()
    assert nothing["skills"] == []
    assert (await runtime.http.post("/api/skills", json={"project_dir": "relative"})).status_code == 400


async def test_skills_reach_the_agent_when_they_are_called_for(runtime: Runtime) -> None:
    body = runtime.body()
    body["agent"]["agent_context"] = {
        "skills": [
            {"name": "always", "content": "Be brief."},
            {"name": "docker", "content": "Use compose.", "trigger": {"type": "keyword", "keywords": ["container"]}},
        ]
    }
    id = (await runtime.http.post("/api/conversations", json=body)).json()["id"]
    for text in ("build it", "now the Container, please", "the container again"):
        await runtime.say(id, text)
        await runtime.finish(id)
    (prompt,) = await runtime.events(id, "SystemPromptEvent")
    assert "Be brief." in prompt["dynamic_context"]["text"]
    assert "Use compose." not in prompt["dynamic_context"]["text"]
    users = [event for event in await runtime.events(id, "MessageEvent") if event["source"] == "user"]
    assert [event["activated_skills"] for event in users] == [[], ["docker"], []]
    assert "Use compose." in users[1]["extended_content"][0]["text"]
    shown = (await runtime.http.get(f"/api/conversations/{id}")).json()
    assert shown["activated_knowledge_skills"] == ["docker"]


async def test_a_projects_skills_reach_the_agent_when_they_are_asked_for(runtime: Runtime, project: Path) -> None:
    given = [{"name": "agents", "content": "Given instead."}, {"name": "extra", "content": "Given as well."}]
    told = {}
    for asked in (True, False):
        context = {"load_project_skills": asked, "skills": given, "disabled_skills": ["pdf"]}
        body = runtime.body()
        body["agent"]["agent_context"] = context
        body["workspace"]["working_dir"] = str(project)
        id = (await runtime.http.post("/api/conversations", json=body)).json()["id"]
        await runtime.say(id, "now the container, please")
        await runtime.finish(id)
        (prompt,) = await runtime.events(id, "SystemPromptEvent")
        message = (await runtime.events(id, "MessageEvent"))[0]
        told[asked] = (prompt["dynamic_context"]["text"], message["activated_skills"])
    text, activated = told[True]
    assert ("Run make test." in text, "Given instead." in text, "Given as well." in text) == (True, False, True)
    assert ("Reads PDF" in text, activated) == (False, ["docker"])
    text, activated = told[False]
    assert ("Run make test." in text, "Given instead." in text, activated) == (False, True, [])


async def test_a_projects_hooks_are_shown_and_not_run(runtime: Runtime, project: Path) -> None:
    path = {"project_dir": str(project)}
    assert (await runtime.http.post("/api/hooks", json=path)).json() == {"hook_config": None}
    file = project / ".openhands" / "hooks.json"
    file.write_text(json.dumps({"hooks": {"PreToolUse": [{"matcher": "terminal", "hooks": [{"command": "true"}]}]}}))
    found = (await runtime.http.post("/api/hooks", json=path)).json()["hook_config"]
    assert found["pre_tool_use"][0]["hooks"][0]["command"] == "true"
    file.write_text("{")
    assert (await runtime.http.post("/api/hooks", json=path)).status_code == 422
