"""The public SDK's plain remote workspace and conversation pointed at the orchestrator, unchanged."""

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.models import scripted_model
from tests.support.processes import OrchestratorProcess, orchestrator_at
from tests.support.runtimes import MODEL_KEY
from tests.support.sdk import RunClient

pytestmark = [pytest.mark.sdk, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    with scripted_model(required_key=MODEL_KEY) as url:
        yield url


@pytest.fixture(scope="module")
def nestor() -> Iterator[OrchestratorProcess]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder, orchestrator_at(Path(folder) / "data") as process:
        yield process


def a_tenant(nestor: OrchestratorProcess, name: str) -> tuple[str, str]:
    """A new tenant without any settings (its clients bring their model), and a key of it."""
    tenant: str = nestor.call("POST", "/api/v2/tenants", json={"name": name}, status=201)["id"]
    key: str = nestor.call("POST", f"/api/v2/tenants/{tenant}/api-keys", json={"name": "k"}, status=201)["key"]
    return tenant, key


def test_workspace_and_conversation_work_and_two_tenants_see_nothing_of_each_other(
    nestor: OrchestratorProcess, model: str, run_client: RunClient
) -> None:
    (_, own), (_, other) = a_tenant(nestor, "own"), a_tenant(nestor, "other")
    theirs = nestor.call(
        "POST",
        "/api/v2/conversations",
        other,
        json={"settings": {"agent_settings": {"llm": {"model": "openai/scripted", "api_key": "k", "base_url": model}}}},
        status=202,
    )
    report = run_client("one_origin.py", nestor.url, own, model, MODEL_KEY, theirs["id"], seconds=480)
    id = report.pop("id")
    assert report == {
        "command": [3, "out\n"],
        "same": True,
        "finished": "finished",
        "paused": 202,
        "refused": 503,
        "again": "finished",
        "attached": "finished",
        "listed": True,
        "status": "finished",
        "counted": 1,
        "batch": [True, None],
        "gone": [{"success": True}, 404],
        "others": [404, 404],
    }
    with httpx.Client(base_url=nestor.url, headers={"X-Session-API-Key": other}, trust_env=False) as http:
        assert http.get(f"/api/conversations/{id}").status_code == 404
        assert http.get("/api/conversations/count").json() == 1
    homes = [nestor.call("GET", "/api/v2/runtimes", key, status=200)["items"] for key in (own, other)]
    assert [[item["name"] for item in items] for items in homes] == [["home"], []]


def test_a_wrong_key_a_wrong_body_and_a_session_key_are_told_apart(nestor: OrchestratorProcess) -> None:
    tenant, key = a_tenant(nestor, "third")
    with httpx.Client(base_url=nestor.url, trust_env=False, timeout=60) as http:

        def ask(method: str, path: str, key: str, **more: object) -> httpx.Response:
            return http.request(method, path, headers={"X-Session-API-Key": key}, **more)  # type: ignore[arg-type]

        unknown = f"/api/conversations/{uuid.uuid4()}"
        assert [ask("GET", unknown, text).status_code for text in (key, key[:-1] + "x", "nonsense")] == [404, 401, 401]
        assert ask("GET", "/api/bash/bash_events/search", "nonsense").status_code == 401
        wrong = ask(
            "POST", "/api/conversations", key, json={"agent": {"kind": "Nobody"}, "workspace": {"working_dir": "w"}}
        )
        assert wrong.status_code == 422, wrong.text
        assert {"detail", "error", "message"} <= wrong.json().keys()
        assert ask("GET", "/api/conversations/count", key).json() == 0
        made = {"name": "home", "environment": {"COLOUR": "of the variable"}}
        nestor.call("POST", "/api/v2/runtimes", key, json=made, status=202)
        first = ask("POST", "/api/bash/execute_bash_command", key, json={"command": "echo home $COLOUR"})
        assert (first.status_code, first.json()["stdout"]) == (200, "home of the variable\n")
        home = nestor.call("GET", "/api/v2/runtimes?name=home", key, status=200)["items"][0]
        session_key = nestor.call("GET", f"/api/v2/runtimes/{home['id']}", key, status=200)["session_key"]
        held = ask("GET", "/api/bash/bash_events/search", session_key).json()["items"]
        assert "echo home" in str(held)
        assert ask("GET", "/api/conversations/count", session_key).json() == 0
        assert ask("GET", "/api/settings", session_key).status_code == 200
        assert ask("GET", "/api/settings", key).status_code == 200
        assert revoked_while_open(nestor, tenant) == 1012, "it comes again, and is refused then"


def revoked_while_open(nestor: OrchestratorProcess, tenant: str) -> int:
    """With which code a socket ends whose key is revoked."""
    path = f"/api/v2/tenants/{tenant}/api-keys"
    second = nestor.call("POST", path, json={"name": "second"}, status=201)
    url = nestor.url.replace("http://", "ws://") + "/sockets/bash-events"
    with connect(url, additional_headers={"X-Session-API-Key": second["key"]}, proxy=None) as socket:
        nestor.call("DELETE", f"{path}/{second['id']}", status=204)
        try:
            while True:
                socket.recv(timeout=60)
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return closed.rcvd.code
