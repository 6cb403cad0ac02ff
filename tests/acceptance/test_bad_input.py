"""What a person does wrong, and what they are told: each message names what is wrong and what to do."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.models import scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for

from orchestrator.security.master_keys import encode


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


@pytest.fixture(scope="module")
def nestor() -> Iterator[OrchestratorProcess]:
    """One for the tests that do it no harm; each has a tenant of its own."""
    with tempfile.TemporaryDirectory(prefix="nst-") as folder, orchestrator_at(Path(folder) / "data") as running:
        yield running


def refused(data_dir: Path, *flags: str, **variables: str) -> str:
    """What `nestor up` says on standard error when it will not start; its status is 1 and it prints nothing else."""
    command = [sys.executable, "-m", "orchestrator", "up", "--port", "0", "--data-dir", str(data_dir), *flags]
    environment = {"PATH": os.environ["PATH"], "HOME": str(data_dir.parent), **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_that_is_taken(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(data_dir, "--port", str(port))
    assert f"127.0.0.1:{port} is taken" in said
    assert "--port" in said


def test_a_data_folder_that_cannot_be_written(data_dir: Path) -> None:
    data_dir.write_text("a file, not a folder")
    said = refused(data_dir / "below")
    assert str(data_dir / "below") in said
    assert "--data-dir" in said


def test_a_data_folder_that_another_orchestrator_uses(nestor: OrchestratorProcess) -> None:
    said = refused(nestor.data_dir)
    assert f"process {nestor.pid}" in said


def test_another_master_key_than_the_data_was_sealed_under(data_dir: Path) -> None:
    with scripted_model() as model:
        nestor = OrchestratorProcess(data_dir).start()
        nestor.tenant("acme", model)
        assert nestor.end() == 0
        said = refused(data_dir, NESTOR_MASTER_KEY=encode(b"x" * 32))
        assert "master key" in said
        again = OrchestratorProcess(data_dir).start()  # nothing was overwritten
        assert again.call("GET", "/api/v2/tenants", status=200)["items"]
        assert again.end() == 0


def test_a_state_server_that_cannot_be_reached(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = refused(data_dir, NESTOR_REDIS_URL=f"redis://user:redis-password@127.0.0.1:{port}/0")
    assert f"state server cannot be reached at 127.0.0.1:{port}" in said
    assert "NESTOR_REDIS_URL" in said
    assert "redis-password" not in said


def test_an_unknown_variable(data_dir: Path) -> None:
    said = refused(data_dir, NESTOR_LEASE_SECOND="3")
    assert "NESTOR_LEASE_SECOND" in said
    assert "NESTOR_LEASE_SECONDS" in said


def test_an_address_that_others_reach(data_dir: Path) -> None:
    said = refused(data_dir, "--host", "0.0.0.0")
    assert "NESTOR_ALLOW_NON_LOOPBACK" in said


def test_a_runtime_that_never_answers(data_dir: Path) -> None:
    program = "import time; print('silent on purpose', flush=True); time.sleep(600)"
    silent = f'{sys.executable} -c "{program}" {{host}} {{port}}'
    with (
        scripted_model() as model,
        orchestrator_at(data_dir, NESTOR_RUNTIME_COMMAND=silent, NESTOR_START_TIMEOUT="4") as nestor,
    ):
        key = nestor.tenant("acme", model)
        accepted = nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
        record = nestor.until(key, accepted["id"], "failed")
        assert (record["step"], record["reason"]) == ("alive", "health_timeout")
        assert record["hint"]
        assert "silent on purpose" in "\n".join(record["log_tail"])
        wait_for(lambda: nestor.claims() == set())


def test_a_model_key_that_is_refused(nestor: OrchestratorProcess) -> None:
    with scripted_model(required_key="sk-the-right-key") as model:
        key = nestor.tenant("first", model, model_key="sk-the-wrong-key-0123456789")
        body = {"initial_message": "hello"}
        record = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json=body, status=200)
        path = f"/api/v2/conversations/{record['id']}/events"

        def error() -> dict[str, str] | None:
            events = [item["event"] for item in nestor.call("GET", path, key, status=200)["items"]]
            return next((event for event in events if event["kind"] == "ConversationErrorEvent"), None)

        told = wait_for(error, 60)
        assert told["code"] == "LLMAuthenticationError"
        assert "sk-the-wrong-key" not in str(told)


def test_what_the_api_says_of_bad_requests(nestor: OrchestratorProcess) -> None:
    with scripted_model() as model:
        key = nestor.tenant("second", model)
        unknown = nestor.call("POST", "/api/v2/conversations", key, json={"initial_mesage": "x"}, status=422)
        assert "initial_mesage" in unknown["detail"]
        hyphen = nestor.call("PUT", "/api/v2/secrets/DEPLOY-KEY", key, json={"value": "v"}, status=422)
        assert "DEPLOY-KEY" in hyphen["detail"]
        assert "underscores" in hyphen["hint"]
        path = nestor.call("PUT", "/api/v2/secrets/PATH", key, json={"value": "v"}, status=422)
        assert "shell" in path["detail"]
        misspelt = {"agent_settings": {"llm": {"baseurl": "http://127.0.0.1:1"}}}
        inner = nestor.call("PATCH", "/api/v2/settings", key, json=misspelt, status=422)
        assert "unknown field baseurl" in inner["detail"]
        for wrong in ({"repository": "not a repo"}, {"repository": "a/b", "branch": "--upload-pack=x"}):
            refused_start = nestor.call("POST", "/api/v2/conversations", key, json=wrong, status=422)
            assert refused_start["field"] in wrong
        plain = {"token": "t", "host": "http://git.example.org"}
        http = nestor.call("PUT", "/api/v2/git-providers/github", key, json=plain, status=422)
        assert "NESTOR_ALLOW_HTTP_HOSTS" in http["hint"]
        nestor.call("PATCH", "/api/v2/settings", key, json={"agent_settings": {"llm": {"model": None}}}, status=200)
        no_model = nestor.call("POST", "/api/v2/conversations", key, json={}, status=422)
        assert "no model" in no_model["detail"]
        body = b"x" * (3 * 1024 * 1024)
        assert nestor.call("POST", "/api/v2/conversations", key, content=body)["code"] == "too_large"


def test_a_model_without_any_key_is_told_at_once(nestor: OrchestratorProcess) -> None:
    with scripted_model() as model:
        key = nestor.tenant("third", model)
        none = {"agent_settings": {"llm": {"api_key": None, "num_retries": 5}}}
        nestor.call("PATCH", "/api/v2/settings", key, json=none, status=200)
        body = {"initial_message": "hello"}
        record = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json=body, status=200)
        path = f"/api/v2/conversations/{record['id']}/events"

        def codes() -> list[str]:
            events = [item["event"] for item in nestor.call("GET", path, key, status=200)["items"]]
            return [event["code"] for event in events if event["kind"] == "ConversationErrorEvent"]

        assert wait_for(codes, 40) == ["LLMAuthenticationError"]
