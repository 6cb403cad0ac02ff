"""The public SDK client and the public OpenAI client at a runtime behind the orchestrator's proxy."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.models import scripted_model
from tests.support.processes import orchestrator_at
from tests.support.runtimes import MODEL_KEY
from tests.support.sdk import RunClient

pytestmark = [pytest.mark.sdk, pytest.mark.timeout(300)]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def test_a_conversation_of_nestor_is_steered_through_the_proxy(data_dir: Path, run_client: RunClient) -> None:
    with scripted_model(required_key=MODEL_KEY) as model, orchestrator_at(data_dir) as nestor:
        key = nestor.tenant("acme", model, MODEL_KEY)
        record = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json={}, status=200)
        url, session_key = record["runtime"]["url"], record["runtime"]["session_key"]
        report = run_client("proxied.py", url, session_key, model, MODEL_KEY, record["id"])
        assert report == {
            "attached": "finished",
            "called back": True,
            "command": [3, "out\n"],
            "file": "through the proxy",
            "interrupted": "paused",
            "new": "finished",
            "cost": True,
            "gone": True,
            "kept": True,
        }
        with httpx.Client(base_url=url, headers={"X-Session-API-Key": session_key}, trust_env=False) as http:
            llm = {"model": "openai/scripted", "api_key": MODEL_KEY, "base_url": model, "num_retries": 0}
            assert http.post("/api/profiles/house", json={"llm": llm}).status_code == 201
        said = run_client("gateway.py", url, session_key, "openhands_house")
        assert (said["first"], said["streamed"], said["response"]) == ("I looked.", "Streamed.", "A response.")
