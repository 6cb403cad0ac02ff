"""The process driver with the runtime that ships: dormant, with the init key in its memory and nowhere else."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import httpx
import pytest

from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.process import own_zygote
from orchestrator.drivers.process_interpreter import ask
from orchestrator.drivers.values import Condition, ExitCause
from orchestrator.nested.client import RuntimeClients

pytestmark = pytest.mark.anyio

KEY = "one-time-init-key-0123456789abcdef"
INNER = "inner-key-0123456789abcdef0123456789"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a zygote that is there for all tests: it takes seconds to import everything."""
    folder = tmp_path_factory.mktemp("zygote")
    keeper = own_zygote(folder, ask(sys.executable))
    keeper.start()
    assert keeper.wait_ready(90), keeper.trouble
    yield folder
    keeper.close()


@pytest.fixture(params=["plain", "namespaced", "forked", "forked namespaced"])
def own(request: pytest.FixtureRequest, make_place, shared: Path):
    forked = "forked" in request.param
    more = {"forked": True, "zygote": lambda _, found: own_zygote(shared, found)} if forked else {}
    return make_place(namespaced="namespaced" in request.param, command=None, **more)


def places_that_hold(text: str, pids: Sequence[int], folder: Path) -> list[str]:
    """Every file below `folder`, and every argument list and environment of these processes, that holds `text`."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    files += [Path(f"/proc/{pid}/{name}") for pid in pids for name in ("environ", "cmdline")]
    return [str(path) for path in files if text.encode() in path.read_bytes()]


async def ready(origin: str) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(f"{origin}/ready", timeout=20)).status_code == 200
        except httpx.HTTPError:
            return False


async def bind(origin: str) -> None:
    """As the orchestrator does."""
    body = {"session_api_keys": [INNER], "secret_key": "at-rest-key-0123456789abcdef", "generation": 1}
    async with RuntimeClients().open(origin, SecretText(INNER)) as client:
        await client.init(SecretText(KEY), body)


async def test_the_init_key_reaches_the_runtime_and_lies_nowhere_else(own):
    handle = await own.created()
    endpoint = await own.driver.start(handle, fence=1, init_key=SecretText(KEY))
    await own.answers(endpoint)
    pids = own.marked(handle.name)
    assert len(pids) >= 1
    assert places_that_hold(KEY, pids, own.folder) == []
    assert places_that_hold(handle.name, pids, own.folder) != []  # the search can find something
    await bind(endpoint.origin)
    assert await ready(endpoint.origin)
    assert places_that_hold(KEY, own.marked(handle.name), own.folder) == []
    assert places_that_hold(INNER, own.marked(handle.name), own.folder) == []


async def test_it_goes_on_after_a_pause_and_ends_cleanly_when_asked(own):
    handle = await own.created()
    endpoint = await own.driver.start(handle, fence=1, init_key=SecretText(KEY))
    await own.answers(endpoint)
    await bind(endpoint.origin)
    await own.driver.pause(handle, fence=1)
    await own.driver.unpause(handle, fence=1)
    assert await ready(endpoint.origin)
    await own.driver.stop(handle, fence=2, grace=10)
    seen = await own.driver.inspect(handle)
    assert (seen.condition, seen.exit_code, seen.cause) == (Condition.EXITED, 0, ExitCause.CLEAN)


async def test_connections_made_before_it_listens_wait_instead_of_being_refused(own):
    handle = await own.created()
    endpoint = await own.driver.start(handle, fence=1, init_key=SecretText(KEY))
    async with await anyio.connect_tcp(endpoint.host, endpoint.port) as stream:
        await stream.send(b"GET /alive HTTP/1.1\r\nHost: runtime\r\n\r\n")
        with anyio.fail_after(20):
            assert b"200" in await stream.receive()


async def test_a_runtime_that_dies_while_starting_is_seen(own):
    handle = await own.created()
    await own.driver.start(handle, fence=1, init_key=SecretText(KEY))
    os.kill(await own.begun(handle), signal.SIGKILL)
    await own.until(lambda: not own.running(own.claim(handle)["server"]["pid"]))
    seen = await own.driver.inspect(handle)
    assert (seen.condition, seen.cause) == (Condition.EXITED, ExitCause.CRASHED)
