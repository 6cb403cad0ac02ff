"""`nestor up --workers 2`: two replicas on one port; one that dies is replaced, and nobody is turned away meanwhile."""

import os
import signal
import socket
import tempfile
from pathlib import Path

import httpx
import pytest
from support.processes import OrchestratorProcess, wait_for

from .test_journal_commands import state_servers


def workers(nestor: OrchestratorProcess) -> list[int]:
    children = Path(f"/proc/{nestor.pid}/task/{nestor.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"orchestrator\0up" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def accepted(pid: int) -> int:
    """How many connections that process holds open on its side."""
    return sum("socket:" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))


def ended(nestor: OrchestratorProcess) -> int:
    process = nestor._process
    assert process is not None
    with process:
        return process.wait(30)


def test_two_workers_serve_one_port_and_one_state_and_are_replaced():
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        nestor = OrchestratorProcess(Path(folder) / "data", NESTOR_WORKERS="2", NESTOR_EPHEMERAL="1")
        try:
            nestor.start()
            key = nestor.tenant("acme", "http://127.0.0.1:9")
            made = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=90", key, json={}, status=200)
            url = f"{nestor.url}/runtimes/{made['runtime']['id']}/server_info"
            headers = {"X-Session-API-Key": made["runtime"]["session_key"]}

            def ask() -> int:
                """On a connection of its own; one that a dying worker had taken is reset, and asked anew."""
                try:
                    return httpx.get(url, headers=headers, trust_env=False, timeout=60).status_code
                except httpx.TransportError:
                    return 0

            before = workers(nestor)
            assert len(before) == 2
            held = {pid: accepted(pid) for pid in before}
            clients = [httpx.Client(headers=headers, trust_env=False, timeout=60) for _ in range(40)]
            assert {client.get(url).status_code for client in clients} == {200}
            assert all(accepted(pid) > held[pid] for pid in before), "the kernel spreads connections over both"
            for client in clients:
                client.close()

            os.kill(before[0], signal.SIGKILL)
            assert wait_for(ask, 60) == 200
            assert {ask() for _ in range(10)} == {200}  # also those that wait for its successor
            wait_for(lambda: len(workers(nestor)) == 2 and before[0] not in workers(nestor), 60)
            assert nestor.conversation(key, made["id"])["phase"] == "ready"
            assert nestor.end() == 0
            assert not nestor.processes(), "workers, runtimes and state server are gone"
            assert not state_servers(nestor.data_dir)
        finally:
            if nestor._process is not None and nestor._process.poll() is None:
                nestor.end()


def test_what_the_first_worker_refuses_is_told_once_and_ends_all():
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        nestor = OrchestratorProcess(Path(folder) / "data", NESTOR_WORKERS="2", NESTOR_MASTER_KEY="short")
        with pytest.raises(AssertionError, match="NESTOR_MASTER_KEY"):
            nestor.start()
        assert ended(nestor) == 1
        assert not nestor.processes()
        assert nestor.log.read_text().count("nestor: ") == 1


def test_a_port_that_is_taken_is_told(tmp_path: Path):

    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        nestor = OrchestratorProcess(tmp_path / "data", NESTOR_WORKERS="2")
        nestor.port = taken.getsockname()[1]
        with pytest.raises(AssertionError, match="taken by another program"):
            nestor.start()
        assert ended(nestor) == 1
