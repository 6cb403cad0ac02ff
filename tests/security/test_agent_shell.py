"""Ten planted values, hunted by the agent's own shell: in the environment, arguments, memory and open files of every
process, and in every file that it can read. What it finds goes to a file: its terminal's output is masked."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.models import scripted_model
from support.processes import OPERATOR_KEY, OrchestratorProcess, orchestrator_at, wait_for

HUNT = Path(__file__).with_name("canary_hunt.py")
PLANTED = {
    "model key": "sk-hunted-model-key-41d0a7",
    "tenant secret": "hunted-tenant-secret-5be2c9",
    "user secret": "hunted-second-secret-90aa17",
    "secret of the request": "hunted-request-secret-7c3de1",
    "github token": "ghp_huntedGithubToken66f2b0",
    "gitlab token": "glpat-huntedGitlabToken3ad94",
    "aws secret key": "hunted/aws+secret/access/key/58e1",
    "aws session token": "hunted-aws-session-token-2c07fb",
}
HELD = "a-value-that-a-process-of-the-hunt-holds-77e0"
CONTROL = "a-value-that-lies-open-in-the-workspace-1b2c"


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def hidden(value: str) -> str:
    return bytes(byte ^ 0xFF for byte in value.encode()).hex()


def configured(nestor: OrchestratorProcess, model: str) -> str:
    key = nestor.tenant("acme", model, model_key=PLANTED["model key"])
    llm = {
        "aws_secret_access_key": PLANTED["aws secret key"],
        "aws_session_token": PLANTED["aws session token"],
    }
    nestor.call("PATCH", "/api/v2/settings", key, json={"agent_settings": {"llm": llm}}, status=200)
    for provider, token in (("github", "github token"), ("gitlab", "gitlab token")):
        body = {"token": PLANTED[token], "host": "http://127.0.0.1:9"}
        nestor.call("PUT", f"/api/v2/git-providers/{provider}", key, json=body, status=200)
    for name, value in (("FIRST", "tenant secret"), ("SECOND", "user secret")):
        nestor.call("PUT", f"/api/v2/secrets/{name}", key, json={"value": PLANTED[value]}, status=200)
    return key


def hunted(nestor: OrchestratorProcess, model: str) -> list[str]:
    """What the agent's shell found, and the last line that says how much it looked at."""
    key = configured(nestor, model)
    body = {"secrets": {"ONLY_HERE": PLANTED["secret of the request"]}}
    record = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json=body, status=200)
    workspace = workspace_of(nestor, record["runtime"]["id"])
    keys = {"session key": record["runtime"]["session_key"], "operator key": OPERATOR_KEY}
    targets = {**PLANTED, **keys, "control": CONTROL, "held": HELD}
    (workspace / "targets").write_text(json.dumps({name: hidden(value) for name, value in targets.items()}))
    (workspace / "left lying").write_text(f"before {CONTROL} after")
    shutil.copy(HUNT, workspace / "hunt.py")
    everywhere = "$PWD ~ /tmp /var/tmp /run /etc /dev/shm"
    command = f"python3 -I hunt.py targets found {everywhere} {nestor.data_dir}"
    script = [{"tool": "terminal", "args": {"command": command, "timeout": 100}}, {"text": "done"}]
    message = {"content": f"SCRIPT:{json.dumps(script)}"}
    nestor.call("POST", f"/api/v2/conversations/{record['id']}/messages", key, json=message, status=202)
    wait_for(lambda: (workspace / "found").exists() and (workspace / "found").read_text(), 110)
    return (workspace / "found").read_text().splitlines()


def workspace_of(nestor: OrchestratorProcess, runtime: str) -> Path:
    (found,) = [path for path in nestor.data_dir.rglob("workspace") if runtime in str(path) and path.is_dir()]
    return found


@pytest.mark.parametrize("zygote", ["off", "auto"])
def test_the_shell_finds_none_of_ten_planted_values(data_dir: Path, zygote: str) -> None:
    settings = {"NESTOR_NAMESPACES": "1", "NESTOR_ZYGOTE": zygote}
    with scripted_model() as model, orchestrator_at(data_dir, **settings) as nestor:
        if zygote == "auto":
            nestor.zygote_ready()
        *found, looked = hunted(nestor, model)
        (claim,) = [json.loads(path.read_text()) for path in nestor.data_dir.glob("runtimes/*/claim.json")]
        assert bool(claim["zygote"]) == (zygote == "auto")
        assert looked.startswith("looked at ")
        # The hunt finds what can be found: in a file, in an environment, in memory.
        for open_to_all in (r"control in .*/left lying", r"held in /proc/\d+/environ", r"held in /proc/\d+/mem"):
            assert [line for line in found if re.fullmatch(open_to_all, line)], (open_to_all, found)
        assert [line for line in found if "process_vm_readv" in line] != []
        assert [line for line in found if re.match(r"traceable: \S*python\S* .*-m runtime", line)] == []
        assert [line for line in found if not line.startswith(("control in ", "held in ", "traceable: "))] == []
