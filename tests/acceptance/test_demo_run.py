"""The demo as a person sees it: a process of its own, its exit status, its words, and what it leaves behind."""

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import anyio
import pytest

from orchestrator.demo.leftovers import processes_left
from orchestrator.demo.model_server import ScriptedModel
from orchestrator.demo.orchestrator_process import orchestrator_process

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def temporary():
    """A short path, since sockets live below it; nothing of ours is left in it but what the demo forgot."""
    folder = Path(tempfile.mkdtemp(prefix="nst-"))
    yield folder
    shutil.rmtree(folder)


async def demo(temporary, *arguments, **environment):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator", "demo", "--plain", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "HOME": str(temporary.parent), "TMPDIR": str(temporary), **environment},
    )  # fmt: skip


async def read_until(process, pattern):
    """Everything up to and with the first line that matches."""
    read = []
    while line := (await process.stdout.readline()).decode():
        read.append(line)
        if re.search(pattern, line):
            return "".join(read)
    pytest.fail(f"no line matched {pattern}:\n{''.join(read)}")


async def ended(process, temporary):
    """Its last words and its status, after making sure that nothing of it is left."""
    with anyio.fail_after(120):
        said = (await process.stdout.read()).decode()
        status = await process.wait()
    assert await processes_left(temporary, within=0) == []
    assert list(temporary.iterdir()) == []
    return status, said


async def test_the_demo_does_all_it_promises_and_leaves_nothing(temporary):
    status, said = await ended(await demo(temporary), temporary)
    assert status == 0, said
    assert said.count("pushed ") == 3
    assert said.count("another tenant sees: 404 not found") == 3
    assert "nothing is left behind" in said
    assert "MISSING" not in said


async def test_a_running_orchestrator_needs_its_key(temporary):
    status, said = await ended(await demo(temporary, "--url", "http://127.0.0.1:9"), temporary)
    assert status == 1
    assert "MISSING the operator key of http://127.0.0.1:9 is not given" in said


@pytest.mark.parametrize(
    ("moment", "number", "expected"),
    [
        ("git server:", signal.SIGINT, 130),
        ("orchestrator:", signal.SIGTERM, 143),
        ("starting: ", signal.SIGINT, 130),
        ("terminal →", signal.SIGINT, 130),
        ("pushed ", signal.SIGTERM, 143),
    ],
)
async def test_a_signal_at_any_moment_ends_everything(temporary, moment, number, expected):
    process = await demo(temporary)
    with anyio.fail_after(120):
        before = await read_until(process, moment)
    process.send_signal(number)
    status, said = await ended(process, temporary)
    assert status == expected, before + said


@pytest.mark.parametrize("broken_off", [False, True])
async def test_an_orchestrator_that_runs_already_is_left_without_the_conversations(temporary, broken_off):
    folder = Path(tempfile.mkdtemp(prefix="nst-"))
    try:
        async with orchestrator_process(folder, driver="process") as nestor:
            process = await demo(temporary, "--url", nestor.url, NESTOR_OPERATOR_KEY=nestor.operator_key.open())
            if broken_off:
                await read_until(process, "terminal →")
                process.send_signal(signal.SIGINT)
            status, said = await ended(process, temporary)
            assert status == (130 if broken_off else 0), said
            assert list((folder / "runtimes").iterdir()) == []
        assert await processes_left(folder, within=0) == []
    finally:
        shutil.rmtree(folder)


async def test_a_refused_model_key_is_told_and_fails_the_demo(temporary):
    async with ScriptedModel(required_key="right-key") as model:
        llm = {"LLM_MODEL": "openai/scripted", "LLM_API_KEY": "wrong-key", "LLM_BASE_URL": model.base_url}
        status, said = await ended(await demo(temporary, **llm), temporary)
    assert status == 1
    assert said.count("the run ended as error") >= 3, said
    assert "wrong-key" not in said
