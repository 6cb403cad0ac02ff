"""Versions of a conversation's workspace are taken beside the run, and each is there before the next act."""

import asyncio
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
from support.runtimes import Runtime, runtime_at, terminal

from orchestrator.demo.model_server import ScriptedModel

pytestmark = pytest.mark.anyio
THINK = {"tool": "think", "args": {"thought": "hm"}}


async def began(runtime: Runtime) -> str:
    """A conversation that works where an orchestrator's do; its id."""
    diff = {"agent_settings_diff": {"llm": runtime.llm()}}
    assert (await runtime.http.post("/api/settings", json={"llm_model": "openai/scripted"})).is_success
    assert (await runtime.http.patch("/api/settings", json=diff)).is_success
    made = await runtime.http.post("/api/conversations", json={"initial_user_msg": None})
    assert made.is_success, made.text
    return str(made.json()["conversation_id"])


async def said(runtime: Runtime, id: str, *steps: Any) -> list[dict[str, Any]]:
    """The log at the end of a turn."""
    await runtime.say(id, [*steps, {"text": "done"}])
    await runtime.finish(id)
    return await runtime.events(id)


def numbers(events: Sequence[dict[str, Any]], kind: str) -> list[int]:
    return [number for number, event in enumerate(events, 1) if event["kind"] == kind]


def place(runtime: Runtime, id: str) -> Path:
    return runtime.folder / "conversations" / UUID(id).hex / "versions"


async def given(runtime: Runtime, id: str, number: int) -> dict[str, str] | int:
    """The files of the workspace at an event, or the status of the refusal."""
    query: dict[str, Any] = {"events": number, "workspace": "event"}
    found = await runtime.http.get(f"/api/conversations/{id}/copy/archive", params=query)
    if found.status_code != 200:
        return found.status_code
    assert found.headers["x-nestor-workspace"] == "event"
    files: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(found.content)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            name = member.name.removeprefix("workspace/")
            if file is not None and member.name.startswith("workspace/") and not name.startswith(".git/"):
                files[name] = file.read().decode()
        assert archive.getmembers()[-1].name == "end"
    return files


async def offered(runtime: Runtime, id: str, number: int | None) -> str:
    query = {} if number is None else {"events": number}
    return str((await runtime.http.get(f"/api/conversations/{id}/copy", params=query)).json()["workspace"])


async def test_each_event_has_the_workspace_after_the_last_act_before_it(runtime: Runtime) -> None:
    id = await began(runtime)
    (runtime.folder / "project" / "brought").write_text("before")
    first = await said(runtime, id, terminal("echo one > f"), THINK, terminal("echo two > f; rm brought"))
    edited = await runtime.http.put(f"/api/conversations/{id}/files/f", content=b"by hand")
    assert edited.is_success
    await runtime.http.put(f"/api/conversations/{id}/files/new", content=b"new")
    both = [{"tools": [terminal("echo three > f"), terminal("echo four > f")]}]
    second = await said(runtime, id, *both)
    acts, ends = numbers(second, "ActionEvent"), numbers(second, "ObservationEvent")
    assert (len(acts), len(ends)) == (5, 5)
    begun: dict[str, str] = {"brought": "before"}
    after_one, after_two = {"brought": "before", "f": "one\n"}, {"f": "two\n"}
    by_hand = {"f": "by hand", "new": "new"}
    wanted = dict.fromkeys(range(ends[0]), begun)
    wanted |= dict.fromkeys(range(ends[0], ends[2]), after_one)
    wanted |= dict.fromkeys(range(ends[2], len(first) + 1), after_two)
    wanted |= dict.fromkeys(range(len(first) + 1, ends[3]), by_hand)
    wanted |= {ends[3]: {**by_hand, "f": "three\n"}}
    wanted |= {number: {**by_hand, "f": "four\n"} for number in range(ends[4], len(second) + 1)}
    for number, files in wanted.items():
        assert await given(runtime, id, number) == files, number
        assert await offered(runtime, id, number) == ("event" if number < len(second) else "current")
    assert await offered(runtime, id, None) == "current"
    await said(runtime, id, THINK)
    taken = len(list((place(runtime, id) / "at").iterdir()))
    await said(runtime, id, terminal("true"), THINK, terminal("cat f"))
    assert len(list((place(runtime, id) / "at").iterdir())) == taken == 6  # nothing was changed any more


