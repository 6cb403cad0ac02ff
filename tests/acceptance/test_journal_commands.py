"""The journal by hand: checked, damaged, restored from, begun anew; and a real runtime taken over by the next start."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.models import scripted_model
from support.processes import OPERATOR_KEY, OrchestratorProcess, orchestrator_at, wait_for


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def nestor(*arguments: str, data_dir: Path, url: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator", *arguments, "--data-dir", str(data_dir)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/", "NESTOR_OPERATOR_KEY": OPERATOR_KEY}
    if url is not None:
        environment["NESTOR_JOURNAL_URL"] = url
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def lose_state(data_dir: Path) -> None:
    shutil.rmtree(data_dir / "state")


def said(orchestrator: OrchestratorProcess, key: str, id: str) -> list[str]:
    page = orchestrator.call("GET", f"/api/v2/conversations/{id}/events", key, status=200)
    return [item["event"]["source"] for item in page["items"] if item["event"]["kind"] == "MessageEvent"]


def test_real_runtimes_are_taken_over_when_the_state_is_lost(data_dir: Path) -> None:
    """Killed together with its state server, whose files are lost: the machine that comes back knows everything."""
    with scripted_model() as model, orchestrator_at(data_dir) as running:
        key = running.tenant("acme", model)
        script = 'SCRIPT:[{"text": "first"}, {"text": "second"}]'
        made = [
            running.call(
                "POST",
                "/api/v2/conversations?wait=ready&timeout=90",
                key,
                json={"initial_message": script},
                status=200,
            )
            for _ in range(3)
        ]
        before = {id: running.conversation(key, id)["runtime"] for id in (one["id"] for one in made)}
        state = state_servers(data_dir)
        runtimes = [pid for pid in running.processes() if pid not in state]
        assert len(runtimes) >= 3
        claims = running.claims()
        running.kill()
        wait_for(lambda: not state_servers(data_dir), 20)
        lose_state(data_dir)
        running.start()
        assert {id: running.conversation(key, id)["runtime"] for id in before} == before
        assert all(running.conversation(key, id)["phase"] == "ready" for id in before)
        assert running.claims() == claims
        assert [pid for pid in runtimes if not alive(pid)] == [], "a runtime was ended"
        id = made[0]["id"]
        wait_for(lambda: said(running, key, id).count("user") == 1, 30)
        running.call("POST", f"/api/v2/conversations/{id}/messages", key, json={"content": "more"}, status=202)
        wait_for(lambda: said(running, key, id).count("user") == 2, 60)
        assert "recovery.done" in running.log.read_text()


def state_servers(data_dir: Path) -> list[int]:
    """Processes that name the state server's folder."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(data_dir / "state").encode() in cmdline.read_bytes():
                found.append(int(cmdline.parent.name))
    return found


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_verify_restore_and_begin_anew(data_dir: Path) -> None:
    with orchestrator_at(data_dir, driver="fake") as running:
        key = running.tenant("acme", "http://127.0.0.1:9")
        tenant = running.call("GET", "/api/v2/tenants", status=200)["items"][0]["id"]
        assert running.end() == 0
        checked = nestor("journal", "verify", data_dir=data_dir)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "all in order" in checked.stdout

        refused = nestor("journal", "restore", data_dir=data_dir)
        assert refused.returncode == 1
        assert "not empty" in refused.stderr
        lose_state(data_dir)
        restored = nestor("journal", "restore", data_dir=data_dir)
        assert restored.returncode == 0, restored.stderr
        assert "restored" in restored.stdout
        running.start()
        assert running.call("GET", "/api/v2/settings", key, status=200)
        assert running.end() == 0

        (segment,) = (data_dir / "journal" / tenant).glob("0*.jsonl")
        whole = segment.read_bytes()
        segment.write_bytes(whole.replace(b"acme", b"acne", 1))
        damaged = nestor("journal", "verify", data_dir=data_dir)
        assert damaged.returncode == 1
        assert f"{segment.name}:1" in damaged.stdout
        segment.write_bytes(whole)

        shutil.rmtree(data_dir / "journal")
        lost = nestor("up", "--port", "0", "--driver", "fake", data_dir=data_dir)
        assert lost.returncode == 1
        assert "begin-anew" in lost.stderr
        assert nestor("journal", "begin-anew", data_dir=data_dir).returncode == 0
        running.start()
        assert running.call("GET", "/api/v2/settings", key, status=200)
        assert running.end() == 0
        lose_state(data_dir)
        running.start()
        assert running.call("GET", "/api/v2/settings", key, status=200), (
            "the new journal holds what was there before it"
        )


def append_only_file(data_dir: Path) -> Path:
    return max((data_dir / "state" / "appendonlydir").glob("*.incr.aof"), key=lambda file: file.stat().st_mtime)


@pytest.mark.parametrize("part", [0.2, 0.9])
def test_what_the_end_of_a_torn_file_held_is_known_from_the_journal(data_dir: Path, part: float) -> None:
    """The state server's file is cut in the middle of an accepted change, as a failing disk does it: the server starts
    without that change, and the journal has it."""
    with orchestrator_at(data_dir, driver="fake") as running:
        key = running.tenant("acme", "http://127.0.0.1:9")
        other = running.tenant("calm", "http://127.0.0.1:9")
        running.call("PUT", "/api/v2/secrets/A", key, json={"value": "a"}, status=200)
        time.sleep(3)  # so that nothing else is written behind what follows
        before = append_only_file(data_dir).stat().st_size
        running.call("PUT", "/api/v2/secrets/B", key, json={"value": "b"}, status=200)
        after = append_only_file(data_dir).stat().st_size
        running.kill()
        wait_for(lambda: not state_servers(data_dir), 20)
        os.truncate(append_only_file(data_dir), before + int((after - before) * part))
        running.start()
        page = running.call("GET", "/api/v2/secrets", key, status=200)
        assert [item["name"] for item in page["items"]] == ["A", "B"]
        assert running.call("GET", "/api/v2/settings", other, status=200)
        if part < 0.5:
            assert "state_server.behind_its_journal" in running.log.read_text()
