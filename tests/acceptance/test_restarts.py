"""`kill -9` of real runtimes: each starts again as a new generation over its workspace, and a crash loop ends."""

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.models import scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for

pytestmark = pytest.mark.timeout(300)
NOTICED_WITHIN = 5.0


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def kill_runtime(nestor: OrchestratorProcess, record: dict[str, Any]) -> None:
    name = f"nestor-{record['runtime']['id']}-g{record['runtime']['generation']}"
    claim = json.loads((nestor.data_dir / "runtimes" / name / "claim.json").read_text())
    os.kill((claim.get("init") or claim["server"])["pid"], signal.SIGKILL)


def again(nestor: OrchestratorProcess, key: str, record: dict[str, Any]) -> dict[str, Any]:
    """The record, as soon as a later generation is ready."""

    def later() -> Any:
        now = nestor.conversation(key, record["id"])
        return now["phase"] == "ready" and now["runtime"]["generation"] > record["runtime"]["generation"] and now

    return dict(wait_for(later, 90, pause=0.1))


def test_killed_runtimes_start_again_until_there_were_too_many(data_dir: Path) -> None:
    variables = {"NESTOR_RESTART": "on_failure", "NESTOR_RESTART_MAX": "2", "NESTOR_RESTART_BACKOFF_SECONDS": "0.5"}
    with scripted_model() as model, orchestrator_at(data_dir, **variables) as nestor:
        key = nestor.tenant("acme", model)
        body = {"initial_message": 'SCRIPT:[{"text": "first"}, {"text": "second"}]'}
        record = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=90", key, json=body, status=200)
        wait_for(lambda: "agent" in sources(nestor, key, record["id"]), 60)
        (workspace,) = (data_dir / "volumes").glob("*/workspace")
        (workspace / "work.txt").write_text("of the first generation")
        killed_at = time.monotonic()
        kill_runtime(nestor, record)
        wait_for(lambda: nestor.conversation(key, record["id"])["phase"] != "ready", 30, pause=0.02)
        noticed = time.monotonic() - killed_at
        assert noticed < NOTICED_WITHIN
        record = again(nestor, key, record)
        assert (workspace / "work.txt").read_text() == "of the first generation"
        nestor.call(
            "POST", f"/api/v2/conversations/{record['id']}/messages", key, json={"content": "go on"}, status=202
        )
        wait_for(lambda: sources(nestor, key, record["id"]).count("user") == 2, 60)
        kill_runtime(nestor, record)
        record = again(nestor, key, record)
        kill_runtime(nestor, record)
        failed = nestor.until(key, record["id"], "failed")
        assert failed["reason"] == "runtime_lost"
        assert "after 2 restarts" in failed["message"]
        assert [failure["restarted"] for failure in failed["failures"]] == [False, True, True]
        wait_for(lambda: nestor.claims() == set(), 30)


def test_a_restart_goes_on_when_the_orchestrator_is_killed_meanwhile(data_dir: Path) -> None:
    variables = {"NESTOR_RESTART": "on_failure", "NESTOR_RESTART_BACKOFF_SECONDS": "1"}
    with scripted_model() as model, orchestrator_at(data_dir, **variables) as nestor:
        key = nestor.tenant("acme", model)
        record = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=90", key, json={}, status=200)
        kill_runtime(nestor, record)
        nestor.until(key, record["id"], "pending")
        nestor.kill()
        nestor.start()
        record = again(nestor, key, record)
        assert len(record["failures"]) == 1
        wait_for(lambda: len(nestor.claims()) == 1, 40)


def sources(nestor: OrchestratorProcess, key: str, id: str) -> list[str]:
    page = nestor.call("GET", f"/api/v2/conversations/{id}/events", key, status=200)
    return [item["event"]["source"] for item in page["items"] if item["event"]["kind"] == "MessageEvent"]