async def test_the_model_is_asked_meanwhile_and_the_next_act_waits(runtime: Runtime, model: ScriptedModel) -> None:
    id = await began(runtime)
    await said(runtime, id)  # the library for models is imported by now
    for number in range(100):
        (runtime.folder / "project" / f"large{number}").write_bytes(os.urandom(1_200_000))
    at, asked = place(runtime, id) / "at", len(model.requests)
    look = terminal(f"ls {at} | wc -l > $(mktemp -p . seen.XXXX)")
    await runtime.say(id, [look, look, {"text": "done"}])
    with anyio.fail_after(30):
        while len(model.requests) == asked:
            await asyncio.sleep(0.002)
    assert len(list(at.iterdir())) == 1  # it was asked although there is no version of this run yet
    await runtime.finish(id)
    seen = sorted(path.read_text().strip() for path in (runtime.folder / "project").glob("seen.*"))
    assert seen == ["2", "3"]  # what each act found is what was to be there before it


async def test_an_act_that_was_broken_off_leaves_its_files_to_what_follows(runtime: Runtime) -> None:
    id = await began(runtime)
    await runtime.say(id, [terminal("echo half > f; touch begun; sleep 300")])
    with anyio.fail_after(60):
        while not (runtime.folder / "project" / "begun").exists():
            await anyio.sleep(0.02)
    assert (await runtime.http.post(f"/api/conversations/{id}/interrupt")).is_success
    await runtime.until(id, "paused")
    log = await said(runtime, id, terminal("echo whole > f"))
    [interrupt, act] = [*numbers(log, "InterruptEvent"), numbers(log, "ActionEvent")[0]]
    assert await given(runtime, id, act) == {}
    assert await given(runtime, id, interrupt) == {"f": "half\n", "begun": ""}
    assert await given(runtime, id, len(log)) == {"f": "whole\n", "begun": ""}


async def test_a_workspace_that_is_too_large_has_none_until_it_is_smaller(tmp_path: Path, model: ScriptedModel) -> None:
    async with runtime_at(tmp_path, model.base_url, version_megabytes=1) as runtime:
        id = await began(runtime)
        fill = terminal("head -c 2000000 /dev/zero > large")
        first = await said(runtime, id, terminal("echo one > f"), fill, terminal("rm large; echo two > f"))
        second = await said(runtime, id, terminal("echo three > f"))
        ends = numbers(second, "ObservationEvent")
        assert await given(runtime, id, ends[1] - 1) == {"f": "one\n"}
        assert await given(runtime, id, ends[1]) == 410
        assert await offered(runtime, id, ends[2]) == "current"
        assert await given(runtime, id, len(first) + 1) == {"f": "two\n"}
        assert await given(runtime, id, ends[3]) == {"f": "three\n"}


async def test_they_outlive_the_server_and_go_with_the_conversation(tmp_path: Path, model: ScriptedModel) -> None:
    async with runtime_at(tmp_path, model.base_url) as runtime:
        id = await began(runtime)
        first = await said(runtime, id, terminal("echo one > f"))
    async with runtime_at(tmp_path, model.base_url) as runtime:
        (tmp_path / "project" / "f").write_text("by hand")
        second = await said(runtime, id, terminal("echo two > f"))
        assert await given(runtime, id, len(first)) == {"f": "one\n"}
        assert await given(runtime, id, len(first) + 1) == {"f": "by hand"}
        assert await given(runtime, id, len(second)) == {"f": "two\n"}
        packed = await runtime.http.get(f"/api/file/download-trajectory/{id}")
        assert (b"versions/" in packed.content, b"events.jsonl" in packed.content) == (False, True)
        await runtime.say(id, [terminal("echo three > f"), {"text": "done"}])
        assert (await runtime.http.delete(f"/api/conversations/{id}")).is_success
        assert not place(runtime, id).parent.exists()


async def test_none_are_taken_where_nobody_could_copy_them_or_wants_them(tmp_path: Path, model: ScriptedModel) -> None:
    async with runtime_at(tmp_path, model.base_url, version_megabytes=0) as runtime:
        id = await began(runtime)
        log = await said(runtime, id, terminal("echo one > f"))
        assert (place(runtime, id).exists(), await given(runtime, id, len(log) - 1)) == (False, 410)
    async with runtime_at(tmp_path / "other", model.base_url) as runtime:
        id = await runtime.start([terminal("echo one > f"), {"text": "done"}])
        await runtime.finish(id)
        assert not place(runtime, id).exists()
