"""`nestor doctor`, offline and beside a running orchestrator: every kind of trouble is named, with what to change."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from redis import Redis
from support.processes import OPERATOR_KEY, orchestrator_at, wait_for


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def doctor(data_dir: Path, *more: str, driver: str = "fake", **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator", "doctor", "--data-dir", str(data_dir), "--driver", driver, *more]
    environment = {"PATH": os.environ["PATH"], "HOME": "/", "NESTOR_OPERATOR_KEY": OPERATOR_KEY, **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment)


def findings(data_dir: Path, *more: str, driver: str = "fake", **variables: str) -> dict[tuple[str, str], str]:
    """Message and hint by what it is about and how bad it is."""
    told = doctor(data_dir, "--json", *more, driver=driver, **variables)
    assert told.stdout, told.stderr
    return {(one["about"], one["level"]): f"{one['message']} {one['hint']}" for one in json.loads(told.stdout)}


def test_before_the_first_start_it_makes_nothing(data_dir: Path) -> None:
    told = doctor(data_dir)
    assert told.returncode == 0, told.stdout
    assert "is not there yet" in told.stdout
    assert not data_dir.exists()


def test_a_sound_one_offline_and_online(data_dir: Path) -> None:
    with orchestrator_at(data_dir, driver="process") as nestor:
        nestor.tenant("acme", "http://127.0.0.1:9")
        online = doctor(data_dir, "--url", nestor.url, driver="process")
        assert online.returncode == 0, online.stdout
        for said in ("every line in its place", "every accepted write is on disk", "healthy and ready", "clock"):
            assert said in online.stdout
        assert nestor.end() == 0
        offline = doctor(data_dir, driver="process")
        assert offline.returncode == 0, offline.stdout
        assert "not looked at" in offline.stdout
        assert OPERATOR_KEY not in offline.stdout + online.stdout


def test_everything_that_is_wrong_is_named(data_dir: Path) -> None:
    with orchestrator_at(data_dir, driver="fake") as nestor:
        nestor.tenant("acme", "http://127.0.0.1:9")
        tenant = nestor.call("GET", "/api/v2/tenants", status=200)["items"][0]["id"]
        with Redis.from_url(f"unix://{data_dir}/state/server.sock") as raw:
            raw.config_set("maxmemory-policy", "allkeys-lru")
            # The orchestrator looks every two seconds; until then it has nothing to tell.
            online = ("--url", nestor.url)
            wait_for(lambda: "evicts" in findings(data_dir, *online).get(("orchestrator", "failure"), ""), 20)
            assert "noeviction" in findings(data_dir)[("state server", "failure")]
            raw.config_set("maxmemory-policy", "noeviction")
            raw.set("x:journal:archive", "another")
        assert "begin-anew" in findings(data_dir)[("journal", "failure")]
        assert nestor.end() == 0

        key = data_dir / "master.key"
        mine = key.read_bytes()
        key.write_bytes(base64.urlsafe_b64encode(bytes(32)) + b"\n")
        assert "another master key" in findings(data_dir)[("master key", "failure")]
        key.write_bytes(mine)
        key.chmod(0o644)
        assert "chmod 0600" in findings(data_dir)[("master key", "failure")]
        key.chmod(0o600)
        data_dir.chmod(0o755)
        assert "chmod 0700" in findings(data_dir)[("data folder", "failure")]
        data_dir.chmod(0o700)
        (segment,) = (data_dir / "journal" / tenant).glob("0*.jsonl")
        whole = segment.read_bytes()
        segment.write_bytes(whole.replace(b"acme", b"acne", 1))
        damaged = doctor(data_dir)
        assert damaged.returncode == 1
        assert f"{segment.name}:1" in damaged.stdout
        segment.write_bytes(whole)
        away = findings(data_dir, NESTOR_REDIS_URL="redis://127.0.0.1:9/0")
        assert "cannot be reached" in away[("state server", "failure")]
        repaired(data_dir)


def repaired(data_dir: Path) -> None:
    """So that the fixture can start it once more."""
    shutil.rmtree(data_dir / "state")


def test_what_is_damaged_stuck_or_heard_by_nobody_is_named(data_dir: Path) -> None:
    with gone() as receiver, orchestrator_at(data_dir, driver="fake", NESTOR_ALLOW_HOOK_HOSTS="127.0.0.1") as nestor:
        key = nestor.tenant("acme", "http://127.0.0.1:9")
        assert ("records", "ok") in findings(data_dir)
        hook = nestor.call("POST", "/api/v2/webhooks", key, json={"url": receiver}, status=201)["id"]
        damaged, stuck, idle = (
            nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)["id"] for _ in range(3)
        )
        for id in (damaged, stuck, idle):
            nestor.until(key, id, "ready")
        with Redis.from_url(f"unix://{data_dir}/state/server.sock") as raw:
            (record,) = raw.keys(f"*:c:{damaged}")
            raw.hset(record, "record", '{"schema": 1')
            (other,) = raw.keys(f"*:c:{stuck}")
            log = {"#": 1, "place:volume": 1, "note:volume": "", "stuck:volume": "no disk"}
            since = int(raw.time()[0]) - 100
            raw.hset(other + b":saga", mapping={**log, "since:volume": since})
            nestor.call("POST", f"/api/v2/conversations/{idle}/stop", key, status=202)
            nestor.until(key, idle, "stopped")
            wait_for(lambda: not raw.zcount(other.rpartition(b":c:")[0] + b":slots", "-inf", "+inf") > 2, 10)
            raw.zadd(other.rpartition(b":c:")[0] + b":slots", {idle: 1})
        wait_for(lambda: ("webhook", "warning") in findings(data_dir), 20)
        found = findings(data_dir)
        assert damaged in found[("record", "failure")]
        assert "journal restore" in found[("record", "failure")]
        assert f"{stuck} of tenant" in found[("stuck undo", "warning")]
        assert "volume: no disk, for 1" in found[("stuck undo", "warning")]
        assert f"{idle} of tenant" in found[("slot", "warning")]
        assert f"{hook} of tenant" in found[("webhook", "warning")]
        assert "(gone)" in found[("webhook", "warning")]
        assert doctor(data_dir).returncode == 1


@contextmanager
def gone() -> Iterator[str]:
    """A receiver that answers 410 to everything."""

    class Gone(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(410)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Not on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gone)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_zombie_is_named(data_dir: Path) -> None:
    """A claim of this installation for which there is no record, planted as a crash leaves it."""
    with orchestrator_at(data_dir, driver="process", NESTOR_RUNTIME_COMMAND=_slow()) as nestor:
        key = nestor.tenant("acme", "http://127.0.0.1:9")
        made = nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
        (written,) = wait_for(lambda: list((data_dir / "runtimes").glob("*/claim.json")), 30)
        name, claim = written.parent.name, written.read_text()
        runtime = nestor.conversation(key, made["id"])["runtime"]["id"]
        other = runtime[:-4] + "ffff"
        planted = data_dir / "runtimes" / name.replace(runtime, other)
        planted.mkdir(mode=0o700)
        (planted / "claim.json").write_text(claim.replace(runtime, other).replace(made["id"], other))
        found = findings(data_dir, driver="process", NESTOR_RUNTIME_COMMAND=_slow())
        assert other in found[("zombie", "failure")]


def _slow() -> str:
    """A runtime that never answers, so that its start lasts."""
    return f"{sys.executable} -c 'import time; time.sleep(60)'"
