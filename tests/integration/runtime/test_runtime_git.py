"""The older body clones a private repository and the agent pushes to it; the token is nowhere but in git's hands."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.demo.git_server import GitServer
from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import MODEL_KEY, Runtime, runtime_at, terminal

pytestmark = pytest.mark.anyio

TOKEN = "ghp_token_of_the_git_test_0123456789"


@dataclass
class Place:
    runtime: Runtime
    git: GitServer

    async def configure(self, token: str = TOKEN) -> None:
        """As an orchestrator does: settings, providers, secrets."""
        http = self.runtime.http
        flat = {"llm_model": "openai/scripted", "llm_api_key": MODEL_KEY, "llm_base_url": self.runtime.model_url}
        more = {"agent": "CodeActAgent", "git_user_name": "Ada", "git_user_email": "ada@example.org"}
        assert (await http.post("/api/settings", json={**flat, **more})).status_code == 200
        providers = {"provider_tokens": {"github": {"token": token, "host": self.git.origin}}}
        assert (await http.post("/api/add-git-providers", json=providers)).status_code == 200
        body = {"secrets": {"DEPLOY_KEY": "value-of-deploy-key"}}
        assert (await http.post("/api/secrets", json=body)).status_code == 200

    async def create(self, script: list[Any] | None = None, **more: Any) -> Any:
        if script is not None:
            more["initial_user_msg"] = f"SCRIPT:{json.dumps(script)}"
        return await self.runtime.http.post("/api/conversations", json=more)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with (
        ScriptedModel(required_key=MODEL_KEY) as model,
        GitServer(tmp_path / "git") as git,
        runtime_at(tmp_path, model.base_url, allow_set_conversation_id=True) as runtime,
    ):
        await git.create_repository("acme/app", token=TOKEN, files={"README.md": "# app\n"})
        yield Place(runtime, git)


async def test_clone_commit_and_push(place: Place) -> None:
    await place.configure()
    script = [
        terminal("cd app; pwd; cat README.md; git config user.name; git remote -v; git config --get-regexp credential"),
        terminal(
            "git checkout -q -b change && echo more >> README.md && git commit -qam 'more' && git push -q origin change"
        ),
        terminal("printf 'protocol=http\\nhost=127.0.0.1\\n\\n' | git credential fill; echo $?"),
        terminal('echo "$DEPLOY_KEY $GITHUB_TOKEN"; env | grep -c -e value-of -e ghp_'),
        terminal("env; git config --list; cat .git/config"),
        {"text": "Pushed."},
    ]
    answer = await place.create(script, repository="acme/app", selected_branch="main")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    id = body.pop("conversation_id")
    assert body == {"status": "ok", "message": None, "conversation_status": "STARTING"}
    assert len(id) == 32
    await place.runtime.finish(id)
    outputs = await place.runtime.outputs(id)
    folder = place.runtime.folder / "project" / "app"
    assert outputs[0].startswith(f"{folder}\n# app\nAda\norigin\t{place.git.url('acme/app')}")
    assert "change" in await place.git.branches("acme/app")
    assert await place.git.read("acme/app", "change", "README.md") == "# app\nmore\n"
    [commit, *_] = await place.git.commits("acme/app", "change")
    assert "Ada" in str(commit)
    assert "password" not in outputs[2]
    assert outputs[3] == "<secret-hidden> <secret-hidden>\n2"
    assert TOKEN not in json.dumps(await place.runtime.events(id))
    assert TOKEN not in (folder / ".git" / "config").read_text()
    assert "github" not in (folder / ".git" / "config").read_text()
    info = (await place.runtime.http.get(f"/api/conversations/{id}")).json()
    assert info["runtime_status"] == "STATUS$READY"
    assert info["conversation_id"] == id


async def test_a_changed_token_counts_at_once(place: Place) -> None:
    await place.configure()
    id = (await place.create(repository="acme/app")).json()["conversation_id"]
    place.git.grant("acme/app", "another-token-0123456789")
    place.git.revoke("acme/app", TOKEN)
    await place.runtime.say(id, [terminal("git -C app fetch -q origin; echo $?")])
    await place.runtime.finish(id)
    assert (await place.runtime.outputs(id))[-1] != "0"
    await place.configure("another-token-0123456789")
    await place.runtime.say(id, [terminal("git -C app fetch -q origin; echo $?")])
    await place.runtime.finish(id)
    assert (await place.runtime.outputs(id))[-1] == "0"


async def test_failures_say_what_is_wrong_and_leave_nothing(place: Place) -> None:
    refused = await place.create(repository="acme/app")
    assert refused.status_code == 400
    assert refused.json()["msg_id"] == "CONFIGURATION$SETTINGS_NOT_FOUND"
    await place.configure("wrong-token-0123456789")
    refused = await place.create(repository="acme/app")
    assert refused.json()["msg_id"] == "STATUS$ERROR_GIT_PROVIDER_AUTHENTICATION"
    assert "wrong-token" not in refused.text
    await place.configure()
    for body in ({"repository": "acme/absent"}, {"repository": "acme/app", "selected_branch": "absent"}):
        refused = await place.create(**body)
        assert refused.status_code == 400
        assert refused.json()["status"] == "error"
        assert refused.json()["msg_id"].startswith("STATUS$ERROR_")
    assert (await place.runtime.http.get("/api/conversations/count")).json() == 0
    assert list((place.runtime.folder / "project").iterdir()) == []


async def test_what_is_asked_wrongly_is_a_validation_error(place: Place) -> None:
    await place.configure()
    two = {"github": {"token": TOKEN}, "gitlab": {"token": "x"}}
    assert (await place.runtime.http.post("/api/add-git-providers", json={"provider_tokens": two})).status_code == 200
    for body in (
        {"repository": "acme/app"},
        {"repository": "https://x:y@127.0.0.1/acme/app"},
        {"repository": "acme/app", "git_provider": "github", "selected_branch": "--upload-pack=x"},
        {"unknown": 1},
        {"conversation_id": "no-id"},
    ):
        answer = await place.create(**body)
        assert answer.status_code == 422, body
        assert isinstance(answer.json()["detail"], list)


async def test_creating_with_an_id_again_has_no_effect(place: Place) -> None:
    await place.configure()
    id = uuid4().hex
    for _ in range(2):
        answer = await place.create([{"text": "once"}], conversation_id=id, repository="acme/app")
        assert (answer.status_code, answer.json()["conversation_id"]) == (200, id)
    await place.runtime.finish(id)
    assert len(await place.runtime.events(id, "MessageEvent")) == 2


async def test_the_older_forms_of_messages_and_events(place: Place) -> None:
    await place.configure()
    id = (await place.create()).json()["conversation_id"]
    http = place.runtime.http
    action = {"action": "message", "args": {"content": 'SCRIPT:[{"text":"one"}]'}}
    assert (await http.post(f"/api/conversations/{id}/events", json=action)).json() == {"success": True}
    await place.runtime.finish(id)
    answer = await http.post(f"/api/conversations/{id}/message", json={"message": 'SCRIPT:[{"text":"two"}]'})
    assert answer.json() == {"success": True}
    await place.runtime.finish(id)
    page = (await http.get(f"/api/conversations/{id}/events", params={"limit": 4})).json()
    assert (len(page["events"]), page["has_more"]) == (4, True)
    stored = await place.runtime.events(id)
    assert page["events"] == stored[:4]
    newest = (await http.get(f"/api/conversations/{id}/events", params={"limit": 2, "reverse": True})).json()
    assert newest["events"] == stored[:-3:-1]
    rest = (await http.get(f"/api/conversations/{id}/events", params={"start_id": 3, "end_id": 5})).json()
    assert rest == {"events": stored[3:6], "has_more": False}
    assert (await http.get(f"/api/conversations/{id}/events", params={"limit": 101})).json() == {
        "detail": "Invalid limit"
    }
    ids = json.dumps([stored[1]["id"], "absent"])
    by_id = (await http.request("GET", f"/api/conversations/{id}/events", content=ids)).json()
    assert by_id[1] is None
    assert by_id[0]["id"] == stored[1]["id"]
    assert "parent_id" in by_id[0]


async def test_ids_are_refused_where_they_may_not_be_set(tmp_path: Path) -> None:
    async with runtime_at(tmp_path) as runtime:
        answer = await runtime.http.post("/api/conversations", json={"conversation_id": uuid4().hex})
        assert answer.status_code == 422
