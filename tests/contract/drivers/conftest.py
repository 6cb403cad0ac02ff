"""A house for each driver: the driver itself, a second one as after a restart, and a way to kill a runtime."""

import json
import os
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from support import containers

from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.docker import DockerDriver
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.drivers.fake_remote import RemoteFakeDriver
from orchestrator.drivers.process import ProcessDriver, own_zygote
from orchestrator.drivers.process_interpreter import ask
from orchestrator.drivers.values import Endpoint, Handle, OwnerLabels, RuntimeSpec

STANDIN = Path(__file__).with_name("standin_server.py")


def new_spec(**changes) -> RuntimeSpec:
    conversation = str(uuid.uuid4())
    labels = {
        "installation": "here",
        "tenant": TenantId(str(uuid.uuid4())),
        "conversation": ConversationId(conversation),
        "runtime": RuntimeId(str(uuid.uuid4())),
        "generation": 1,
    }
    given = {name: changes.pop(name) for name in list(changes) if name in labels}
    return RuntimeSpec(name=f"nestor-{conversation}-g1", labels=OwnerLabels(**{**labels, **given}), **changes)


async def alive(endpoint: Endpoint, *, timeout: float = 2.0) -> bool:
    """Whether something answers `/alive`, asked with the bytes that any HTTP server understands."""
    with anyio.move_on_after(timeout):
        try:
            async with await anyio.connect_tcp(endpoint.host, endpoint.port) as stream:
                await stream.send(b"GET /alive HTTP/1.1\r\nHost: runtime\r\nConnection: close\r\n\r\n")
                return b" 200 " in await stream.receive()
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
            return False
    return False


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for `condition`, twenty seconds at most."""
    with anyio.fail_after(20):
        while not await condition():
            await anyio.sleep(0.02)


@dataclass
class House:
    driver: FakeDriver | ProcessDriver | DockerDriver
    second: Callable[
        [], FakeDriver | ProcessDriver | DockerDriver
    ]  #: a driver on the same engine, as a restarted orchestrator has
    kill: Callable[[Handle], None]  #: end a runtime from outside, as the kernel would
    new_spec: Callable[..., RuntimeSpec] = new_spec
    alive: Callable[..., Awaitable[bool]] = alive
    until: Callable[..., Awaitable[None]] = until
    forked: Path | None = None  #: the data folder of a driver whose runtimes are all forked
    labels: list[OwnerLabels] = field(default_factory=list)  #: whose volumes an engine would keep after the test

    async def started(self, **changes) -> tuple[Handle, Endpoint]:
        """A runtime that answers."""
        spec = self.new_spec(**changes)
        await self.driver.ensure_volume(spec.labels, fence=1)
        handle = await self.driver.create(spec, fence=1)
        endpoint = await self.driver.start(handle, fence=1, init_key=SecretText("init-key"))
        await until(lambda: alive(endpoint))
        if self.forked is not None:
            assert json.loads((self.forked / "runtimes" / handle.name / "claim.json").read_text())["zygote"]
        return handle, endpoint


def _kill_process(folder: Path) -> Callable[[Handle], None]:
    def kill(handle: Handle) -> None:
        claim = json.loads((folder / "runtimes" / handle.name / "claim.json").read_text())
        os.kill((claim["init"] or claim["server"])["pid"], signal.SIGKILL)

    return kill


def process_house(folder: Path, *, namespaces: bool) -> House:
    def make() -> ProcessDriver:
        return ProcessDriver(folder, command=[sys.executable, str(STANDIN)], namespaces=namespaces)

    driver = make()
    assert driver.capabilities.isolated == namespaces, (
        "this host gives no namespaces: install the package bubblewrap and allow user namespaces. "
        f"The driver says: {driver._namespace_trouble}"
    )
    return House(driver, make, _kill_process(folder))


def forked_house(folder: Path, zygote: Path, *, namespaces: bool) -> House:
    """Our own runtime, forked. All houses share one zygote: it takes seconds to import everything."""

    def make() -> ProcessDriver:
        driver = ProcessDriver(folder, namespaces=namespaces, zygote=lambda _, found: own_zygote(zygote, found))
        assert driver._zygote is not None, driver._zygote_trouble
        driver.begin()
        assert driver._zygote.wait_ready(90), driver._zygote.trouble
        return driver

    driver = make()
    assert driver.capabilities.isolated == namespaces
    return House(driver, make, _kill_process(folder), forked=folder)


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a zygote that is there for all tests."""
    folder = tmp_path_factory.mktemp("zygote")
    keeper = own_zygote(folder, ask(sys.executable))
    keeper.start()
    yield folder
    keeper.close()


async def docker_house(folder: Path) -> House:
    installation = str(uuid.uuid4())

    def make() -> DockerDriver:
        return DockerDriver(folder, installation=installation, image=containers.standin_image())

    driver = make()
    found = await driver.fingerprint()
    assert found.usable, found.message
    labels: list[OwnerLabels] = []

    def new_labelled_spec(**changes) -> RuntimeSpec:
        spec = new_spec(**changes)
        labels.append(spec.labels)
        return spec

    return House(driver, make, lambda handle: containers.kill(handle.reference), new_labelled_spec, labels=labels)


CONTAINERS = pytest.param("containers", marks=pytest.mark.docker)


@asynccontextmanager
async def engine_process(folder: Path) -> AsyncIterator[Path]:
    """A fake engine in a process of its own; its socket."""
    folder.mkdir(parents=True)
    path = folder / "engine"
    process = await anyio.open_process([sys.executable, "-m", "orchestrator.drivers.fake_server", str(path)])
    try:
        with anyio.fail_after(30):
            while not (await RemoteFakeDriver(path).fingerprint()).usable:
                await anyio.sleep(0.02)
        yield path
    finally:
        process.terminate()
        await process.wait()
        await process.aclose()


def remote_house(path: Path) -> House:
    def crash(handle: Handle) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(json.dumps({"verb": "crash", "name": handle.name}).encode() + b"\n")
            connection.recv(1024)

    return House(RemoteFakeDriver(path), lambda: RemoteFakeDriver(path), crash)


FORKED = ("forked processes", "forked processes in namespaces")
FORMS = ("fake", "fake engine elsewhere", "plain processes", "processes in namespaces", *FORKED, CONTAINERS)


@pytest.fixture(params=FORMS)
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    if request.param == "fake":
        engine = FakeEngine()
        house = House(FakeDriver(engine), lambda: FakeDriver(engine), lambda one: engine.crash(one.name))
    elif request.param == "fake engine elsewhere":
        engine = None
        async with engine_process(tmp_path / "engine") as path:
            house = remote_house(path)
            yield house
            await house.driver.close()
        return
    elif request.param == "containers":
        house, engine = await docker_house(tmp_path / "data"), None
    elif request.param in FORKED:
        shared = request.getfixturevalue("zygote")
        house, engine = forked_house(tmp_path / "data", shared, namespaces="namespaces" in request.param), None
    else:
        house = process_house(tmp_path / "data", namespaces=request.param == "processes in namespaces")
        engine = None
    yield house
    for installation in ("here", "elsewhere"):
        for handle in await house.driver.list(installation):
            await house.driver.destroy(handle, fence=1_000_000)
    for labels in house.labels:
        await house.driver.remove_volume(labels, fence=1_000_000)
    await house.driver.close()
    if engine is not None:
        await engine.shut_down()
