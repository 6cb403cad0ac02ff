"""Ten values are planted where a customer and an operator put them; none of them is where anybody could read it."""

import base64
import json
import re
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
from support import containers
from support.docker_nestor import MODEL_KEY, container_of, nestor_in

from orchestrator.demo.git_server import GitServer

pytestmark = [pytest.mark.docker, pytest.mark.anyio, pytest.mark.slow]

OPERATOR_KEY = "planted-operator-key-0123456789-abcdef"
GIT_TOKEN = "planted-git-token-4712"
SECRETS = {f"SECRET_{number}": f"planted-secret-value-{number}-4713" for number in range(5)}
HUNT = containers.REPOSITORY / "tests/security/canary_hunt.py"
OWN = {"OWN_SECRET": "planted-own-secret-4714"}


def everything_that_the_engine_shows(container: str) -> str:
    """Environment, labels, arguments, mounts, log, image with its history, volumes, network and recent events."""
    shown = containers.inspect("container", container)
    text = [
        containers.docker("inspect", container),
        containers.docker("logs", container),
        containers.docker("top", container, "-eo", "pid,args"),
        containers.docker("image", "inspect", shown["Image"]),
        containers.docker("history", "--no-trunc", shown["Image"]),
        containers.docker("events", "--since", "10m", "--until", "0s", "--format", "{{json .}}"),
    ]
    text += [containers.docker("volume", "inspect", mount["Name"]) for mount in shown["Mounts"]]
    text += [containers.docker("network", "inspect", name) for name in shown["NetworkSettings"]["Networks"]]
    text += [log.read_text(errors="replace") for log in engine_logs()]
    return "\n".join(text)


def engine_logs() -> list[Path]:
    """The engine's own log, where it was started with one."""
    found = subprocess.run(
        ["find", "/var/lib", "/var/log", "-maxdepth", "3", "-name", "*dockerd*.log", "-o", "-path", "*ci-engine/log"],
        capture_output=True,
        text=True,
        check=False,
    )
    return [Path(line) for line in found.stdout.splitlines() if Path(line).is_file()]


def found_by_the_agent(container: str, planted: Mapping[str, str]) -> list[str]:
    """Where in processes and files a program of the agent's own user finds one of these values."""
    held = f"held-{uuid.uuid4().hex}"
    wanted = {**planted, "held": held, "control": f"control-{held}"}
    turned = {name: bytes(byte ^ 0xFF for byte in value.encode()).hex() for name, value in wanted.items()}
    for path, text in {
        "hunt.py": HUNT.read_text(),
        "targets": json.dumps(turned),
        "control": wanted["control"],
    }.items():
        containers.docker("exec", "--interactive", container, "sh", "-c", f"cat >/tmp/{path}", stdin=text)
    folders = ("/tmp", "/run", "/dev/shm", "/home/agent", "/workspace", "/state")
    containers.docker("exec", container, "python3", "-I", "/tmp/hunt.py", "/tmp/targets", "/tmp/found", *folders)
    found = containers.docker("exec", container, "cat", "/tmp/found").splitlines()
    assert any(line.startswith("control in /tmp/control") for line in found), found  # it sees files
    for way in ("/environ", "/mem"):
        assert any(line.startswith("held in ") and way in line for line in found), found  # and processes
    assert [line for line in found if re.match(r"traceable: \S*python\S* .*-m runtime", line)] == []
    return [line for line in found if " in " in line and not line.startswith(("control in ", "held in ", "traceable"))]


async def test_no_planted_value_is_in_anything_that_the_engine_shows(folder: Path):
    master = base64.urlsafe_b64encode(b"planted-master-key-of-32-bytes!!").decode()
    told = {"NESTOR_OPERATOR_KEY": OPERATOR_KEY, "NESTOR_MASTER_KEY": master}
    async with nestor_in(folder, **told) as nestor, GitServer(folder / "git") as git:
        key = await nestor.tenant()
        for name, value in SECRETS.items():
            await nestor.call("PUT", f"/api/v2/secrets/{name}", key, json={"value": value}, status=200)
        provider = {"token": GIT_TOKEN, "host": git.origin}
        await nestor.call("PUT", "/api/v2/git-providers/github", key, json=provider, status=200)
        found = await nestor.conversation(key, secrets=OWN)
        id = found["id"]
        command = 'test "$SECRET_1" = planted-secret-value-"1-4713" && test -n "$OWN_SECRET" && echo used'
        events = await nestor.run(key, id, {"tool": "terminal", "args": {"command": command, "summary": "s"}})
        assert any("used" in str(event.get("observation")) for event in events)
        planted = {
            **SECRETS,
            **OWN,
            "the model's key": MODEL_KEY,
            "the git token": GIT_TOKEN,
            "the operator's key": OPERATOR_KEY,
            "the master key": master,
            "the tenant's key": key,
            "the session key": found["runtime"]["session_key"],
        }
        assert len(planted) >= 10
        shown = everything_that_the_engine_shows(container_of(id))
        assert [name for name, value in planted.items() if value in shown] == []
        # What a command asked for is in its shell by intent.
        hidden = {name: value for name, value in planted.items() if name not in ("SECRET_1", "OWN_SECRET")}
        assert found_by_the_agent(container_of(id), hidden) == []
