"""SIGTERM: ends in time with status 0, leases given back, sockets closed with 1012; and the other replica goes on."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from redis import Redis
from redis.exceptions import RedisError
from support.models import scripted_model
from support.processes import OPERATOR_KEY, OrchestratorProcess, orchestrator_at, wait_for

from orchestrator.state.embedded import find_server

from .test_journal_commands import state_servers


@contextmanager
def redis_at(folder: Path) -> Iterator[str]:
    command = [str(find_server()), "--port", "0", "--unixsocket", str(folder / "s.sock"), "--dir", str(folder)]
    command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--logfile", str(folder / "redis.log")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    url = f"unix://{folder}/s.sock"

    def answers() -> bool:
        try:
            with Redis.from_url(url) as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False

    try:
        wait_for(answers, 20)
        yield url
    finally:
        process.kill()
        process.wait(10)


@contextmanager
def two_replicas() -> Iterator[tuple[OrchestratorProcess, OrchestratorProcess]]:
    """On one state server and one data folder, with real runtimes as processes of this machine."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nst-")))
        url = stack.enter_context(redis_at(folder))
        replicas = []
        for number in range(2):
            one = OrchestratorProcess(folder / "data", NESTOR_REDIS_URL=url, NESTOR_RUNTIME_PORTS="0")
            one.log = folder / f"replica-{number}.log"
            one.start()
            stack.callback(end, one)
            replicas.append(one)
        try:
            yield replicas[0], replicas[1]
        finally:
            for one in replicas:
                end(one)
            remove_runtimes(folder / "data", url)


def end(replica: OrchestratorProcess) -> None:
    process = replica._process
    if process is not None and process.poll() is None:
        replica.end()


def remove_runtimes(data_dir: Path, url: str) -> None:
    last = OrchestratorProcess(data_dir, NESTOR_REDIS_URL=url, NESTOR_RUNTIME_PORTS="0", NESTOR_EPHEMERAL="1")
    last.start()
    assert last.end() == 0


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


class Socket:
    """A client's socket on a runtime, in a thread of its own, and how it was closed."""

    def __init__(self, origin: str, conversation: str, key: str) -> None:
        self._address = f"{origin.replace('http', 'ws', 1)}/sockets/events/{conversation}"
        self._key = key
        self.code: int | None = None
        self.open = threading.Event()
        self.frames = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()))
        self._thread.start()

    async def _listen(self) -> None:
        headers = {"X-Session-API-Key": self._key}
        async with websockets.connect(self._address, additional_headers=headers, proxy=None) as socket:
            self.open.set()
            try:
                async for _ in socket:
                    self.frames += 1
            except websockets.ConnectionClosed:
                pass
            self.code = socket.close_code

    def closed(self, seconds: float) -> int | None:
        self._thread.join(seconds)
        return self.code


def origin(replica: OrchestratorProcess, record: dict[str, Any]) -> str:
    return f"{replica.url}/runtimes/{record['runtime']['id']}"


@pytest.mark.slow
def test_a_conversation_stays_connected_through_the_other_replica() -> None:
    with scripted_model() as model, two_replicas() as (first, second):
        key = first.tenant("acme", model)
        body = {"initial_message": 'SCRIPT:[{"text": "first"}, {"text": "second"}]'}
        made = first.call("POST", "/api/v2/conversations?wait=ready&timeout=90", key, json=body, status=200)
        session = made["runtime"]["session_key"]
        sockets = [Socket(origin(replica, made), made["id"], session) for replica in (first, second)]
        assert all(one.open.wait(20) for one in sockets)
        a_route_that_one_replica_withdraws_is_none_on_the_other(first, second, key)
        began = time.monotonic()
        status = first.end()
        assert (status, time.monotonic() - began < 30) == (0, True)
        assert sockets[0].closed(5) == 1012
        assert sockets[1].code is None, "the other replica's socket is not touched"
        headers = {"X-Session-API-Key": session}
        url = f"{origin(second, made)}/api/conversations/{made['id']}"
        assert httpx.get(url, headers=headers, trust_env=False, timeout=10).status_code == 200
        before = sockets[1].frames
        second.call("POST", f"/api/v2/conversations/{made['id']}/messages", key, json={"content": "more"}, status=202)
        wait_for(lambda: sockets[1].frames > before, 30)
        after = second.conversation(key, made["id"])
        assert (after["phase"], after["runtime"]["id"]) == ("ready", made["runtime"]["id"])
        assert after["runtime"]["generation"] == made["runtime"]["generation"]
        assert second.end() == 0
        assert sockets[1].closed(5) == 1012


