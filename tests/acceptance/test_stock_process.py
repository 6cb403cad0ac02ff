"""A stock agent server, the released package, as a process under our orchestrator, in both ways of starting it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from support import stock_server
from support.docker_nestor import MODEL_KEY, talking_to
from support.sdk import SDK_PYTHON

from orchestrator.demo.orchestrator_process import orchestrator_process

pytestmark = [pytest.mark.sdk, pytest.mark.anyio, pytest.mark.timeout(240)]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A short path: a socket lives below it."""
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder)


def servers(folder: Path) -> Iterator[tuple[str, str]]:
    """Arguments and environment of each agent server over this data folder."""
    for entry in Path("/proc").iterdir():
        try:
            words, environment = (entry / "cmdline").read_text(), (entry / "environ").read_text()
        except (OSError, ValueError):
            continue
        if "openhands.agent_server" in words and (str(folder) in words or "NESTOR_CLAIM=" in environment):
            yield words, environment


@pytest.mark.parametrize("start", ["dormant", "configured"])
async def test_a_conversation_with_a_stock_agent_server(data_dir: Path, start: str) -> None:
    assert SDK_PYTHON.exists(), "the SDK's environment is missing: run scripts/install --sdk"
    told = {
        "NESTOR_RUNTIME_COMMAND": f"{SDK_PYTHON} -P -m openhands.agent_server",
        "NESTOR_STOCK_START": start,
        "NESTOR_DRIFT_SECONDS": "1",
        "NESTOR_NAMESPACES": "0" if start == "configured" else "1",
    }
    async with (
        orchestrator_process(data_dir, driver="process", settings=told) as running,
        talking_to(running.url, running.operator_key.open(), gateway="127.0.0.1") as nestor,
    ):
        key = await stock_server.configured(nestor)
        conversation = await nestor.conversation(key)
        id = conversation["id"]
        found = list(servers(data_dir))
        assert found
        for words, environment in found:
            assert "OH_SECRET_KEY=" not in words
            assert ("OH_SESSION_API_KEYS_0=" in environment) <= (start == "configured")
            for secret in (conversation["runtime"]["session_key"], stock_server.SECRET, MODEL_KEY):
                assert secret not in words + environment
        await stock_server.holds_what_it_was_told(conversation["runtime"])
        await stock_server.plays_a_turn(nestor, key, id)
        await stock_server.pauses_and_goes_on(nestor, key, id)
        if start == "dormant":
            await stock_server.gets_back_what_a_client_took(nestor, key, id)
        await stock_server.is_deleted(nestor, key, id)
        with anyio.fail_after(20):  # the record goes first
            while list(servers(data_dir)):
                await anyio.sleep(0.05)
