"""`kill -9` of the orchestrator during a start: afterwards every conversation is ready, or failed with a reason, and no
runtime is without an owner."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.models import scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for

RECONCILED_WITHIN = 40.0


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def owned(nestor: OrchestratorProcess, key: str, *ids: str) -> set[str]:
    """The runtimes that the records want."""
    names = set()
    for id in ids:
        record = nestor.conversation(key, id)
        if record["phase"] == "ready":
            names.add(f"nestor-{record['runtime']['id']}-g{record['runtime']['generation']}")
    return names


@pytest.mark.parametrize("stage", ["start", "alive", "settings"])
def test_killed_during_a_start_the_conversation_becomes_ready(data_dir: Path, stage: str) -> None:
    with scripted_model() as model, orchestrator_at(data_dir) as nestor:
        key = nestor.tenant("acme", model)
        accepted = nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
        wait_for_stage_begun(nestor, key, accepted["operation"], stage)
        nestor.kill()
        nestor.start()
        record = nestor.until(key, accepted["id"], "ready", "failed")
        assert record["phase"] == "ready", record
        wait_for(lambda: nestor.claims() == owned(nestor, key, accepted["id"]), RECONCILED_WITHIN)


def wait_for_stage_begun(nestor: OrchestratorProcess, key: str, operation: str, stage: str) -> None:
    def begun() -> bool:
        stages = nestor.call("GET", f"/api/v2/operations/{operation}", key, status=200)["stages"]
        return {item["name"]: item["state"] for item in stages}[stage] != "waiting"

    wait_for(begun, 30, pause=0.002)


def test_killed_while_the_repository_is_cloned_it_fails_with_a_reason(data_dir: Path) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # accepts and never answers, so that the clone takes for ever
    with silent, scripted_model() as model, orchestrator_at(data_dir) as nestor:
        key = nestor.tenant("acme", model)
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        nestor.call("PUT", "/api/v2/git-providers/github", key, json={"token": "t-1", "host": host}, status=200)
        body = {"repository": "acme/app", "initial_message": "never said"}
        accepted = nestor.call("POST", "/api/v2/conversations", key, json=body, status=202)
        nestor.until_stage(key, accepted["operation"], "converse")
        nestor.kill()
        silent.close()  # now it is refused
        nestor.start()
        record = nestor.until(key, accepted["id"], "ready", "failed")
        assert (record["phase"], record["step"], record["reason"]) == ("failed", "converse", "repository_unavailable")
        assert record["hint"]
        wait_for(lambda: nestor.claims() == set(), RECONCILED_WITHIN)


def test_a_ready_conversation_notices_nothing_of_a_killed_orchestrator(data_dir: Path) -> None:
    with scripted_model() as model, orchestrator_at(data_dir) as nestor:
        key = nestor.tenant("acme", model)
        body = {"initial_message": 'SCRIPT:[{"text": "first"}, {"text": "second"}]'}
        before = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json=body, status=200)
        claims = nestor.claims()
        nestor.kill()
        nestor.start()
        after = nestor.conversation(key, before["id"])
        assert after["phase"] == "ready"
        assert after["runtime"] == before["runtime"], "address and key survive"
        assert nestor.claims() == claims
        nestor.call("POST", f"/api/v2/conversations/{before['id']}/messages", key, json={"content": "more"}, status=202)
        wait_for(lambda: said(nestor, key, before["id"]).count("user") == 2, 60)


def said(nestor: OrchestratorProcess, key: str, id: str) -> list[str]:
    page = nestor.call("GET", f"/api/v2/conversations/{id}/events", key, status=200)
    return [item["event"]["source"] for item in page["items"] if item["event"]["kind"] == "MessageEvent"]
