"""Conversations that nobody uses leave memory, and come back as they were; what is at work stays."""

import gc
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from orchestrator.demo.model_server import ScriptedModel
from runtime.conversations.conversation import Conversation
from tests.support.runtimes import KEY, Runtime, RuntimeProcess, eventually, runtime_at, terminal

pytestmark = pytest.mark.anyio

IDLE_SECONDS = 0.5


@pytest.fixture
async def runtime(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[Runtime]:
    async with runtime_at(tmp_path, model.base_url, conversation_idle_ttl_seconds=IDLE_SECONDS) as made:
        yield made


def in_memory(id: str) -> list[Conversation]:
    """The runtime under test runs in this process."""
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, Conversation) and str(one.id) == id]


async def gone(id: str, seconds: float = 20) -> None:
    with anyio.fail_after(seconds):
        while in_memory(id):
            await anyio.sleep(0.05)


async def stays(id: str) -> None:
    await anyio.sleep(4 * IDLE_SECONDS)
    assert in_memory(id)


async def test_an_idle_one_leaves_memory_and_comes_back(runtime: Runtime) -> None:
    id = await runtime.start([{"text": "one"}])
    await runtime.finish(id)
    before = await runtime.events(id)
    shown = (await runtime.http.get(f"/api/conversations/{id}")).json()
    assert in_memory(id)
    await gone(id)
    assert (await runtime.http.get(f"/api/conversations/{id}")).json() == shown
    assert (await runtime.http.get("/api/conversations/search")).json()["items"][0]["id"] == id
    assert not in_memory(id), "to be looked at it need not be opened"
    assert await runtime.events(id) == before
    await runtime.say(id, [{"text": "two"}])
    await runtime.finish(id)
    assert len(await runtime.events(id, "MessageEvent")) == 4
    await gone(id)
    assert (await runtime.http.delete(f"/api/conversations/{id}")).status_code == 200
    assert not in_memory(id)


async def test_its_files_and_its_shell_are_closed(runtime: Runtime) -> None:
    mine = await _own(runtime)
    id = await runtime.start([terminal("cd /; echo $$ > /dev/null"), {"text": "done"}])
    await runtime.finish(id)
    assert len(await _own(runtime)) > len(mine)
    await gone(id)
    with anyio.fail_after(20):
        while len(await _own(runtime)) > len(mine):
            await anyio.sleep(0.05)
    await runtime.say(id, [terminal("pwd"), {"text": "again"}])
    await runtime.finish(id)
    assert (await runtime.outputs(id))[-1] == str(runtime.folder / "work"), "a new shell, where every shell begins"


async def _own(runtime: Runtime) -> list[str]:
    """Open files of this runtime's conversations, and shells."""
    found: list[str] = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue
        if (target.startswith(str(runtime.folder / "conversations")) and ".owners" not in target) or "/ptmx" in target:
            found.append(target)
    return found


@pytest.mark.parametrize("command", ["sleep 100", "(sleep 100 &) ; true", "sleep 100 & true"])
async def test_a_program_in_the_shell_keeps_it(runtime: Runtime, command: str) -> None:
    id = await runtime.start([terminal(f"X=kept; {command}", timeout=0.5), {"text": "done"}])
    await runtime.finish(id)
    await stays(id)
    await runtime.say(id, [terminal("C-c", is_input=True), {"text": "ok"}])
    await runtime.finish(id)
    await runtime.say(id, [terminal("pkill -f 'sleep 10[0]' -P $$; kill %1 2>/dev/null; echo $X"), {"text": "ok"}])
    await runtime.finish(id)
    assert "kept" in (await runtime.outputs(id))[-1]


async def test_a_socket_keeps_it(runtime: Runtime) -> None:
    id = await runtime.start([{"text": "one"}])
    await runtime.finish(id)
    async with runtime.socket(id) as frames:
        await frames.next()
        await stays(id)
        await runtime.say(id, [{"text": "two"}])
        assert (await frames.next())["kind"] == "MessageEvent"
        await runtime.finish(id)
    await gone(id)


