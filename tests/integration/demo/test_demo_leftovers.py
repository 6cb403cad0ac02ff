"""The demo's own check for what stays behind, and its word about an orchestrator that does not start."""

import sys

import anyio
import pytest

from orchestrator.demo.leftovers import processes_left
from orchestrator.demo.options import DemoFailed
from orchestrator.demo.orchestrator_process import orchestrator_process

pytestmark = pytest.mark.anyio
SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]


@pytest.mark.parametrize("mention", ["cwd", "argument", "environment"])
async def test_a_process_that_names_the_folder_is_found_until_it_ends(tmp_path, mention):
    command = [*SLEEP, str(tmp_path / "x")] if mention == "argument" else SLEEP
    environment = {"SOME_FOLDER": str(tmp_path)} if mention == "environment" else {}
    folder = tmp_path if mention == "cwd" else "/"
    async with await anyio.open_process(command, cwd=folder, env=environment) as process:
        await process.stdout.receive()
        left = await processes_left(tmp_path, within=0)
        assert [entry.split()[0] for entry in left] == [str(process.pid)]
        process.kill()
    assert await processes_left(tmp_path, within=10) == []


async def test_an_orchestrator_that_does_not_start_is_told_with_its_own_words(tmp_path):
    with pytest.raises(DemoFailed, match="did not start") as told:
        async with orchestrator_process(tmp_path, driver="no-such-driver"):
            pass
    assert "no-such-driver" in str(told.value) or "orchestrator" in str(told.value)
    assert await processes_left(tmp_path, within=10) == []
    assert (tmp_path / "orchestrator.log").stat().st_mode & 0o777 == 0o600
