"""A state server of one's own that is killed, stopped, slow, a replica, full, evicting, emptied: a real one each."""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from redis.exceptions import RedisError
from support.ports import lasting_port
from support.processes import OPERATOR_KEY, OrchestratorProcess, wait_for
from support.relay import Relay, relay
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from orchestrator.state.embedded import find_server


class StateServer:
    """A real server on a port of loopback, which can be killed and started again over its folder."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.port = lasting_port()
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "StateServer":
        command = [str(find_server()), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        command += ["--save", "", "--logfile", str(self._folder / "log"), "--enable-debug-command", "yes", *self._flags]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        wait_for(self._answers, 20)
        return self

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def do(self, *command: str) -> Any:
        with Redis("127.0.0.1", self.port, socket_timeout=10) as client:
            return client.execute_command(*command)

    def _answers(self) -> bool:
        try:
            return bool(self.do("PING"))
        except (RedisError, OSError):
            return False


@dataclass
class Traffic:
    """Proxied requests, one after the other, for as long as the block lasts."""

    statuses: list[int] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    slowest: float = 0.0

    @contextmanager
    def flows(self, url: str, key: str) -> Iterator[None]:
        stop = threading.Event()

        def run() -> None:
            with httpx.Client(trust_env=False, timeout=10, headers={"X-Session-API-Key": key}) as client:
                while not stop.is_set():
                    began = time.monotonic()
                    answer = client.get(url)
                    self.statuses.append(answer.status_code)
                    if answer.status_code != 200:
                        self.refusals.append(answer.text)
                    self.slowest = max(self.slowest, time.monotonic() - began)
                    time.sleep(0.05)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            wait_for(lambda: self.statuses, 10)
            yield
        finally:
            stop.set()
            thread.join(20)


@dataclass
class Place:
    """An orchestrator behind a relay to its state server, with one ready conversation."""

    state: StateServer
    relay: Relay
    nestor: OrchestratorProcess
    key: str
    id: str

    @property
    def record(self) -> dict[str, Any]:
        return self.nestor.conversation(self.key, self.id)

    def create(self) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        url = self.nestor.url + "/api/v2/conversations"
        return httpx.post(url, json={}, headers=headers, timeout=30, trust_env=False)

    def probe(self, path: str) -> httpx.Response:
        return httpx.get(self.nestor.url + path, timeout=30, trust_env=False)

    def proxied(self, record: dict[str, Any]) -> tuple[str, str]:
        runtime = record["runtime"]
        return f"{self.nestor.url}/runtimes/{runtime['id']}/api/conversations/{self.id}", runtime["session_key"]


@contextmanager
def place(*flags: str, lease: str = "15") -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        state = StateServer(Path(folder) / "redis", *flags).start()
        try:
            with relay(state.port) as between:
                nestor = OrchestratorProcess(
                    Path(folder) / "data",
                    driver="fake",
                    NESTOR_REDIS_URL=f"redis://127.0.0.1:{between.port}/0",
                    NESTOR_LEASE_SECONDS=lease,
                    NESTOR_RUNTIME_PORTS="0",
                )
                nestor.start()
                try:
                    key = nestor.tenant("acme", "http://127.0.0.1:9")
                    path = "/api/v2/conversations?wait=ready&timeout=60"
                    made = nestor.call("POST", path, key, json={}, status=200)
                    yield Place(state, between, nestor, key, made["id"])
                finally:
                    nestor.kill()
        finally:
            state.kill()


@pytest.fixture
def here() -> Iterator[Place]:
    with place("--appendonly", "yes", "--appendfsync", "always") as made:
        yield made


def timed(call: Callable[[], httpx.Response]) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    return call(), time.monotonic() - began


@pytest.mark.slow
def test_down_for_a_minute_starts_are_refused_at_once_and_traffic_goes_on(here: Place) -> None:
    before = here.record
    traffic, seconds = Traffic(), []
    with traffic.flows(*here.proxied(before)):
        here.state.kill()
        ends = time.monotonic() + 62
        while time.monotonic() < ends:
            answer, took = timed(here.create)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
            seconds.append(took)
            time.sleep(1)
        assert here.probe("/health").status_code == 503
        assert here.probe("/alive").status_code == 200
        here.state.start()
        wait_for(lambda: here.probe("/health").status_code == 200, 30)
    assert statistics.median(seconds) < 1, seconds
    assert set(traffic.statuses) == {200}, traffic.refusals[:3]
    assert len(traffic.statuses) > 200
    after = here.record
    assert (after["phase"], after["runtime"]) == (before["phase"], before["runtime"])
    assert here.create().status_code == 202


def test_silent_it_costs_one_long_wait_and_then_little(here: Place) -> None:
    before = here.record
    traffic = Traffic()
    with traffic.flows(*here.proxied(before)):
        here.state.send(signal.SIGSTOP)
        wait_for(lambda: here.probe("/health").status_code == 503, 15)
        refused = [timed(here.create) for _ in range(5)]
        assert [answer.status_code for answer, _ in refused] == [503] * 5
        assert statistics.median(seconds for _, seconds in refused) < 1, refused
        here.state.send(signal.SIGCONT)
        wait_for(lambda: here.probe("/health").status_code == 200, 30)
    assert set(traffic.statuses) == {200}, traffic.refusals[:3]
    assert traffic.slowest < 5
    assert here.record["runtime"] == before["runtime"]
    assert here.create().status_code == 202


def test_an_event_socket_comes_later_and_an_open_one_goes_on(here: Place) -> None:
    url = f"{here.nestor.url.replace('http', 'ws')}/api/v2/conversations/{here.id}/events/socket"
    headers = {"Authorization": f"Bearer {here.key}"}
    with connect(url, additional_headers=headers, proxy=None) as opened:
        assert json.loads(opened.recv(10))["phase"] == "ready"
        here.state.kill()
        with connect(url, additional_headers=headers, proxy=None) as late, pytest.raises(ConnectionClosed) as closed:
            late.recv(20)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "Try again later")
        here.state.start()
        wait_for(lambda: here.create().status_code == 202, 30)
        here.nestor.call("POST", f"/api/v2/conversations/{here.id}/pause", here.key, status=202)
        phases = []
        while "paused" not in phases:
            phases.append(json.loads(opened.recv(30)).get("phase"))


@pytest.mark.slow
def test_two_seconds_slow_nobody_is_taken_for_dead(here: Place) -> None:
    """Longer than two leases: every renewal is two seconds late, and none is lost."""
    before = here.record
    traffic = Traffic()
    with traffic.flows(*here.proxied(before)):
        here.relay.latency = 2.0
        time.sleep(35)
        here.relay.latency = 0.0
    assert set(traffic.statuses) == {200}, traffic.refusals[:3]
    log = here.nestor.log.read_text()
    assert "lease.lost" not in log
    assert "runtime.lost" not in log
    assert log.count("did not answer in time") < 3  # two seconds late is in time
    wait_for(lambda: here.probe("/health").status_code == 200, 15)
    assert here.record["runtime"] == before["runtime"]


def test_a_replica_after_a_failover_is_left_for_the_new_primary(here: Place) -> None:
    """The address leads elsewhere after the failover, as with a service name; open connections still lead to the old
    one, which takes no writes."""
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        second = StateServer(Path(folder) / "redis", "--appendonly", "yes").start()
        try:
            before = here.record
            second.do("REPLICAOF", "127.0.0.1", str(here.state.port))
            wait_for(lambda: b"master_link_status:up" in raw_info(second), 10)
            second.do("REPLICAOF", "NO", "ONE")
            here.state.do("REPLICAOF", "127.0.0.1", str(second.port))
            here.relay.target = second.port
            wait_for(lambda: here.create().status_code == 202, 30, pause=0.1)
            for _ in range(20):
                assert here.create().status_code == 202
            assert here.record["runtime"] == before["runtime"]
        finally:
            second.kill()


def raw_info(server: StateServer) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(b"INFO replication\r\n")
        time.sleep(0.05)
        return client.recv(65536)


def test_out_of_memory_writes_are_refused_and_reads_work(here: Place) -> None:
    before = here.record
    here.state.do("CONFIG", "SET", "maxmemory", "1mb")
    answer = here.create()
    assert answer.status_code == 503
    assert "memory" in answer.json()["detail"]
    assert here.record["runtime"] == before["runtime"]
    here.state.do("CONFIG", "SET", "maxmemory", "0")
    assert here.create().status_code == 202


def test_an_eviction_policy_is_noticed_while_it_serves(here: Place) -> None:
    assert here.probe("/health").json() == {"status": "ok"}
    here.state.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    wait_for(lambda: here.probe("/health").status_code == 503, 10)
    assert "evicts" in here.probe("/health").json()["problems"][0]
    assert here.probe("/ready").status_code == 503
    here.state.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
    wait_for(lambda: here.probe("/health").status_code == 200, 30)


def test_an_eviction_policy_is_refused_at_the_start() -> None:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        state = StateServer(Path(folder) / "redis", "--maxmemory-policy", "allkeys-lru").start()
        try:
            command = ["-m", "orchestrator", "up", "--port", "0", "--driver", "fake", "--data-dir", f"{folder}/data"]
            environment = {
                "PATH": os.environ["PATH"],
                "NESTOR_REDIS_URL": f"redis://127.0.0.1:{state.port}/0",
                "NESTOR_OPERATOR_KEY": OPERATOR_KEY,
            }
            refused = subprocess.run(
                [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=60
            )
            assert refused.returncode == 1
            assert "maxmemory-policy noeviction" in refused.stderr
        finally:
            state.kill()


def test_restarted_without_its_files_it_is_written_anew_and_nobody_notices_but_by_a_wait() -> None:
    """A server that keeps nothing on disk: every accepted change waited for the journal."""
    with place("--appendonly", "no") as here:
        before, traffic = here.record, Traffic()
        with traffic.flows(*here.proxied(before)):
            accepted = [here.create().json()["id"] for _ in range(10)]
            here.state.kill()
            here.state.start()
            # what was started again may answer before it is noticed that it was
            wait_for(lambda: "recovery.done" in here.nestor.log.read_text(), 20)
            wait_for(lambda: here.probe("/health").status_code == 200, 20)
        assert set(traffic.statuses) == {200}, traffic.refusals[:3]
        after = here.record
        assert (after["phase"], after["runtime"]) == ("ready", before["runtime"])
        for id in accepted:
            assert here.nestor.until(here.key, id, "ready", seconds=60)["phase"] == "ready"
        claimed = here.nestor.log.read_text()
        assert "recovery.done" in claimed
