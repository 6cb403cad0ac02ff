"""The example of a SaaS backend, run as its reader would run it, against a real orchestrator."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
import pytest

from orchestrator.demo.model_server import ScriptedModel
from orchestrator.demo.orchestrator_process import orchestrator_process
from orchestrator.demo.script import write_script

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "saas_backend.py"
TASK = "Please. " + write_script(
    [
        {
            "tool": "terminal",
            "args": {"command": 'test -n "$DEPLOY_KEY" && echo "the key is ${#DEPLOY_KEY} long"', "summary": "Look"},
        },
        {"tool": "finish", "args": {"message": "I looked."}},
    ]
)
SECOND_TASK = "Again. " + write_script([{"text": "I looked again."}])


@pytest.fixture
def folder():
    folder = Path(tempfile.mkdtemp(prefix="nst-"))
    yield folder
    shutil.rmtree(folder)


def run_example(environment, *arguments):
    command = [sys.executable, str(EXAMPLE), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


async def test_the_example_runs_from_tenant_to_deletion(folder):
    async with ScriptedModel(required_key="k-1") as model, orchestrator_process(folder, driver="process") as nestor:
        environment = {
            "PATH": os.environ["PATH"],
            "NESTOR_URL": nestor.url,
            "NESTOR_OPERATOR_KEY": nestor.operator_key.open(),
            "LLM_MODEL": "openai/scripted",
            "LLM_API_KEY": "k-1",
            "LLM_BASE_URL": model.base_url,
        }
        arguments = ("--task", TASK, "--second-task", SECOND_TASK)
        done = await anyio.to_thread.run_sync(lambda: run_example(environment, *arguments))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "terminal: Look" in done.stdout
    assert "the agent: I looked.\n" in done.stdout
    assert "the agent: I looked again.\n" in done.stdout
    assert done.stdout.endswith("deleted\n")


def test_the_example_says_what_it_needs():
    done = run_example({"PATH": os.environ["PATH"]}, "--task", "x")
    assert done.returncode == 2
    assert "NESTOR_OPERATOR_KEY" in done.stderr
