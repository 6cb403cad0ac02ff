"""A process driver on a folder of the test's own, whose runtimes run the obedient stand-in server."""

import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.process import ProcessDriver
from orchestrator.drivers.process_birth import SYSTEM_PATH
from orchestrator.drivers.process_interpreter import Interpreter
from orchestrator.drivers.process_zygote import Zygote
from orchestrator.drivers.values import Endpoint, Handle, OwnerLabels, RuntimeSpec

STANDIN = Path(__file__).parents[2] / "contract" / "drivers" / "standin_server.py"
STANDIN_COMMAND = (sys.executable, str(STANDIN))
STANDIN_ZYGOTE = (sys.executable, "-I", str(STANDIN.with_name("standin_zygote.py")))


def new_spec(**changes: Any) -> RuntimeSpec:
    conversation = str(uuid.uuid4())
    labels = OwnerLabels(
        installation="here",
        tenant=TenantId(str(uuid.uuid4())),
        conversation=ConversationId(conversation),
        runtime=RuntimeId(str(uuid.uuid4())),
        generation=1,
    )
    return RuntimeSpec(name=f"nestor-{conversation}-g1", labels=labels, **changes)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for `condition`, twenty seconds at most."""
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


def marked(name: str) -> Sequence[int]:
    """The numbers of all living processes that carry the mark of that runtime."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and f"NESTOR_CLAIM={name}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # gone meanwhile, or not ours to read and so not ours
            continue
    return found


def running(pid: int) -> bool:
    """Whether any thread of it runs; its first one alone may be a zombie already while others end."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0] != "Z" or int(fields[17]) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Place:
    """One driver and its folder."""

    driver: ProcessDriver
    folder: Path
    namespaced: bool
    forked: bool = False
    new_spec: Callable[..., RuntimeSpec] = new_spec
    until: Callable[[Callable[[], bool]], Awaitable[None]] = until
    marked: Callable[[str], Sequence[int]] = marked
    running: Callable[[int], bool] = running

    def claim(self, handle: Handle) -> dict[str, Any]:
        return json.loads((self.folder / "runtimes" / handle.name / "claim.json").read_text())

    async def begun(self, handle: Handle) -> int:
        """The number of the server, once it is there."""
        if self.namespaced:
            first = self.claim(handle)["init"]["pid"]
            await until(lambda: bool(Path(f"/proc/{first}/task/{first}/children").read_text()))
        return self.server_pid(handle)

    def server_pid(self, handle: Handle) -> int:
        """The server itself: inside a namespace the first child of pid 1, else the process that was started."""
        claim = self.claim(handle)
        if not self.namespaced:
            return claim["server"]["pid"]
        first = claim["init"]["pid"]
        return int(Path(f"/proc/{first}/task/{first}/children").read_text().split()[0])

    def open_files(self, handle: Handle) -> Sequence[str]:
        """What the server has open."""
        return [os.readlink(path) for path in Path(f"/proc/{self.server_pid(handle)}/fd").iterdir()]

    def temporary(self, handle: Handle) -> Path:
        """The runtime's temporary folder, as it is seen outside."""
        return self.driver._lifecycle._temporaries.of(handle.name)

    def files(self) -> list[Path]:
        """Every file and folder that the driver left, beside its own two."""
        return [path for part in ("runtimes", "volumes", "tmp") for path in (self.folder / part).rglob("*")]

    async def created(self, **changes: Any) -> Handle:
        spec = new_spec(**changes)
        await self.driver.ensure_volume(spec.labels, fence=1)
        return await self.driver.create(spec, fence=1)

    async def started(self, **changes: Any) -> tuple[Handle, Endpoint]:
        handle = await self.created(**changes)
        endpoint = await self.driver.start(handle, fence=1, init_key=SecretText("init-key"))
        await self.answers(endpoint)
        assert bool(self.claim(handle)["zygote"]) == self.forked
        return handle, endpoint

    async def answers(self, endpoint: Endpoint) -> None:
        with anyio.fail_after(20):
            async with httpx.AsyncClient(trust_env=False) as client:
                while True:
                    try:
                        await client.get(endpoint.origin + "/alive", timeout=10)
                    except httpx.HTTPError:
                        await anyio.sleep(0.02)
                    else:
                        return

    async def post(self, endpoint: Endpoint, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.post(endpoint.origin + path, json=body, timeout=20)).json()

    async def run(self, endpoint: Endpoint, *argv: str) -> str:
        """What a command prints that the runtime's agent runs."""
        done = await self.post(endpoint, "/run", {"argv": list(argv)})
        return done["out"] + done["err"]

    async def gone(self) -> None:
        """Remove all runtimes and volumes of this folder."""
        for handle in await self.driver.list("here"):
            await self.driver.destroy(handle, fence=1_000_000)
            await self.driver.remove_volume(handle.labels, fence=1_000_000)
        await self.driver.close()


MakePlace = Callable[..., Place]


def standin_zygote(folder: Path, _: Interpreter) -> Zygote:
    return Zygote(folder, STANDIN_ZYGOTE, search_path=SYSTEM_PATH)


@pytest.fixture
async def make_place(tmp_path: Path) -> AsyncIterator[MakePlace]:
    """Makes places; every one is emptied when the test is over."""
    made: list[Place] = []

    def make(
        *,
        namespaced: bool,
        forked: bool = False,
        command: Sequence[str] | None = STANDIN_COMMAND,
        words: Sequence[str] = (),
        **more: Any,
    ) -> Place:
        folder = tmp_path / f"data-{len(made)}"
        command = None if command is None or forked else [*command, *words]
        more.setdefault("zygote", standin_zygote if forked else None)
        driver = ProcessDriver(folder, command=command, namespaces=namespaced, **more)
        assert driver.capabilities.isolated == namespaced, "install the package bubblewrap and allow user namespaces"
        made.append(Place(driver, folder, namespaced, forked))
        if forked:
            assert driver._zygote is not None, driver._zygote_trouble
            driver.begin()
            assert driver._zygote.wait_ready(20), driver._zygote.trouble
        return made[-1]

    yield make
    for place in made:
        await place.gone()


@pytest.fixture(params=["plain", "namespaced", "forked", "forked namespaced"])
def place(request: pytest.FixtureRequest, make_place: MakePlace) -> Place:
    return make_place(namespaced="namespaced" in request.param, forked="forked" in request.param)
