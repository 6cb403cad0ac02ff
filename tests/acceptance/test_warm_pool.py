"""`nestor up` with a warm pool of real runtimes: what one tenant leaves is nowhere in the runtime of the next."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.models import scripted_model
from support.processes import OPERATOR_KEY, OrchestratorProcess, orchestrator_at, wait_for

ROUNDS = 3
CANARY = "canary-of-the-first-tenant"
LEAVE = f"echo {CANARY} | tee left.txt ~/left.txt /tmp/left.txt; export LEFT={CANARY}; (sleep 300 {CANARY} &)"
HUNT = (
    "grep -rl 'ca[n]ary-of' . ~ /tmp /state /workspace 2>/dev/null; "
    "grep -al 'ca[n]ary-of' /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; echo hunted"
)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def begun(nestor: OrchestratorProcess, key: str) -> dict[str, Any]:
    """A conversation on a spare."""
    wait_for(lambda: logged(nestor, '"spare.ready"') > logged(nestor, '"hit": true'), 60)
    body = {"initial_message": 'SCRIPT:[{"text": "done"}]'}
    record: dict[str, Any] = nestor.call(
        "POST", "/api/v2/conversations?wait=ready&timeout=60", key, json=body, status=200
    )
    return record


def hit(nestor: OrchestratorProcess, key: str, record: dict[str, Any]) -> bool:
    stages = nestor.call("GET", f"/api/v2/operations/{record['operation']}", key, status=200)["stages"]
    return str({stage["name"]: stage.get("message") for stage in stages}["claim"]).startswith("hit")


def logged(nestor: OrchestratorProcess, words: str) -> int:
    return nestor.log.read_text().count(words)


def spares(nestor: OrchestratorProcess) -> set[str]:
    return {name for name in nestor.claims() if name.startswith("nestor-spare-")}


def diagnosed(nestor: OrchestratorProcess) -> str:
    """What `nestor doctor` says beside it."""
    command = [
        sys.executable,
        "-m",
        "orchestrator",
        "doctor",
        "--data-dir",
        str(nestor.data_dir),
        "--driver",
        "process",
    ]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/",
        "NESTOR_OPERATOR_KEY": OPERATOR_KEY,
        "NESTOR_WARM_POOL": "1",
    }
    told = subprocess.run([*command, "--url", nestor.url], capture_output=True, text=True, timeout=90, env=environment)
    assert told.returncode == 0, told.stdout
    return told.stdout


def volumes(nestor: OrchestratorProcess) -> set[str]:
    return {f"nestor-spare-{folder.name}" for folder in (nestor.data_dir / "volumes").iterdir()}


def shell(record: dict[str, Any], command: str) -> str:
    answer = httpx.post(
        f"{record['runtime']['url']}/api/bash/execute_bash_command",
        json={"command": command},
        headers={"X-Session-API-Key": record["runtime"]["session_key"]},
        timeout=60,
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["stdout"])


def test_a_spare_is_bound_once_and_nothing_of_one_tenant_is_in_the_runtime_of_the_next(data_dir: Path) -> None:
    with scripted_model() as model, orchestrator_at(data_dir, NESTOR_WARM_POOL="1", NESTOR_ZYGOTE="auto") as nestor:
        nestor.zygote_ready()
        first, second = nestor.tenant("first", model), nestor.tenant("second", model)
        nestor.call("PUT", "/api/v2/secrets/CANARY", first, json={"value": CANARY}, status=200)
        hits = 0
        for _ in range(ROUNDS):
            theirs = begun(nestor, first)
            assert "hunted" in shell(theirs, LEAVE + "; echo hunted")
            assert "left.txt" in shell(theirs, HUNT), "the hunt finds what is there"
            nestor.call("DELETE", f"/api/v2/conversations/{theirs['id']}?purge=true", first)
            ours = begun(nestor, second)
            assert shell(ours, HUNT).split() == ["hunted"]
            hits += hit(nestor, second, ours)
            nestor.call("DELETE", f"/api/v2/conversations/{ours['id']}?purge=true", second)
        assert hits >= ROUNDS - 1


def test_a_warm_conversation_survives_its_orchestrator_a_stop_and_a_start(data_dir: Path) -> None:
    with scripted_model() as model, orchestrator_at(data_dir, NESTOR_WARM_POOL="1") as nestor:
        key = nestor.tenant("acme", model)
        record = begun(nestor, key)
        assert hit(nestor, key, record)
        shell(record, "echo kept > kept.txt")
        nestor.kill()
        nestor.start()
        assert nestor.until(key, record["id"], "ready")["runtime"]["generation"] == record["runtime"]["generation"]
        assert "kept" in shell(record, "cat kept.txt")
        assert "1 in use; 1 hits and 0 misses" in diagnosed(nestor)
        nestor.call("POST", f"/api/v2/conversations/{record['id']}/stop", key, status=202)
        nestor.until(key, record["id"], "stopped")
        nestor.call("POST", f"/api/v2/conversations/{record['id']}/start", key, status=202)
        again = nestor.until(key, record["id"], "ready", "failed")
        assert again["phase"] == "ready", again
        assert "kept" in shell(again, "cat kept.txt")
        nestor.call("DELETE", f"/api/v2/conversations/{record['id']}?purge=true", key)
        wait_for(lambda: nestor.claims() == spares(nestor) and volumes(nestor) <= spares(nestor), 30)
