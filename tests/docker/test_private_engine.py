"""An engine that is killed, started again, stopped, and a disk that is full, while conversations are there."""

import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from support import containers
from support.docker_nestor import Client, container_of, nestor_in
from support.private_engine import PrivateEngine, private_engine

pytestmark = [pytest.mark.docker, pytest.mark.anyio, pytest.mark.slow]


#: Struck down, and asked to end as by a service that is restarted.
BY = pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    """One for all tests here: it takes an image and ten seconds. Docker commands of the tests go to it."""
    with private_engine(Path(tempfile.mkdtemp(prefix="nst-"))) as made, pytest.MonkeyPatch.context() as patch:
        made.take_image("nestor-runtime:latest")
        patch.setenv("DOCKER_HOST", made.host)
        yield made


@pytest.fixture(scope="module")
async def nestor(engine: PrivateEngine) -> AsyncIterator[Client]:
    folder = Path(tempfile.mkdtemp(prefix="nst-"))
    async with nestor_in(folder, engine=engine.host) as client:
        yield client
    shutil.rmtree(folder)


@dataclass
class Talk:
    """One conversation for all tests here, which run in order: a start is most of what they cost."""

    nestor: Client
    key: str
    id: str

    @property
    def path(self) -> str:
        return f"/api/v2/conversations/{self.id}"

    async def says(self, command: str) -> str:
        """What the agent saw so far, this command's output with it."""
        step = {"tool": "terminal", "args": {"command": command, "summary": "s"}}
        return str(await self.nestor.run(self.key, self.id, step, seconds=120))

    async def alive(self) -> bool:
        """Whether the runtime answers through the orchestrator."""
        found = await self.nestor.call("GET", self.path, self.key, status=200)
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await http.get(found["runtime"]["url"] + "/alive", timeout=5)).status_code == 200


@pytest.fixture(scope="module")
async def talk(nestor: Client) -> Talk:
    key = await nestor.tenant()
    return Talk(nestor, key, (await nestor.conversation(key))["id"])


@BY
async def test_with_live_restore_a_killed_engine_is_nobody_elses_trouble(
    talk: Talk, engine: PrivateEngine, by: signal.Signals
):
    before = containers.inspect("container", container_of(talk.id))["State"]["StartedAt"]
    engine.end(by)
    assert await talk.alive()
    await anyio.to_thread.run_sync(lambda: engine.start(live_restore=True))
    assert "kept-on" in await talk.says("echo kept-on > /workspace/kept; cat /workspace/kept")
    assert containers.inspect("container", container_of(talk.id))["State"]["StartedAt"] == before


async def health(nestor: Client, status: int) -> None:
    """Until it is that."""
    with anyio.fail_after(60):
        while (await nestor.http.get(f"{nestor.url}/health")).status_code != status:
            await anyio.sleep(0.2)


async def test_while_the_engine_hangs_traffic_goes_on_and_a_start_waits(talk: Talk, engine: PrivateEngine):
    nestor = talk.nestor
    await health(nestor, 200)
    engine.freeze()
    try:
        waiting = await nestor.call("POST", "/api/v2/conversations", talk.key, json={}, status=202)
        await anyio.sleep(1)
        assert await talk.alive()
        found = await nestor.call("GET", f"/api/v2/conversations/{waiting['id']}", talk.key, status=200)
        assert found["phase"] in ("pending", "provisioning")
        await health(nestor, 503)
        assert await talk.alive()
    finally:
        engine.thaw()
    await health(nestor, 200)
    await nestor.until(talk.key, waiting["id"], "ready")
    assert container_of(waiting["id"])  # one, and no more
    await nestor.call("DELETE", f"/api/v2/conversations/{waiting['id']}?purge=true", talk.key, status=202)


async def test_a_disk_that_is_really_full_is_told_to_the_agent_and_with_space_it_goes_on(talk: Talk):
    seen = await talk.says("cat /dev/zero > /workspace/zeros; rm /workspace/zeros; echo there-is-space")
    assert "No space left on device" in seen
    assert "there-is-space" in seen


async def test_a_disk_that_stays_full_is_told_in_the_record_and_no_more_once_there_is_space(talk: Talk):
    container = container_of(talk.id)
    fill = "cat /dev/zero >/workspace/zeros 2>/dev/null; test -s /workspace/zeros"
    containers.docker("exec", container, "sh", "-c", fill)
    full = await reason(talk, "disk_full")
    assert full["phase"] == "ready"
    assert "workspace" in full["message"]
    assert "state" in full["message"]  # both are on that disk
    assert full["hint"]
    assert full["retryable"]
    containers.docker("exec", container, "rm", "/workspace/zeros")
    assert (await reason(talk, "requested"))["phase"] == "ready"
    assert "works-again" in await talk.says("echo works-again")
    assert container_of(talk.id) == container


async def reason(talk: Talk, wanted: str) -> dict[str, Any]:
    """The record as soon as that is its reason."""
    with anyio.fail_after(120):
        while True:
            found: dict[str, Any] = await talk.nestor.call("GET", talk.path, talk.key, status=200)
            if found["reason"] == wanted:
                return found
            await anyio.sleep(0.2)


@BY
async def test_without_live_restore_runtimes_are_lost_and_can_be_started_again(
    talk: Talk, engine: PrivateEngine, by: signal.Signals
):
    assert "is-kept" in await talk.says("echo is-kept > /workspace/last; cat /workspace/last")
    before: list[dict[str, Any]] = []
    while len(now := await talk.nestor.events(talk.key, talk.id)) != len(before):
        before = now
    engine.end(by)
    await anyio.to_thread.run_sync(lambda: engine.start(live_restore=False))
    lost = await talk.nestor.until(talk.key, talk.id, "failed", past="ready")
    assert (lost["reason"], lost["retryable"]) == ("runtime_lost", True)
    assert await talk.nestor.events(talk.key, talk.id) == before
    await talk.nestor.call("POST", f"{talk.path}/start", talk.key, status=202)
    await talk.nestor.until(talk.key, talk.id, "ready", past="failed")
    assert containers.docker("exec", container_of(talk.id), "cat", "/workspace/last") == "is-kept\n"
