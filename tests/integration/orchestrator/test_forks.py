"""A fork has what its source had, in a runtime of its own, and goes on by itself; its source stays as it is."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.answers import watched
from support.orchestrators import Nestor, nestor_at

from orchestrator.demo.model_server import ScriptedModel
from orchestrator.domain.ids import new_uuid
from orchestrator.drivers.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio
READY = {"wait": "ready", "timeout": 120}


@pytest.fixture
async def nestor(data_dir: Path) -> AsyncIterator[Nestor]:
    async with nestor_at(data_dir, None, driver="process", zygote="off") as running:
        yield running


async def owner(nestor: Nestor, model: ScriptedModel) -> str:
    _, key = await nestor.tenant()
    llm = {"model": "openai/scripted", "api_key": "sk-model-key-of-the-tests", "base_url": model.base_url}
    await nestor.call("PATCH", "/api/v2/settings", key, json={"agent_settings": {"llm": llm}}, status=200)
    return key


def command(text: str) -> dict[str, Any]:
    return {"tool": "terminal", "args": {"command": text}}


async def events(nestor: Nestor, key: str, id: str) -> list[dict[str, Any]]:
    found = await nestor.call("GET", f"/api/v2/conversations/{id}/events", key, status=200)
    return [without_nulls(one) for one in found["items"]]


def without_nulls(value: Any) -> Any:
    """What a runtime sends by itself has fields that its log leaves out."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


async def said(nestor: Nestor, key: str, id: str, *steps: dict[str, Any], last: str) -> list[dict[str, Any]]:
    """What the log holds when the agent has said its last word to this message."""
    content = "SCRIPT:" + json.dumps([*steps, {"text": last}])
    await nestor.call("POST", f"/api/v2/conversations/{id}/messages", key, json={"content": content}, status=202)
    with anyio.fail_after(90):
        while True:
            found = await events(nestor, key, id)
            if has_said(found, last) and at_rest(found):
                return found
            await anyio.sleep(0.05)


def has_said(found: Sequence[dict[str, Any]], text: str) -> bool:
    own = [
        one["event"] for one in found if one["event"]["kind"] == "MessageEvent" and one["event"]["source"] == "agent"
    ]
    return any(part["text"] == text for event in own for part in event["llm_message"]["content"])


def at_rest(found: Sequence[dict[str, Any]]) -> bool:
    states = [one["event"]["value"] for one in found if one["event"].get("key") == "execution_status"]
    return bool(states) and states[-1] == "finished"


async def fork(nestor: Nestor, key: str, of: str, **body: Any) -> dict[str, Any]:
    path = f"/api/v2/conversations/{of}/fork"
    return dict(await nestor.call("POST", path, key, json=body, params=READY, status=200))


async def file(nestor: Nestor, key: str, id: str, path: str) -> str | None:
    found = await nestor.http.get(f"/api/v2/conversations/{id}/files/{path}", headers=nestor.as_(key), timeout=60)
    return found.text if found.status_code == 200 else None


