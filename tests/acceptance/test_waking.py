"""A real runtime that idles is frozen; whoever uses it at its own address finds it as it was."""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.models import scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for
from websockets.sync.client import connect

IDLE_SECONDS = {"idle_pause_seconds": 2}


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


@pytest.fixture(scope="module")
def nestor() -> Iterator[OrchestratorProcess]:
    """One for the tests that do it no harm; each has a tenant of its own."""
    with tempfile.TemporaryDirectory(prefix="nst-") as folder, orchestrator_at(Path(folder) / "data") as running:
        yield running


def ready(nestor: OrchestratorProcess, key: str, limits: dict[str, int] = IDLE_SECONDS) -> dict[str, Any]:
    record: dict[str, Any] = nestor.call(
        "POST", "/api/v2/conversations?wait=ready&timeout=60", key, json={"settings": {"limits": limits}}, status=200
    )
    return record


def settings_of(record: dict[str, Any], key: str) -> httpx.Response:
    url = f"{record['runtime']['url']}/api/settings"
    return httpx.get(url, headers={"X-Session-API-Key": key}, timeout=60, trust_env=False)


def test_a_request_wakes_it_and_a_wrong_key_does_not(nestor: OrchestratorProcess) -> None:
    with scripted_model() as model:
        key = nestor.tenant("first", model)
        record = ready(nestor, key)
        asleep = nestor.until(key, record["id"], "paused")
        assert (asleep["reason"], asleep["runtime"]) == ("idle", record["runtime"])
        assert settings_of(record, "not-the-key").status_code == 401
        assert nestor.conversation(key, record["id"])["phase"] == "paused"
        answer = settings_of(record, record["runtime"]["session_key"])
        assert answer.status_code == 200, answer.text
        assert answer.json()["agent_settings"]["llm"]["model"] == "openai/scripted"
        nestor.until(key, record["id"], "paused")


def test_an_open_socket_holds_it_and_a_new_one_wakes_it(nestor: OrchestratorProcess) -> None:
    with scripted_model() as model:
        key = nestor.tenant("second", model)
        record = ready(nestor, key)
        nestor.until(key, record["id"], "paused")
        url = record["runtime"]["url"].replace("http", "ws", 1) + f"/sockets/events/{record['id']}"
        with connect(url, open_timeout=60, proxy=None) as socket:
            socket.send(json.dumps({"type": "auth", "session_api_key": record["runtime"]["session_key"]}))
            assert json.loads(socket.recv(timeout=60))["key"] == "full_state"
            held_until = time.monotonic() + 5
            while time.monotonic() < held_until:  # longer than it may idle
                assert nestor.conversation(key, record["id"])["phase"] == "ready"
                time.sleep(0.1)
        nestor.until(key, record["id"], "paused")


def test_its_port_wakes_it_also_when_it_was_stopped_later_and_after_a_kill(data_dir: Path) -> None:
    with scripted_model() as model, orchestrator_at(data_dir) as nestor:
        key = nestor.tenant("acme", model)
        record = ready(nestor, key, {**IDLE_SECONDS, "stop_paused_seconds": 1})
        path = f"/api/v2/conversations/{record['id']}"
        asleep = nestor.until(key, record["id"], "stopped")
        assert asleep["reason"] == "idle"
        assert nestor.claims() == set()
        assert settings_of(record, "not-the-key").status_code == 401
        assert nestor.conversation(key, record["id"])["phase"] == "stopped"
        answer = settings_of(record, record["runtime"]["session_key"])
        assert answer.status_code == 200, answer.text

        nestor.until(key, record["id"], "stopped")
        nestor.kill()
        nestor.start()
        wait_for(lambda: listens(record), 30)
        url = record["runtime"]["url"].replace("http", "ws", 1) + f"/sockets/events/{record['id']}"
        with connect(url, open_timeout=60, proxy=None) as socket:
            socket.send(json.dumps({"type": "auth", "session_api_key": record["runtime"]["session_key"]}))
            assert json.loads(socket.recv(timeout=60))["key"] == "full_state"
        assert nestor.conversation(key, record["id"])["runtime"]["url"] == record["runtime"]["url"]

        nestor.until(key, record["id"], "stopped")
        nestor.call("POST", f"{path}/stop", key, status=202)  # somebody does it: it stays so
        wait_for(lambda: not listens(record), 30)
        assert nestor.conversation(key, record["id"])["phase"] == "stopped"


def test_paused_by_a_caller_it_answers_503_until_it_is_resumed_also_after_a_kill(data_dir: Path) -> None:
    with scripted_model() as model, orchestrator_at(data_dir) as nestor:
        key = nestor.tenant("acme", model)
        record = ready(nestor, key)
        path = f"/api/v2/conversations/{record['id']}"
        nestor.call("POST", f"{path}/pause", key, status=202)
        nestor.until(key, record["id"], "paused")
        nestor.kill()
        nestor.start()
        wait_for(lambda: listens(record), 30)
        refused = settings_of(record, record["runtime"]["session_key"])
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert "resume" in refused.text
        assert nestor.conversation(key, record["id"])["phase"] == "paused"
        nestor.call("POST", f"{path}/resume?wait=ready&timeout=60", key, status=200)
        assert settings_of(record, record["runtime"]["session_key"]).status_code == 200


def listens(record: dict[str, Any]) -> bool:
    try:
        httpx.get(f"{record['runtime']['url']}/alive", timeout=10, trust_env=False)
    except httpx.TransportError:
        return False
    return True
