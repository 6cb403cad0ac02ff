"""A conversation that is being removed: to everybody else it is gone, and nothing of it is left."""

import threading
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from orchestrator.demo.model_server import ScriptedModel
from orchestrator.demo.script import Step
from runtime.conversations import population, workspaces
from tests.support.receivers import webhook_receiver
from tests.support.runtimes import Runtime, message, runtime_at, terminal

pytestmark = pytest.mark.anyio


async def until(condition: Any, seconds: float = 60) -> None:
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.02)


async def test_what_comes_while_one_is_removed_finds_nothing_and_changes_nothing(
    tmp_path: Path, model: ScriptedModel
) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    waits = f"touch {begun}; until [ -e {go} ]; do sleep 0.02; done"
    hooks = {"session_end": [{"hooks": [{"type": "command", "command": waits, "timeout": 100}]}]}
    with webhook_receiver() as receiver:
        entry = {"base_url": receiver.url, "event_buffer_size": 1}
        async with runtime_at(tmp_path, model.base_url, webhooks=[entry]) as runtime:
            id = await runtime.start([terminal("sleep 100"), {"text": "never"}], hook_config=hooks)
            await runtime.until(id, "running")
            path = f"/api/conversations/{id}"
            removed: list[httpx.Response] = []

            async def remove() -> None:
                removed.append(await runtime.http.delete(path))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(remove)
                await until(begun.exists)
                for method, rest, body in (
                    ("POST", "/run", None),
                    ("POST", "/events", {**message("late"), "run": True}),
                    ("POST", "/goal", {"objective": "late"}),
                    ("POST", "/secrets", {"secrets": {"A": "a-late-value"}}),
                    ("PATCH", "", {"title": "late"}),
                    ("POST", "/fork", {}),
                    ("GET", "/events/search", None),
                ):
                    answer = await runtime.http.request(method, path + rest, json=body)
                    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"}), (method, rest)
                go.touch()
            assert removed[0].json() == {"success": True}
            assert (await runtime.http.get(path)).status_code == 404
            await until(lambda: "deleting" in receiver.statuses(id))
            left = {one.name for one in (tmp_path / "conversations").iterdir()}
            assert left <= {".owners", ".webhooks"}


async def test_a_removal_does_not_wait_for_ever_for_who_is_at_it(
    runtime: Runtime, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(population, "_ENDING_SECONDS", 0.1)
    id = await runtime.start([{"text": "one"}])
    await runtime.finish(id)
    model.asides.append(Step(text="an answer", sleep=1.5))
    asked = len(model.requests)
    answers: list[httpx.Response] = []

    async def ask() -> None:
        answers.append(await runtime.http.post(f"/api/conversations/{id}/ask_agent", json={"question": "?"}))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await until(lambda: len(model.requests) > asked)
        assert (await runtime.http.delete(f"/api/conversations/{id}")).json() == {"success": True}
        assert not answers
    assert (answers[0].status_code, answers[0].json()) == (404, {"detail": "Not Found"})
    assert [one.name for one in (runtime.folder / "conversations").iterdir()] == [".owners"]


async def test_two_never_make_their_directories_at_once(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be the same new one: git in it would find half of what the other makes."""
    inside: list[int] = []
    most = 0

    def make(directory: Path, environment: object) -> None:
        nonlocal most
        inside.append(1)
        most = max(most, len(inside))
        threading.Event().wait(0.2)
        inside.pop()

    monkeypatch.setattr(workspaces, "ensure_repository", make)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(runtime.start)
    assert most == 1