def a_route_that_one_replica_withdraws_is_none_on_the_other(
    first: OrchestratorProcess, second: OrchestratorProcess, key: str
) -> None:
    made = first.call("POST", "/api/v2/conversations?wait=ready&timeout=90", key, json={}, status=200)
    headers = {"X-Session-API-Key": made["runtime"]["session_key"]}
    url = f"{origin(second, made)}/server_info"
    socket = Socket(origin(second, made), made["id"], made["runtime"]["session_key"])
    with httpx.Client(headers=headers, trust_env=False, timeout=10) as client:
        assert client.get(url).status_code == 200
        assert socket.open.wait(20)
        first.call("POST", f"/api/v2/conversations/{made['id']}/pause", key, status=202)
        first.until(key, made["id"], "paused")
        wait_for(lambda: client.get(url).status_code == 503, 10)  # a frozen runtime answers nobody
    assert socket.closed(5) == 1012


def test_leases_are_given_back_so_that_the_next_one_begins_at_once(data_dir: Path) -> None:
    """The lease would run for ten minutes: whoever comes next does not wait for that."""
    with orchestrator_at(data_dir, driver="fake", NESTOR_LEASE_SECONDS="600") as nestor:
        key = nestor.tenant("acme", "http://127.0.0.1:9")
        ids = [nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)["id"] for _ in range(5)]
        assert nestor.end() == 0
        nestor.start()
        for id in ids:
            record = nestor.until(key, id, "ready", "failed", seconds=30)
            assert record["phase"] == "ready" or record["reason"] == "runtime_lost"  # the fake engine ended with it


def test_a_second_signal_ends_it_at_once(data_dir: Path) -> None:
    with orchestrator_at(data_dir, driver="fake") as nestor:
        nestor.tenant("acme", "http://127.0.0.1:9")
        with httpx.stream("GET", f"{nestor.url}/alive", trust_env=False):
            pass
        process = nestor._process
        assert process is not None
        os.kill(nestor.pid, signal.SIGSTOP)  # so that both signals are there before it can end by the first
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        os.kill(nestor.pid, signal.SIGCONT)
        began = time.monotonic()
        assert process.wait(5) in (130, 0)
        assert time.monotonic() - began < 2
        assert process.stdout is not None
        process.stdout.close()
        wait_for(lambda: not state_servers(data_dir), 20)
        nestor.start()
        assert nestor.call("GET", "/api/v2/tenants", status=200)["items"]


def test_one_that_cannot_end_is_ended(data_dir: Path) -> None:
    """Whatever keeps it from ending: within thirty seconds it is gone, with status 0."""
    code = (
        "import time, anyio, asyncio\n"
        "from orchestrator.app import server\n"
        "server.LAST_SECONDS = 1.0\n"
        "async def stuck(self):\n"
        "    time.sleep(60)\n"
        "from orchestrator.services.workers import Workers\n"
        "Workers.drained = stuck\n"
        "import sys\n"
        "sys.argv = ['nestor', 'up', '--json', '--port', '0', '--driver', 'fake', '--data-dir', sys.argv[1]]\n"
        "from orchestrator.cli import main\n"
        "main()\n"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/",
        "NESTOR_OPERATOR_KEY": OPERATOR_KEY,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(data_dir)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.wait(20) == 0
    assert time.monotonic() - began < 10
    process.stdout.close()
    wait_for(lambda: not state_servers(data_dir), 20)  # it ends by itself, with its orchestrator
