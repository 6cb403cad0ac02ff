"""What one machine does to everything on it at once: it stops, or it has no more descriptors to give."""

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.models import scripted_model
from support.processes import OPERATOR_KEY, OrchestratorProcess, orchestrator_at, wait_for

DESCRIPTORS = 256


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def stop_machine(nestor: OrchestratorProcess) -> None:
    """SIGKILL for the orchestrator, its state server, its runtimes and all that they started."""
    nestor.kill()
    while left := nestor.processes():
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def said(nestor: OrchestratorProcess, key: str, id: str) -> list[str]:
    page = nestor.call("GET", f"/api/v2/conversations/{id}/events", key, status=200)
    messages = [item["event"] for item in page["items"] if item["event"]["kind"] == "MessageEvent"]
    return [one["llm_message"]["content"][0]["text"] for one in messages if one["source"] == "user"]


def owned(nestor: OrchestratorProcess, key: str) -> set[str]:
    records = nestor.call("GET", "/api/v2/conversations", key, status=200)["items"]
    there = [one["runtime"] for one in records if one["phase"] in ("ready", "paused")]
    return {f"nestor-{one['id']}-g{one['generation']}" for one in there}


def test_after_the_whole_machine_stopped_all_that_was_accepted_is_there(data_dir: Path) -> None:
    """One that is ready, one in the middle of its start, one that somebody stopped, and a message that waits for it."""
    script = 'SCRIPT:[{"text": "one"}, {"text": "two"}, {"text": "three"}]'
    with scripted_model() as model, orchestrator_at(data_dir, NESTOR_RESTART="on_failure") as nestor:
        key = nestor.tenant("acme", model)
        ready, stopped = (
            nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json=body, status=200)
            for body in ({"initial_message": script}, {"initial_message": "first"})
        )
        wait_for(lambda: said(nestor, key, stopped["id"]) == ["first"], 60)
        nestor.call("POST", f"/api/v2/conversations/{stopped['id']}/stop", key, status=202)
        nestor.until(key, stopped["id"], "stopped")
        path = f"/api/v2/conversations/{stopped['id']}/messages"
        nestor.call("POST", path, key, json={"content": "second", "client_id": "m-2"}, status=202)
        starting = nestor.call("POST", "/api/v2/conversations", key, json={"initial_message": "hello"}, status=202)
        nestor.until_stage(key, starting["operation"], "alive")
        stop_machine(nestor)

        nestor.start()
        for record in (ready, starting):
            assert nestor.until(key, record["id"], "ready", "failed")["phase"] == "ready"
        assert nestor.conversation(key, stopped["id"])["phase"] == "stopped", "as somebody wanted it"
        again = nestor.call("POST", path, key, json={"content": "second", "client_id": "m-2"}, status=202)
        assert again["sequence"] == 1, "its client id is known"
        nestor.call("POST", f"/api/v2/conversations/{stopped['id']}/start", key, status=202)
        nestor.until(key, stopped["id"], "ready")
        wait_for(lambda: said(nestor, key, stopped["id"]) == ["first", "second"], 60)
        wait_for(lambda: said(nestor, key, starting["id"]) == ["hello"], 60)
        assert said(nestor, key, ready["id"]) == [script]
        wait_for(lambda: nestor.claims() == owned(nestor, key), 60)


def health(nestor: OrchestratorProcess, client: httpx.Client | None = None) -> tuple[int, Any]:
    answer = (client or httpx).get(f"{nestor.url}/health", timeout=30)
    return answer.status_code, answer.json()


def test_clients_that_take_all_connections_leave_the_orchestrator_its_descriptors(data_dir: Path) -> None:
    """From so many addresses that none has too many by itself: who comes then is told so, who was there is served."""
    with orchestrator_at(data_dir, descriptors=DESCRIPTORS, driver="fake") as nestor:
        with ExitStack() as stack, httpx.Client(headers={"Authorization": f"Bearer {OPERATOR_KEY}"}) as client:
            assert health(nestor, client) == (200, {"status": "ok"})
            for number in range(2 * DESCRIPTORS):
                address = (f"127.0.0.{2 + number % 16}", 0)
                stack.enter_context(socket.create_connection(("127.0.0.1", nestor.port), 30, address))
            late = httpx.get(f"{nestor.url}/health", timeout=30)
            assert (late.status_code, late.json()["code"]) == (503, "too_many_connections")
            status, told = health(nestor, client)
            assert status == 503
            assert "clients are connected" in told["problems"][0]
            made = client.post(f"{nestor.url}/api/v2/tenants", json={"name": "acme"}, timeout=30)
            assert made.status_code == 201, "the state server and the journal have theirs"
            assert len(os.listdir(f"/proc/{nestor.pid}/fd")) < DESCRIPTORS - 32
        wait_for(lambda: health(nestor) == (200, {"status": "ok"}))
        assert len(nestor.call("GET", "/api/v2/tenants", status=200)["items"]) == 1