async def test_it_goes_on_by_itself_with_log_and_workspace(nestor: Nestor) -> None:
    async with ScriptedModel() as model:
        key = await owner(nestor, model)
        secret = {"secrets": {"MINE": "of the request"}, "title": "first"}
        first = await nestor.call("POST", "/api/v2/conversations", key, json=secret, params=READY, status=200)
        id = str(first["id"])
        work = (
            "mkdir -p src/deep && echo one > src/deep/file && chmod 750 src/deep/file && git add -A . && "
            "git -c user.name=a -c user.email=a@b commit -qm one; ln -s src/deep/file inside; "
            'ln -s "$PWD/src" whole; ln -s /etc/hostname outside; mkfifo pipe'
        )
        before = await said(nestor, key, id, command(work), last="written")

        made = await fork(nestor, key, id, labels={"of": "first"})
        assert (made["phase"], made["title"], made["labels"]) == ("ready", "first", {"of": "first"})
        assert made["fork_of"] == {"conversation": id, "at": len(before), "workspace": "current", "snapshot": None}
        assert made["runtime"]["id"] != first["runtime"]["id"]
        other = str(made["id"])
        assert await events(nestor, key, other) == before

        look = "cat inside whole/deep/file; stat -c %a src/deep/file; readlink whole outside; ls; git log --format=%s; "
        look += "git status --short; echo $MINE; echo two > src/deep/file"
        after = await said(nestor, key, other, command(look), last="changed")
        assert after[: len(before)] == before
        output = json.dumps(
            [one["event"]["observation"] for one in after[len(before) :] if "observation" in one["event"]]
        )
        for part in ("one\\none\\n750\\nsrc\\n/etc/hostname", "\\none\\n"):
            assert part in output, output
        assert "pipe" not in output
        assert " M " not in output
        assert await file(nestor, key, other, "src/deep/file") == "two\n"
        assert await file(nestor, key, id, "src/deep/file") == "one\n"
        assert await events(nestor, key, id) == before

        early = next(int(one["sequence"]) for one in before if one["event"]["kind"] == "ActionEvent")
        third = await fork(nestor, key, id, at=early, title="early", id=new_uuid())
        assert third["fork_of"] == {"conversation": id, "at": early, "workspace": "event", "snapshot": None}
        assert third["title"] == "early"
        cut = await events(nestor, key, third["id"])
        assert cut[:early] == before[:early]
        broken_off = ["AgentErrorEvent", "ConversationErrorEvent", "ConversationStateUpdateEvent"]
        assert [one["event"]["kind"] for one in cut[early:]] == broken_off  # its log ends within a run
        assert await file(nestor, key, third["id"], "src/deep/file") is None  # the act was still to come

        await nestor.call("POST", f"/api/v2/conversations/{other}/stop", key, status=202)
        await nestor.until(key, other, "stopped", seconds=60)
        path = f"/api/v2/conversations/{other}/start"
        again = await nestor.call("POST", path, key, params=READY, status=200)
        assert again["phase"] == "ready", again
        assert await file(nestor, key, other, "src/deep/file") == "two\n"  # nothing is copied once more


async def test_what_cannot_be_forked_is_refused_and_a_repeat_joins(nestor: Nestor) -> None:
    async with ScriptedModel() as model:
        watch = await watched(nestor)
        key, foreign = await owner(nestor, model), await nestor.ready_tenant("other")
        id = str((await nestor.call("POST", "/api/v2/conversations", key, json={}, params=READY, status=200))["id"])
        path = f"/api/v2/conversations/{id}/fork"

        async def refused(status: int, word: str, own: str = key, **body: Any) -> None:
            answer = await nestor.http.post(path, headers=nestor.as_(own), json=body, timeout=90)
            assert (answer.status_code, word in answer.text) == (status, True), answer.text

        await refused(404, "no such conversation", foreign)
        await refused(422, "at", at=1)  # nothing was said yet
        await refused(422, "at", at=-1)
        await refused(409, "another conversation has this id", id=id)
        headers = {"Idempotency-Key": "again"}
        made = [await nestor.call("POST", path, key, json={}, headers=headers, status=202) for _ in range(2)]
        made.append(await nestor.call("POST", path, key, json={"id": made[0]["id"]}, status=202))
        assert len({one["operation"] for one in made}) == 1
        other = str(made[0]["id"])
        await nestor.until(key, other, "ready", seconds=120)
        assert await events(nestor, key, other) == []
        await nestor.call("POST", path, key, json={"id": other}, params=READY, status=200)
        assert {call for call in watch.calls if call[1].endswith("/fork")} <= watch.seen
        await refused(409, "another conversation has this id", id=other, at=7)

        content = "SCRIPT:" + json.dumps([command("touch begun; sleep 300"), {"text": "never"}])
        await nestor.call("POST", f"/api/v2/conversations/{id}/messages", key, json={"content": content}, status=202)
        with anyio.fail_after(60):
            while await file(nestor, key, id, "begun") is None:
                await anyio.sleep(0.05)
        await refused(409, "is at work")
        await nestor.call("POST", f"/api/v2/conversations/{id}/stop", key, status=202)
        await nestor.until(key, id, "stopped", seconds=60)
        await refused(409, "/start first")


async def test_an_agent_server_that_gives_no_copies_is_told_of(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine) as nestor:
        key = await nestor.ready_tenant()
        made = await nestor.call("POST", "/api/v2/conversations", key, json={}, params=READY, status=200)
        path = f"/api/v2/conversations/{made['id']}/fork"
        refused = await nestor.call("POST", path, key, json={}, status=409)
        assert "gives no copies" in refused["detail"]
