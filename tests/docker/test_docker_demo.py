"""`nestor demo --driver docker` as a person runs it."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import anyio
import pytest
from support import containers

pytestmark = [pytest.mark.docker, pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]


def everything() -> set[str]:
    """All containers, volumes and networks of the engine."""
    return {
        *containers.docker("ps", "--all", "--quiet", "--no-trunc").split(),
        *containers.docker("volume", "ls", "--quiet").split(),
        *containers.docker("network", "ls", "--quiet", "--no-trunc").split(),
    }


async def demo(folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator", "demo", "--plain", "--driver", "docker",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)},
    )  # fmt: skip


async def test_the_demo_does_all_it_promises_in_containers_and_leaves_nothing(folder: Path):
    before = everything()
    process = await demo(folder)
    with anyio.fail_after(200):
        said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    assert said.count("pushed ") == 3
    assert said.count("another tenant sees: 404 not found") == 3
    assert everything() == before


async def test_a_demo_that_is_broken_off_leaves_nothing(folder: Path):
    before = everything()
    process = await demo(folder)
    assert process.stdout is not None
    with anyio.fail_after(200):
        while b"terminal" not in (line := await process.stdout.readline()):
            assert line, "the demo ended before an agent worked"
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert process.returncode == 130
    assert everything() == before
