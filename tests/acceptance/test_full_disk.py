"""The disk of the journal is full: reads work, changes are refused, nothing is torn, and space is all that it takes."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.processes import OPERATOR_KEY, OrchestratorProcess, wait_for

from .test_journal_commands import nestor as command
from .test_state_server_trouble import StateServer

SIZE_KB = 1024


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of one megabyte; needs the right to mount."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_KB}k", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as made:
        yield Path(made)


def fill(disk: Path) -> Path:
    """Take what is left of it, to the last byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            return filler
    return filler


def test_a_full_journal_refuses_changes_and_recovers_without_a_restart(folder: Path) -> None:
    with small_disk(folder / "disk") as disk:
        state = StateServer(folder / "redis", "--appendonly", "no").start()  # so that changes wait for the journal
        nestor = OrchestratorProcess(
            folder / "data",
            driver="fake",
            NESTOR_REDIS_URL=f"redis://127.0.0.1:{state.port}/0",
            NESTOR_JOURNAL_URL=f"file://{disk}/journal",
            NESTOR_RUNTIME_PORTS="0",
        )
        nestor.start()
        try:
            key = nestor.tenant("acme", "http://127.0.0.1:9")
            put(nestor, key, "BEFORE", 200)
            filler = fill(disk)
            refused = put(nestor, key, "WHILE", 503)
            assert refused.headers["retry-after"]
            assert "journal" in refused.json()["detail"]
            assert nestor.call("GET", "/api/v2/settings", key, status=200)
            wait_for(lambda: health(nestor).status_code == 503, 10)
            assert "journal" in " ".join(health(nestor).json()["problems"])
            filler.unlink()
            wait_for(lambda: health(nestor).status_code == 200, 20)
            put(nestor, key, "AFTER", 200)
            assert nestor.end() == 0
            checked = command("journal", "verify", data_dir=folder / "data", url=f"file://{disk}/journal")
            assert checked.returncode == 0, checked.stdout
            state.kill()
            state.start()  # with nothing: what was answered is in the journal
            nestor.start()
            page = nestor.call("GET", "/api/v2/secrets", key, status=200)
            assert {"BEFORE", "AFTER"} <= {item["name"] for item in page["items"]}
        finally:
            nestor.kill()
            state.kill()


def test_a_full_archive_of_events_loses_none_and_recovers_without_a_restart(folder: Path) -> None:
    with small_disk(folder / "disk") as disk:
        nestor = OrchestratorProcess(
            folder / "data",
            driver="fake",
            NESTOR_EVENTS_URL=f"file://{disk}/events",
            NESTOR_EVENTS_HELD="10",
            NESTOR_RUNTIME_PORTS="0",
        )
        nestor.start()
        try:
            key = nestor.tenant("acme", "http://127.0.0.1:9")
            id = nestor.call("POST", "/api/v2/conversations?wait=ready", key, json={}, status=200)["id"]
            say(nestor, key, id, 100)
            wait_for(lambda: len(logged(nestor, key, id)) == 101, 20)
            filler = fill(disk)
            say(nestor, key, id, 1000)
            wait_for(lambda: health(nestor).status_code == 503, 20)
            assert "archive of events" in " ".join(health(nestor).json()["problems"])
            wait_for(lambda: len(logged(nestor, key, id)) >= 101 + 80, 20)
            while_full = logged(nestor, key, id)
            assert len(while_full) < 600, "the state server is not to take what the archive cannot"
            filler.unlink()
            wait_for(lambda: len(logged(nestor, key, id)) == 1102, 40)
            whole = logged(nestor, key, id)
            assert whole[: len(while_full)] == while_full
            assert len({item["event"]["id"] for item in whole}) == 1102
            wait_for(lambda: health(nestor).status_code == 200, 20)
        finally:
            nestor.kill()


def say(nestor: OrchestratorProcess, key: str, id: str, times: int) -> None:
    body = {"content": f"SAY:{times}"}
    nestor.call("POST", f"/api/v2/conversations/{id}/messages", key, json=body, status=202)


def logged(nestor: OrchestratorProcess, key: str, id: str) -> list[dict[str, Any]]:
    """The whole log, numbered without a hole."""
    items: list[dict[str, Any]] = []
    while True:
        path = f"/api/v2/conversations/{id}/events?after={len(items)}&limit=100"
        page = nestor.call("GET", path, key, status=200)
        items += page["items"]
        assert [item["sequence"] for item in items] == list(range(1, len(items) + 1))
        if page["next_page_id"] is None:
            return items


def put(nestor: OrchestratorProcess, key: str, name: str, status: int) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{nestor.url}/api/v2/secrets/{name}"
    answer = httpx.put(url, json={"value": "x" * 8000}, headers=headers, timeout=30, trust_env=False)
    assert answer.status_code == status, answer.text
    return answer


def health(nestor: OrchestratorProcess) -> httpx.Response:
    return httpx.get(nestor.url + "/health", timeout=30, trust_env=False)


def test_a_data_folder_that_cannot_be_written_is_refused_by_its_path(folder: Path) -> None:
    with small_disk(folder / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        told = command("up", "--port", "0", "--driver", "fake", data_dir=disk / "data")
        assert told.returncode == 1
        assert str(disk / "data") in told.stderr
        assert OPERATOR_KEY not in told.stderr
