"""`nestor up` as it comes: conversations in forked runtimes, which outlive both the orchestrator and the zygote."""

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.models import scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def claim_of(nestor: OrchestratorProcess, record: dict[str, Any]) -> dict[str, Any]:
    name = f"nestor-{record['runtime']['id']}-g{record['runtime']['generation']}"
    claim: dict[str, Any] = json.loads((nestor.data_dir / "runtimes" / name / "claim.json").read_text())
    return claim


def conversation(nestor: OrchestratorProcess, key: str, text: str) -> dict[str, Any]:
    body = {"initial_message": f'SCRIPT:[{{"text": "{text}"}}]'}
    record: dict[str, Any] = nestor.call(
        "POST", "/api/v2/conversations?wait=ready&timeout=60", key, json=body, status=200
    )
    said(nestor, key, record, text)
    return record


def said(nestor: OrchestratorProcess, key: str, record: dict[str, Any], text: str) -> None:
    """Wait until the agent has said it."""

    def there() -> bool:
        events = nestor.call("GET", f"/api/v2/conversations/{record['id']}/events?limit=100", key, status=200)["items"]
        sources = [json.dumps(item["event"]) for item in events if item["event"].get("source") == "agent"]
        return any(text in source for source in sources)

    wait_for(there, 40)


def test_conversations_run_in_forked_runtimes_that_outlive_orchestrator_and_zygote(data_dir: Path) -> None:
    with scripted_model() as model, orchestrator_at(data_dir, NESTOR_ZYGOTE="auto") as nestor:
        assert "zygote" in nestor.call("GET", "/server_info")["starts"]
        zygote = nestor.zygote_ready()
        key = nestor.tenant("acme", model)
        first = conversation(nestor, key, "from the first")
        assert claim_of(nestor, first)["zygote"]

        nestor.kill()
        nestor.start()
        assert nestor.zygote_ready() == zygote  # adopted, not started again
        message = {"content": 'SCRIPT:[{"text": "after the orchestrator died"}]'}
        nestor.call("POST", f"/api/v2/conversations/{first['id']}/messages", key, json=message, status=202)
        said(nestor, key, first, "after the orchestrator died")

        os.kill(zygote, signal.SIGKILL)
        message = {"content": 'SCRIPT:[{"text": "after the zygote died"}]'}
        nestor.call("POST", f"/api/v2/conversations/{first['id']}/messages", key, json=message, status=202)
        said(nestor, key, first, "after the zygote died")
        second = conversation(nestor, key, "from the second")  # executed, or forked by the next zygote already
        assert nestor.conversation(key, second["id"])["phase"] == "ready"

        # Nobody can say any more how the first one ends; that it did is known.
        os.kill(claim_of(nestor, first)["server"]["pid"], signal.SIGKILL)
        lost = nestor.until(key, first["id"], "failed", "stopped")
        assert lost["reason"] == "runtime_lost"
        assert nestor.conversation(key, second["id"])["phase"] == "ready"
