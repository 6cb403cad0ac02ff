"""`kill -9` of the orchestrator at different moments of a deletion, of its undoing and of the purge: each comes to its
end, with real runtimes and workspaces."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.models import scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def killed(nestor: OrchestratorProcess, after: float) -> None:
    time.sleep(after)
    nestor.kill()
    nestor.start()


@pytest.mark.parametrize("after", [0.0, 0.03, 0.15])
def test_a_deletion_comes_to_its_end_and_can_be_undone(data_dir: Path, after: float) -> None:
    with scripted_model() as model, orchestrator_at(data_dir) as nestor:
        key = nestor.tenant("acme", model)
        before = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=90", key, json={}, status=200)
        path = f"/api/v2/conversations/{before['id']}"
        (workspace,) = (data_dir / "volumes").glob("*/workspace")
        (workspace / "work.txt").write_text("kept")
        nestor.call("DELETE", path, key, status=202)
        killed(nestor, after)
        nestor.call("GET", path, key, status=410)
        wait_for(lambda: nestor.claims() == set(), 40, pause=0.1)
        kept = nestor.call("GET", f"{path}?deleted=true", key, status=200)
        assert (kept["desired"], kept["phase"]) == ("deleted", "deleting")
        nestor.call("POST", f"{path}/undelete", key, status=202)
        killed(nestor, after)
        nestor.until(key, before["id"], "stopped")
        again = nestor.call("POST", f"{path}/start?wait=ready&timeout=90", key, status=200)
        assert again["phase"] == "ready"
        assert again["runtime"]["session_key"] == before["runtime"]["session_key"]
        assert (workspace / "work.txt").read_text() == "kept"
        nestor.call("DELETE", f"{path}?purge=true", key, status=202)
        killed(nestor, after)
        wait_for(lambda: nestor.claims() == set() and not list((data_dir / "volumes").glob("*/workspace")), 40)
        # The record is the last to go, after the workspace.
        wait_for(lambda: nestor.call("GET", f"{path}?deleted=true", key).get("status") == 404, 10)
