"""Runtimes behind their wall: a driver of a test's own, what its runtimes reach, and the rules that hold."""

import json
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import new_secret
from orchestrator.drivers.docker import Choices, DockerDriver
from orchestrator.drivers.values import Handle, OwnerLabels, RuntimeSpec
from support import containers
from support.outside import run

#: Prints what became of each connection: reached is also one that was refused by the other side.
REACH = """
import concurrent.futures, errno, json, socket, sys
def reach(place):
    try:
        socket.create_connection(tuple(place), 1.5).close()
        return "open"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "closed"
places = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
    print(json.dumps(list(pool.map(reach, places))))
"""


@asynccontextmanager
async def driver_in(folder: Path, choices: Choices, *, installation: str = "") -> AsyncIterator[DockerDriver]:
    """A driver with its wall up, no listener; everything of it is gone afterwards."""
    installation = installation or str(uuid.uuid4())
    driver = DockerDriver(folder, installation=installation, image=containers.standin_image(), choices=choices)
    found = await driver.fingerprint()
    assert found.usable, found.message
    try:
        yield driver
    finally:
        for handle in await driver.list(installation):
            await driver.destroy(handle, fence=1000)
            await driver.remove_volume(handle.labels, fence=1000)
        await driver.close()
        mark = installation.replace("-", "")[:6]
        assert f"nst-{mark}" not in rules()
        assert f"nestor-{mark}" not in containers.docker("network", "ls")


async def started(driver: DockerDriver, *, tenant: str = "") -> Handle:
    conversation = str(uuid.uuid4())
    labels = OwnerLabels(
        driver._installation,
        TenantId(tenant or str(uuid.uuid4())),
        ConversationId(conversation),
        RuntimeId(str(uuid.uuid4())),
        1,
    )
    await driver.ensure_volume(labels, fence=1)
    handle = await driver.create(RuntimeSpec(f"nestor-{conversation}-g1", labels), fence=1)
    await driver.start(handle, fence=1, init_key=new_secret())
    place = (address_of(handle), 8000)
    await until(lambda: connects(place))  # it has booted
    return handle


def connects(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, 1).close()
    except OSError:
        return False
    return True


def reached(handle: Handle, *places: tuple[str, int]) -> Sequence[str]:
    """What a process inside sees of each address and port: open, refused or closed."""
    said = containers.docker("exec", handle.reference, "python3", "-c", REACH, json.dumps(places))
    found: list[str] = json.loads(said)
    return found


def address_of(handle: Handle) -> str:
    networks = containers.inspect("container", handle.reference)["NetworkSettings"]["Networks"]
    return str(next(iter(networks.values()))["IPAddress"])


def rules() -> str:
    return run("iptables-save", "-t", "filter")


def ours(driver: DockerDriver) -> Sequence[str]:
    mark = f"nst-{driver._installation.replace('-', '')[:6]}"
    return [line for line in rules().splitlines() if mark in line and line.startswith("-A") and "FORWARD" not in line
            and "ISOLATION" not in line]  # fmt: skip


def network_of(handle: Handle) -> str:
    return str(next(iter(containers.inspect("container", handle.reference)["NetworkSettings"]["Networks"])))


#: What a program that knows its proxy gets: a status, or nothing.
FETCH = """
import sys, urllib.error, urllib.request
for url in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(url, timeout=15).status)
    except urllib.error.HTTPError as exc:
        print(exc.code)
    except OSError:
        print("nothing")
"""


def fetched(handle: Handle, *urls: str) -> Sequence[str]:
    return containers.docker("exec", handle.reference, "python3", "-c", FETCH, *urls).split()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not await anyio.to_thread.run_sync(condition):
            await anyio.sleep(0.2)
