"""The scripted agent's commands, run for real in a shell: they mend the repository, and the proofs accept it."""

import os
import uuid

import anyio
import pytest

from orchestrator.demo import proof
from orchestrator.demo.git_server import GitServer
from orchestrator.demo.script import parse_script
from orchestrator.demo.story import CUSTOMERS, FILES, SECRET_NAME, script
from orchestrator.domain.secrets import SecretText

pytestmark = pytest.mark.anyio

SECRET = SecretText("the-value-of-this-tenant")
TASKS = [task for customer in CUSTOMERS for task in customer.tasks]


def as_shell(written):
    """The script as one shell program: a file edit becomes a line of Python that replaces exactly one place."""
    lines = ["set -e"]
    for step in parse_script(written):
        if step.tool == "terminal":
            lines.append(step.args["command"])
        if step.tool == "file_editor":
            lines.append("python3 - <<'END'")
            path, old, new = (step.args[name] for name in ("path", "old_str", "new_str"))
            lines.append(f"text = open({path!r}).read()\nassert text.count({old!r}) == 1")
            lines.append(f"open({path!r}, 'w').write(text.replace({old!r}, {new!r}))\nEND")
    return "\n".join(lines)


async def play(server, home, task, conversation, token, secret):
    home.mkdir()
    (home / ".gitconfig").write_text("[credential]\nhelper = store\n")
    (home / ".git-credentials").write_text(server.origin.replace("://", f"://user:{token}@") + "\n")
    written = script(task, clone_url=server.url("acme/shop"), conversation=conversation, folder=str(home))
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_TERMINAL_PROMPT": "0", SECRET_NAME: secret}
    with anyio.fail_after(60):
        return await anyio.run_process(["bash", "-c", as_shell(written)], cwd=home, env=environment, check=False)


@pytest.fixture
async def server(tmp_path):
    async with GitServer(tmp_path / "git") as server:
        await server.create_repository("acme/shop", files=FILES, token="token-of-acme")
        yield server


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
async def test_the_script_of_a_task_mends_tests_and_pushes(server, tmp_path, task):
    conversation = str(uuid.uuid4())
    done = await play(server, tmp_path / "home", task, conversation, "token-of-acme", SECRET.open())
    assert done.returncode == 0, done.stderr.decode()
    commit, misses = await proof.pushed(server, "acme/shop", conversation, secret=SECRET)
    assert misses == []
    assert (commit.author, commit.subject) == ("Nestor agent", task.subject)
    assert await proof.mended(server, "acme/shop", conversation, task=task) == []
    assert SECRET.open() not in done.stdout.decode() + done.stderr.decode()


async def test_another_secret_a_missing_push_and_an_untouched_file_are_misses(server, tmp_path):
    conversation = str(uuid.uuid4())
    _, misses = await proof.pushed(server, "acme/shop", conversation, secret=SECRET)
    assert "nothing was pushed" in misses[0]
    assert await proof.mended(server, "acme/shop", conversation, task=TASKS[0])
    done = await play(server, tmp_path / "home", TASKS[0], conversation, "token-of-acme", "somebody-else's")
    assert done.returncode == 0, done.stderr.decode()
    _, misses = await proof.pushed(server, "acme/shop", conversation, secret=SECRET)
    assert "not made from this tenant's secret" in misses[0]
    assert await proof.mended(server, "acme/shop", conversation, task=TASKS[1])


async def test_without_the_token_the_script_fails(server, tmp_path):
    done = await play(server, tmp_path / "home", TASKS[0], str(uuid.uuid4()), "wrong", SECRET.open())
    assert done.returncode != 0
    assert await server.branches("acme/shop") == ["main"]


async def test_the_test_fails_before_the_task_is_done(server, tmp_path):
    for path, text in FILES.items():
        (tmp_path / "files" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / path).write_text(text)
    for task in TASKS:
        done = await anyio.run_process(
            ["python3", "-m", "unittest", task.test],
            cwd=tmp_path / "files",
            check=False,
            env={"PATH": os.environ["PATH"]},
        )
        assert done.returncode == 1, task.name
