"""A conversation with a repository: cloned with the provider's token before the agent starts, or failed, saying why."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.models import git_server, scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for

TOKEN = "ghp_right_token_0123456789"
LOOK = "cat app/README.md && cd app && git remote -v && git log --oneline"
SAY = "SCRIPT:" + json.dumps([{"tool": "terminal", "args": {"command": LOOK}}, {"text": "ok"}])


@pytest.fixture(scope="module")
def nestor() -> Iterator[OrchestratorProcess]:
    """One for the tests that do it no harm; each has a tenant of its own."""
    with tempfile.TemporaryDirectory(prefix="nst-") as folder, orchestrator_at(Path(folder) / "data") as running:
        yield running


def started(nestor: OrchestratorProcess, key: str, host: str, token: str, **body: str) -> dict[str, Any]:
    provider = {"token": token, "host": host}
    nestor.call("PUT", "/api/v2/git-providers/github", key, json=provider, status=200)
    accepted = nestor.call("POST", "/api/v2/conversations", key, json=body, status=202)
    return nestor.until(key, accepted["id"], "ready", "failed")


def test_the_repository_is_there_and_its_remote_holds_no_token(nestor: OrchestratorProcess, tmp_path: Path) -> None:
    with git_server(tmp_path, "acme/app", token=TOKEN) as host, scripted_model() as model:
        key = nestor.tenant("first", model)
        record = started(nestor, key, host, TOKEN, repository="acme/app", initial_message=SAY)
        assert record["phase"] == "ready", record

        def looked() -> str | None:
            page = nestor.call("GET", f"/api/v2/conversations/{record['id']}/events", key, status=200)
            seen = [item["event"] for item in page["items"] if item["event"]["kind"] == "ObservationEvent"]
            return json.dumps(seen[0]["observation"]) if seen else None

        text = wait_for(looked, 60)
        assert "hello" in text
        assert f"{host}/acme/app" in text
        assert TOKEN not in text


def test_a_token_that_is_refused(nestor: OrchestratorProcess, tmp_path: Path) -> None:
    with git_server(tmp_path, "acme/app", token=TOKEN) as host, scripted_model() as model:
        key, before = nestor.tenant("second", model), nestor.claims()
        record = started(nestor, key, host, "ghp_wrong_token_9876543210", repository="acme/app")
        assert (record["phase"], record["step"], record["reason"]) == ("failed", "converse", "credential_rejected")
        assert "PUT /api/v2/git-providers" in record["hint"]
        assert "ghp_wrong_token" not in json.dumps(record)
        wait_for(lambda: nestor.claims() == before)


def test_a_repository_that_is_not_there(nestor: OrchestratorProcess, tmp_path: Path) -> None:
    with git_server(tmp_path, "acme/app", token=TOKEN) as host, scripted_model() as model:
        key = nestor.tenant("third", model)
        record = started(nestor, key, host, TOKEN, repository="acme/app", branch="no-such-branch")
        assert (record["phase"], record["reason"]) == ("failed", "repository_unavailable")
