"""The state server of `nestor up` is killed while it serves: it comes back, with everything that was accepted."""

import os
import signal
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.processes import OrchestratorProcess, orchestrator_at, wait_for


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def state_server(nestor: OrchestratorProcess) -> int:
    """The pid of whoever listens on the state server's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(nestor.data_dir / "state" / "server.sock"))
        pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def test_a_killed_state_server_comes_back_with_everything(data_dir: Path) -> None:
    with orchestrator_at(data_dir, driver="fake") as nestor:
        key = nestor.tenant("acme", "http://127.0.0.1:9")
        before = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json={}, status=200)
        os.kill(state_server(nestor), signal.SIGKILL)
        wait_for(lambda: httpx.get(nestor.url + "/ready", trust_env=False).status_code == 200)
        assert nestor.conversation(key, before["id"])["runtime"] == before["runtime"]
        after = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json={}, status=200)
        assert after["phase"] == "ready"
        assert "state_server.ended" in nestor.log.read_text()