async def test_a_run_and_a_question_keep_it(runtime: Runtime, model: ScriptedModel) -> None:
    id = await runtime.start([{"text": "late", "sleep": 6 * IDLE_SECONDS}])
    await stays(id)
    await runtime.finish(id)
    async with anyio.create_task_group() as group:
        answers: list[httpx.Response] = []

        async def ask() -> None:
            answers.append(await runtime.http.post(f"/api/conversations/{id}/ask_agent", json={"question": "?"}))

        group.start_soon(ask)  # the script that the question quotes sleeps again
        await stays(id)
    assert answers[0].status_code == 200
    await gone(id)


async def test_acts_that_wait_for_leave_are_done_after_it_came_back(runtime: Runtime) -> None:
    policy = {"kind": "AlwaysConfirm"}
    id = await runtime.start([terminal("echo done > proof"), {"text": "ok"}], confirmation_policy=policy)
    await runtime.until(id, "waiting_for_confirmation")
    await gone(id)
    answer = await runtime.http.post(f"/api/conversations/{id}/events/respond_to_confirmation", json={"accept": True})
    assert answer.status_code == 200
    await runtime.finish(id)
    assert (runtime.folder / "work" / "proof").read_text() == "done\n"


async def test_memory_falls(tmp_path: Path, model: ScriptedModel) -> None:
    process = RuntimeProcess(tmp_path, OH_CONVERSATION_IDLE_TTL_SECONDS="6")
    try:
        await anyio.to_thread.run_sync(process.start)
        headers = {"X-Session-API-Key": KEY}
        async with httpx.AsyncClient(base_url=process.url, headers=headers, timeout=60, trust_env=False) as http:
            runtime = Runtime(http, process.url, tmp_path, model.base_url)
            warm = await runtime.start([terminal("true"), {"text": "done"}])  # what every first run loads
            await runtime.finish(warm)
            await anyio.to_thread.run_sync(lambda: eventually(lambda: not _below(process.pid), 30))
            before = _private_kilobytes(process.pid)
            full = before
            ids = [await runtime.start([terminal("seq 20000"), {"text": "done"}]) for _ in range(6)]
            for id in ids:
                await runtime.finish(id)
                full = max(full, _private_kilobytes(process.pid))  # on a busy machine the first is put away by the last
            assert full - before > 6 * 2_000, (before, full)
            await anyio.to_thread.run_sync(lambda: eventually(lambda: not _below(process.pid), 60))
            after = _private_kilobytes(process.pid)
            assert after - before < (full - before) / 4, (before, full, after)
    finally:
        process.ensure_gone()


def _below(pid: int) -> list[int]:
    """Every process below this one."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it ended
        return []
    found = [int(child) for task in tasks for child in _children(task)]
    return found + [one for child in found for one in _below(child)]


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except OSError:  # it ended
        return []


def _private_kilobytes(pid: int) -> int:
    """Of the runtime and all that it started: what other processes do not share."""
    total = 0
    for one in (pid, *_below(pid)):
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:  # it ended
            continue
        total += sum(int(line.split()[1]) for line in rollup if line.startswith(("Private_Clean", "Private_Dirty")))
    return total


def test_nothing_is_polled(tmp_path: Path) -> None:
    """An idle runtime with a conversation in memory sleeps."""
    process = RuntimeProcess(tmp_path).start()
    try:
        body: dict[str, Any] = {
            "agent": {"llm": {"model": "openai/x"}},
            "workspace": {"working_dir": str(tmp_path / "work")},
        }
        headers = {"X-Session-API-Key": KEY}
        answer = httpx.post(f"{process.url}/api/conversations", json=body, headers=headers, timeout=60, trust_env=False)
        assert answer.status_code == 201
        eventually(lambda: _settled(process.pid), 60)
    finally:
        process.ensure_gone()


def _settled(pid: int) -> bool:
    """No time on a processor in two seconds: the import of the model library is over, and nothing ticks."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(2)
    return ticks() == before
