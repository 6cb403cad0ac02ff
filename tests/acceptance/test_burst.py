"""A burst of starts against a limit, with real runtimes: how many live is counted at the driver, not at the API."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from support.processes import OrchestratorProcess, orchestrator_at, wait_for

BURST = 200
LIMIT = 5


@contextmanager
def counting(nestor: OrchestratorProcess) -> Iterator[list[int]]:
    """The most runtimes that the driver's folder knew at once: a claim is there before its process and after it."""
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            most[0] = max(most[0], len(nestor.claims()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()


pytestmark = pytest.mark.timeout(400)


async def burst(nestor: OrchestratorProcess, key: str) -> list[httpx.Response]:
    answers: list[httpx.Response] = []
    limits = httpx.Limits(max_connections=BURST)
    async with httpx.AsyncClient(base_url=nestor.url, trust_env=False, limits=limits, timeout=120) as client:

        async def start() -> None:
            headers = {"Authorization": f"Bearer {key}"}
            answers.append(await client.post("/api/v2/conversations", headers=headers, json={}))

        async with anyio.create_task_group() as tasks:
            for _ in range(BURST):
                tasks.start_soon(start)
    return answers


def phases(nestor: OrchestratorProcess, key: str) -> dict[str, list[str]]:
    """Ids by phase, over all pages."""
    found: dict[str, list[str]] = {}
    cursor = ""
    while True:
        page: dict[str, Any] = nestor.call("GET", f"/api/v2/conversations?limit=100{cursor}", key, status=200)
        for item in page["items"]:
            found.setdefault(item["phase"], []).append(item["id"])
        if page["next_page_id"] is None:
            return found
        cursor = f"&page_id={page['next_page_id']}"


def test_a_burst_over_the_limit_is_refused(tmp_path: Path) -> None:
    with orchestrator_at(tmp_path / "data", NESTOR_TENANT_MAX_RUNTIMES=str(LIMIT)) as nestor:
        key = nestor.tenant("acme", "http://127.0.0.1:9")
        with counting(nestor) as most:
            answers = anyio.run(burst, nestor, key)
            assert Counter(answer.status_code for answer in answers) == {202: LIMIT, 429: BURST - LIMIT}
            assert {answer.json()["rule"] for answer in answers if answer.status_code == 429} == {"tenant.runtimes"}
            wait_for(lambda: len(phases(nestor, key).get("ready", ())) == LIMIT, 120, pause=0.5)
        assert most[0] == LIMIT


def test_a_burst_that_waits_never_has_more_alive_than_the_limit(tmp_path: Path) -> None:
    variables = {
        "NESTOR_TENANT_MAX_RUNTIMES": str(LIMIT),
        "NESTOR_WHEN_FULL": "queue",
        "NESTOR_QUEUE_LENGTH": str(BURST),
    }
    with orchestrator_at(tmp_path / "data", **variables) as nestor:
        key = nestor.tenant("acme", "http://127.0.0.1:9")
        with counting(nestor) as most:
            answers = anyio.run(burst, nestor, key)
            assert Counter(answer.status_code for answer in answers) == {202: BURST}
            asked: set[str] = set()
            for turn in range(4):
                # one that is asked to stop is `ready` for a moment longer, above all when its replica has just died
                ready = wait_for(lambda: set(phases(nestor, key).get("ready", ())) - asked, 120, pause=0.5)
                asked.add(id := ready.pop())
                nestor.call("POST", f"/api/v2/conversations/{id}/stop", key, status=202)
                if turn == 2:  # with a stop just asked for, and starts under way
                    nestor.kill()
                    nestor.start()
            wait_for(lambda: len(phases(nestor, key).get("stopped", ())) == 4, 120, pause=0.5)
            wait_for(lambda: len(phases(nestor, key).get("ready", ())) == LIMIT, 120, pause=0.5)
            now = {phase: len(ids) for phase, ids in phases(nestor, key).items()}
            assert now == {"ready": LIMIT, "stopped": 4, "pending": BURST - LIMIT - 4}
        assert most[0] == LIMIT
        for id in phases(nestor, key)["pending"]:
            nestor.call("DELETE", f"/api/v2/conversations/{id}", key)
        wait_for(lambda: not phases(nestor, key).get("pending"), 60, pause=0.5)
