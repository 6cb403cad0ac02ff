"""kill -9 while messages are written: nothing acknowledged is lost or doubled. And a runtime that rests."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.runtimes import KEY, RuntimeProcess, eventually, message

BENCH = Path(__file__).parents[3] / "bench" / "kills.py"


@pytest.fixture
def process(tmp_path: Path) -> Iterator[RuntimeProcess]:
    made = RuntimeProcess(tmp_path)
    yield made
    made.ensure_gone()


def storm(folder: Path, *, kills: int) -> tuple[int, int]:
    """Kills and acknowledged messages, as the bench counts them over all of its calls with this folder."""
    command = [sys.executable, str(BENCH), "--every", "4", "--writers", "3", "--seed", "7", "--folder", str(folder)]
    done = subprocess.run([*command, "--kills", str(kills)], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.fullmatch(
        r"seed 7: (\d+) kills, \d+ conversations, (\d+) acknowledged messages, \d+ s; "
        "every conversation loads, none missing, none doubled",
        done.stdout.splitlines()[-1],
    )
    assert said is not None, done.stdout
    return int(said[1]), int(said[2])


def test_ten_kills_under_a_storm_of_messages(tmp_path: Path) -> None:
    kills, messages = storm(tmp_path, kills=6)
    assert kills == 6
    assert messages > 6
    more_kills, more_messages = storm(tmp_path, kills=10)
    assert more_kills == 10
    assert more_messages > messages


def test_a_record_that_was_not_written_yet_is_made_up_from_the_log(tmp_path: Path, process: RuntimeProcess) -> None:
    http = httpx.Client(headers={"X-Session-API-Key": KEY}, timeout=30, trust_env=False)
    conversations = f"{process.start().url}/api/conversations"
    body = {"agent": {"llm": {"model": "openai/scripted"}}, "workspace": {"working_dir": str(tmp_path / "work")}}
    id = http.post(conversations, json=body).json()["id"]
    for text in ("A title of its own", "the last message"):
        assert http.post(f"{conversations}/{id}/events", json={**message(text), "run": False}).status_code == 200
    before = http.get(f"{conversations}/{id}").json()
    process.kill()
    conversations = f"{process.start().url}/api/conversations"
    listed = http.get(f"{conversations}/search").json()["items"][0]
    names = ("title", "last_user_message_id", "leaf_event_id", "execution_status")
    assert {name: listed[name] for name in names} == {name: before[name] for name in names}
    assert listed["title"] == "A title of its own"
    assert http.get(f"{conversations}/{id}").json()["leaf_event_id"] == before["leaf_event_id"]
    http.close()


def test_an_idle_runtime_does_not_wake_up(process: RuntimeProcess) -> None:
    process.start()
    status = Path(f"/proc/{process.pid}/status")

    def wakes() -> int:
        lines = status.read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("voluntary_ctxt_switches")))

    def quiet_second() -> bool:
        before = wakes()
        time.sleep(1)  # what is measured, not what is waited for: a server that looks at a clock wakes ten times
        return wakes() - before <= 1

    eventually(quiet_second)
