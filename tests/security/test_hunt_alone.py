"""The same hunt in a runtime that stands alone: its shell another user, or its own without capabilities."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.support.runtimes import RuntimeProcess, eventually

HUNT = Path(__file__).with_name("canary_hunt.py")
#: no capabilities and another user as far as it can see: what a server in an image without root is
UNPRIVILEGED = (
    *("bwrap", "--dev-bind", "/", "/", "--proc", "/proc", "--unshare-pid", "--as-pid-1"),
    *("--unshare-user", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--die-with-parent"),
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="nst-hunt-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def planted() -> dict[str, str]:
    names = ("sealing key", "session key", "second session key", "stored secret", "git token", "profile key")
    more = ("settings key", "conversation key", "conversation secret", "cloud key", "webhook header")
    return {name: f"hunted-{uuid4().hex}" for name in (*names, *more)}


def started(place: Path, values: dict[str, str], wrapper: tuple[str, ...]) -> RuntimeProcess:
    variables = {
        "OH_SECRET_KEY": values["sealing key"],
        "OH_SESSION_API_KEYS_0": values["session key"],
        "OH_SESSION_API_KEYS_1": values["second session key"],
        "OH_BASH_EVENTS_DIR": str(place / "state/bash"),
        "OH_PERSISTENCE_DIR": str(place / "state/kept"),
        "OH_CONVERSATIONS_PATH": str(place / "state/conversations"),
        "OH_WEBHOOKS_0_BASE_URL": "http://127.0.0.1:9/hook",
        "OH_WEBHOOKS_0_HEADERS": json.dumps({"Authorization": values["webhook header"]}),
        "TMPDIR": str(place / "temporary"),
    }
    (place / "temporary").mkdir(mode=0o1777)
    (place / "temporary").chmod(0o1777)
    return RuntimeProcess(place, wrapper=wrapper, **variables).start()


def furnish(http: httpx.Client, place: Path, values: dict[str, str]) -> None:
    """Every kind of secret that a runtime holds."""
    llm = {"model": "openai/none", "base_url": "http://127.0.0.1:9/v1", "num_retries": 0}
    own = {"api_key": values["conversation key"], "aws_secret_access_key": values["cloud key"]}
    answers = [
        http.put("/api/settings/secrets", json={"name": "STORED", "value": values["stored secret"]}),
        http.post("/api/profiles/p", json={"llm": {**llm, "api_key": values["profile key"]}}),
        http.patch("/api/settings", json={"agent_settings_diff": {"llm": {"api_key": values["settings key"]}}}),
        http.post("/api/add-git-providers", json={"provider_tokens": {"github": {"token": values["git token"]}}}),
        http.post(
            "/api/conversations",
            json={
                "agent": {"llm": {**llm, **own}, "tools": [{"name": "terminal"}]},
                "workspace": {"working_dir": str(place / "project")},
                "secrets": {"S": values["conversation secret"]},
                "initial_message": {"role": "user", "content": [{"type": "text", "text": "hello"}]},
            },
        ),
    ]
    assert [answer.status_code for answer in answers] == [200, 201, 200, 200, 201], [a.text for a in answers]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have both kinds of shell")
@pytest.mark.parametrize("shell", ["another user", "the same user"])
def test_the_shell_of_a_server_alone_finds_nothing(place: Path, shell: str) -> None:
    values = planted()
    runtime = started(place, values, () if shell == "another user" else UNPRIVILEGED)
    try:
        headers = {"X-Session-API-Key": values["session key"]}
        with httpx.Client(base_url=runtime.url, headers=headers, trust_env=False, timeout=120) as http:
            assert http.get("/ready").json() == {"status": "ready"}
            furnish(http, place, values)
            project = place / "project"
            held = f"held-{uuid4().hex}"
            targets = {
                name: bytes(byte ^ 0xFF for byte in value.encode()).hex()
                for name, value in {**values, "held": held, "control": f"control-{held}"}.items()
            }
            (project / "targets").write_text(json.dumps(targets))
            (project / "control").write_text(f"control-{held}")
            shutil.copy(HUNT, project / "hunt.py")
            python = "/usr/bin/python3" if shell == "another user" else "python3"
            command = f"ulimit -c unlimited; id -u; {python} -I hunt.py targets found $PWD ~ {place} /dev/shm"
            answer = http.post("/api/bash/execute_bash_command", json={"command": command, "timeout": 110}).json()
            eventually(lambda: (project / "found").exists())
            *found, looked = (project / "found").read_text().splitlines()
            assert looked.startswith("looked at "), answer
            assert answer["stdout"].strip() != "0"
            assert any(line.startswith("control in ") for line in found), found
            for way in ("/environ", "/mem", "process_vm_readv"):
                assert any(line.startswith("held in ") and way in line for line in found), (way, found)
            assert [line for line in found if line.startswith("traceable: ")], "its own can be"
            assert [line for line in found if re.match(r"traceable: \S*python\S* .*-m runtime", line)] == []
            assert [line for line in found if not line.startswith(("control in ", "held in ", "traceable: "))] == []
    finally:
        runtime.ensure_gone()
