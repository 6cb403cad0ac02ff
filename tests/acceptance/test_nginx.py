"""`nestor up --data-plane nginx`: nginx carries the bytes of real runtimes, and neither outlives the other for long."""

import json
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.models import scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for
from websockets.sync.client import connect

from orchestrator.app.nginx_plan import run_folder


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def ready(nestor: OrchestratorProcess, key: str, **limits: int) -> dict[str, Any]:
    record: dict[str, Any] = nestor.call(
        "POST", "/api/v2/conversations?wait=ready&timeout=60", key, json={"settings": {"limits": limits}}, status=200
    )
    return record


def settings_of(record: dict[str, Any]) -> httpx.Response:
    url, key = record["runtime"]["url"], record["runtime"]["session_key"]
    return httpx.get(f"{url}/api/settings", headers={"X-Session-API-Key": key}, timeout=60, trust_env=False)


def folder_of(nestor: OrchestratorProcess) -> Path:
    return nestor.data_dir / "nginx" / f"127.0.0.1-{nestor.port}"


def nginxes(folder: Path) -> set[int]:
    """The processes that work there."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").samefile(folder) and (process / "stat").read_text().split()[2] != "Z":
                found.add(int(process.name))
        except OSError:
            continue
    return found


def inner_key(nestor: OrchestratorProcess, record: dict[str, Any]) -> str:
    """What the orchestrator tells nginx."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(run_folder(folder_of(nestor)) / "decision.sock"))
        asking.sendall(f"127.0.0.1 {record['runtime']['id']} key {record['runtime']['session_key']}\n".encode())
        return asking.makefile().readline().split()[-1]


def test_it_serves_wakes_outlives_a_kill_and_ends(data_dir: Path) -> None:
    plane = {"NESTOR_DATA_PLANE": "nginx", "NESTOR_RUNTIME_PORTS": "0"}
    with scripted_model() as model, orchestrator_at(data_dir, **plane) as nestor:
        key = nestor.tenant("acme", model)
        sleeper, record = ready(nestor, key, idle_pause_seconds=2), ready(nestor, key)
        answer = settings_of(record)
        assert answer.status_code == 200, answer.text
        assert answer.json()["agent_settings"]["llm"]["model"] == "openai/scripted"
        socket_url = record["runtime"]["url"].replace("http", "ws", 1) + f"/sockets/events/{record['id']}"
        with connect(socket_url, open_timeout=60, proxy=None) as events:
            events.send(json.dumps({"type": "auth", "session_api_key": record["runtime"]["session_key"]}))
            assert json.loads(events.recv(timeout=60))["key"] == "full_state"
        nestor.until(key, sleeper["id"], "paused")
        assert settings_of(sleeper).status_code == 200

        folder, inner = folder_of(nestor), inner_key(nestor, record)
        written = [path.read_text() for path in folder.rglob("*") if path.is_file()]
        assert len(written) > 5
        assert not any(inner in text or record["runtime"]["id"] in text for text in written)
        assert inner not in nestor.log.read_text()

        assert settings_of(record).status_code == 200
        nestor.kill()
        assert settings_of(record).status_code == 200  # nginx goes on with what it was told
        away = httpx.get(f"{nestor.url}/api/v2/conversations", trust_env=False)
        assert (away.status_code, away.json()["code"], away.headers["retry-after"]) == (503, "runtime_unavailable", "1")
        left = nginxes(folder)
        assert left
        nestor.start()
        assert not left & nginxes(folder)
        assert settings_of(record).status_code == 200

        pid_file = run_folder(folder) / "nginx.pid"
        master = int(pid_file.read_text())
        os.kill(master, signal.SIGKILL)  # it is started again, on the same port
        wait_for(lambda: pid_file.exists() and pid_file.read_text().strip() not in ("", str(master)))
        assert settings_of(record).status_code == 200
        assert nestor.end() == 0
        assert nginxes(folder) == set()
        assert not run_folder(folder).exists()
