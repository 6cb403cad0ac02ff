"""The released workspace classes of the cloud and of the runtime API, at the orchestrator, with real runtimes."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.models import scripted_model
from tests.support.processes import OrchestratorProcess, orchestrator_at
from tests.support.runtimes import MODEL_KEY
from tests.support.sdk import RunClient

pytestmark = [pytest.mark.sdk, pytest.mark.timeout(300)]
MCP = {"files": {"command": "files-server", "args": ["-v"]}, "web": {"url": "http://127.0.0.1:9/mcp"}}


@dataclass
class Place:
    nestor: OrchestratorProcess
    model: str
    key: str


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with (
        tempfile.TemporaryDirectory(prefix="nst-") as folder,
        scripted_model(required_key=MODEL_KEY) as model,
        orchestrator_at(Path(folder) / "data") as nestor,
    ):
        yield Place(nestor, model, nestor.tenant("acme", model, MODEL_KEY))


def test_the_cloud_workspace_lives_its_whole_life(place: Place, tmp_path: Path, run_client: RunClient) -> None:
    nestor, key = place.nestor, place.key
    other = nestor.tenant("other", place.model, MODEL_KEY)
    nestor.call("PATCH", "/api/v2/settings", key, json={"agent_settings": {"mcp_config": MCP}}, status=200)
    nestor.call("PUT", "/api/v2/secrets/TOKEN", key, json={"value": "value-of-the-token-1"}, status=200)
    provider = {"token": "token-of-the-provider-1"}
    nestor.call("PUT", "/api/v2/git-providers/github", key, json=provider, status=200)
    found = run_client("cloud_workspace.py", nestor.url, key, other, str(tmp_path / "work"))
    assert found == {
        "command": [3, "out\n"],
        "file": "through the sandbox",
        "model": "openai/scripted",
        "secrets": ["TOKEN", "github_token"],
        "mcp": {"files": "files-server", "shttp_0": "http://127.0.0.1:9/mcp"},
        "status": "finished",
        "inside": [True, "from inside\n", ["TOKEN", "github_token"]],
        "again": "again\n",
        "attached": "through the sandbox",
        "foreign": [[None]],
        "gone": [None],
    }


def test_the_workspace_of_the_runtime_api_attaches_and_begins_anew(
    place: Place, tmp_path: Path, run_client: RunClient
) -> None:
    found = run_client("api_workspace.py", place.nestor.url, place.key, place.model, MODEL_KEY, str(tmp_path / "work"))
    assert found == {
        "command": "value of the client\n",
        "status": "finished",
        "resumed": "worked\n",
        "attached": [True, "worked\n"],
        "anew": [True, "anew\n"],
    }
