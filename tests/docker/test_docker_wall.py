"""What runtimes reach and what they do not, tried from inside, against listeners on interfaces of the tests' own."""

import json
import os
import shlex
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from support import containers
from support.docker_nestor import ENGINE
from support.outside import Outside, outside, run

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import new_secret
from orchestrator.drivers import docker_probe
from orchestrator.drivers.docker import Choices, DockerDriver
from orchestrator.drivers.docker_cells import CellKind
from orchestrator.drivers.docker_engine import Engine
from orchestrator.drivers.docker_helper import Helper
from orchestrator.drivers.docker_rules import Door, Egress
from orchestrator.drivers.docker_seat import ORCHESTRATOR, Myself, Seats, seats_of
from orchestrator.drivers.docker_spec import Hardening
from orchestrator.drivers.values import Endpoint, Handle, OwnerLabels, RuntimeSpec

pytestmark = [pytest.mark.docker, pytest.mark.anyio]

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


@pytest.fixture
def ground() -> Iterator[Outside]:
    with outside() as made:
        yield made


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


async def test_rules_that_were_flushed_stand_again_before_a_runtime_is_told_anything(tmp_path):
    async with driver_in(tmp_path, Choices()) as driver:
        await driver.wall(None)
        await started(driver)  # from now on the network is remembered
        ours = f"-A nst-{driver._installation.replace('-', '')[:6]}"
        before = [line for line in rules().splitlines() if line.startswith(ours)]
        assert before
        for line in before:
            run("iptables", "-w", "-D", *shlex.split(line)[1:])
        await started(driver)
        assert set(before) <= set(rules().splitlines())


async def test_a_network_that_was_removed_by_hand_is_made_anew(tmp_path):
    async with driver_in(tmp_path, Choices()) as driver:
        await driver.wall(None)
        first = await started(driver)
        network = network_of(first)
        await driver.destroy(first, fence=1)
        await driver.remove_volume(first.labels, fence=1)
        containers.docker("network", "rm", network)
        with pytest.raises(DriverUnavailable):  # which is tried again
            await started(driver)
        second = await started(driver)
        assert reached(second, ("127.0.0.1", 8000)) == ["open"]
        bridge = containers.inspect("network", network_of(second))["Options"]["com.docker.network.bridge.name"]
        assert bridge in rules()


async def test_runtimes_reach_the_public_net_and_the_listener_and_nothing_that_is_inside(tmp_path, ground):
    async with driver_in(tmp_path, Choices()) as driver:
        gateway = (await driver.fingerprint()).details["gateway"]
        with socket.create_server(("0.0.0.0", 0)) as machine, socket.create_server((gateway, 0)) as listener:
            port, facing = machine.getsockname()[1], listener.getsockname()[1]
            await driver.wall((gateway, facing))
            one, two = await started(driver), await started(driver)
            assert reached(
                one,
                (ground.public, 80),
                (gateway, facing),
                (ground.private, 80),
                (ground.machine, port),
                (gateway, port),
                (gateway, 9),
                (address_of(two), 8000),
                ("127.0.0.1", 8000),
            ) == ["open", "open", "closed", "closed", "closed", "closed", "closed", "open"]
            for handle in (one, two):  # and this machine reaches both
                socket.create_connection((address_of(handle), 8000), 5).close()
            written = rules()
            for network in ("169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"):
                assert f"-out -d {network} -j REJECT" in written


async def test_without_egress_nothing_is_reached_but_what_the_operator_named(tmp_path, ground):
    doors = (Door.at(ground.private, 80),)
    async with driver_in(tmp_path, Choices(egress=Egress.NONE, doors=doors)) as driver:
        await driver.wall(None)
        handle = await started(driver)
        assert reached(handle, (ground.public, 80), (ground.private, 80), (ground.private, 81)) == [
            "closed",
            "open",
            "closed",
        ]
        looked_up = "import socket\ntry:\n socket.gethostbyname('example.org')\nexcept OSError:\n print('unknown')"
        assert containers.docker("exec", handle.reference, "python3", "-c", looked_up).strip() == "unknown"


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


async def test_with_an_allow_list_named_hosts_are_reached_through_the_proxy_alone(tmp_path, ground):
    choices = Choices(egress=Egress.ALLOW_LIST, egress_image=containers.egress_image())
    async with driver_in(tmp_path, choices) as driver:
        await driver.wall(None)
        one, two = await started(driver), await started(driver)
        outside, inside = f"http://{ground.public}", f"http://{ground.private}"
        neighbour = f"{address_of(two)}:8000"
        assert reached(one, (ground.public, 80), (address_of(two), 8000)) == ["closed", "closed"]
        assert fetched(one, outside) == ["403"]
        # Also a name on the list brings nobody inside: the machine's rules hold for the proxy as well.
        allowed = [f"{ground.public}:80", f"{ground.private}:80", neighbour]
        await driver.permit(Endpoint(address_of(one), 8000), allowed)
        await until(lambda: fetched(one, outside) == ["200"])
        assert fetched(one, f"{outside}:81", inside, f"http://{neighbour}/alive") == ["403", "503", "503"]
        assert fetched(two, outside) == ["403"]
        await driver.permit(Endpoint(address_of(one), 8000), [])
        await until(lambda: fetched(one, outside) == ["403"])
        proxy = containers.docker("ps", "--filter", "label=io.nestor.egress", "--format", "{{.Names}}").split()
        containers.docker("kill", *[name for name in proxy if driver._installation.replace("-", "")[:11] in name])
        assert "did not run" in " ".join(await driver.mend())


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not await anyio.to_thread.run_sync(condition):
            await anyio.sleep(0.2)


async def test_rules_are_set_once_mended_when_somebody_removes_them_and_gone_with_the_network(tmp_path):
    async with driver_in(tmp_path, Choices()) as driver:
        await driver.wall(None)
        once = ours(driver)
        assert len(once) > 10
        await driver.wall(None)
        assert ours(driver) == once
        assert await driver.mend() == []
        jump = next(line for line in once if line.startswith("-A INPUT "))
        run("iptables", "-w", "-D", *jump.split()[1:])
        run("iptables", "-w", "-F", jump.split()[-1].replace("-in", "-out"))
        assert len(await driver.mend()) == 1
        assert ours(driver) == once
        # Somebody else's rule comes before ours: it could let through what ours refuse.
        foreign = ["INPUT", "-i", "no-such-if", "-j", "ACCEPT"]
        run("iptables", "-w", "-I", *foreign)
        try:
            assert len(await driver.mend()) == 1
            assert await driver.mend() == []
        finally:
            run("iptables", "-w", "-D", *foreign)


def ours(driver: DockerDriver) -> Sequence[str]:
    mark = f"nst-{driver._installation.replace('-', '')[:6]}"
    return [line for line in rules().splitlines() if mark in line and line.startswith("-A") and "FORWARD" not in line
            and "ISOLATION" not in line]  # fmt: skip


async def test_a_bridge_for_each_tenant_goes_with_its_last_runtime(tmp_path):
    async with driver_in(tmp_path, Choices(cells=CellKind.TENANT)) as driver:
        await driver.wall(None)
        acme, globex = str(uuid.uuid4()), str(uuid.uuid4())
        one, two, other = (
            await started(driver, tenant=acme), await started(driver, tenant=acme), await started(driver, tenant=globex)
        )  # fmt: skip
        assert network_of(one) == network_of(two) != network_of(other)
        assert reached(one, (address_of(two), 8000), (address_of(other), 8000)) == ["closed", "closed"]
        left = network_of(one)
        await driver.destroy(one, fence=2)
        assert left in containers.docker("network", "ls", "--format", "{{.Name}}")
        await driver.destroy(two, fence=2)
        assert left not in containers.docker("network", "ls", "--format", "{{.Name}}")
        assert network_of(other) in containers.docker("network", "ls", "--format", "{{.Name}}")
        for handle in (one, two):
            await driver.remove_volume(handle.labels, fence=2)


def network_of(handle: Handle) -> str:
    return str(next(iter(containers.inspect("container", handle.reference)["NetworkSettings"]["Networks"])))


async def test_the_report_tells_what_took_effect_and_what_did_not(tmp_path):
    async with driver_in(tmp_path, Choices()) as driver:
        gateway = (await driver.fingerprint()).details["gateway"]
        with socket.create_server((gateway, 0)) as listener:
            without = {row.name: row for row in await driver.report()}
            assert without["machine"].required
            assert not without["machine"].held  # nothing is set yet, and so it was reached
            await driver.wall((gateway, listener.getsockname()[1]))
            rows = {row.name: row for row in await driver.report()}
        assert [row for row in rows.values() if row.required and not row.held] == []
        assert rows["listener"].held
        assert rows["vsock"].said != "not told"  # 20.10 lets a container have them, 23 does not
        assert {"user", "capabilities", "seccomp", "no-new-privileges", "read-only", "memory", "swap", "processes",
                "processors", "files", "core", "neighbours", "machine", "rules", "ipv6"} <= set(rows)  # fmt: skip
        assert "nestor-probe" not in containers.docker("ps", "--all", "--format", "{{.Names}}")


async def test_a_neighbour_that_is_gone_is_not_one_that_is_not_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(docker_probe, "_NEIGHBOUR", "true")
    async with driver_in(tmp_path, Choices()) as driver:
        assert (await driver.fingerprint()).usable
        row = next(row for row in await driver.report() if row.name == "neighbours")
        assert (row.held, row.required, row.said) == (False, True, "not tried: it had ended")


async def test_an_oci_runtime_that_the_engine_does_not_have_is_refused(tmp_path):
    choices = replace(Choices(), hardening=Hardening(oci_runtime="no-such-runtime"))
    driver = DockerDriver(tmp_path, installation=str(uuid.uuid4()), image=containers.standin_image(), choices=choices)
    found = await driver.fingerprint()
    assert not found.usable
    assert "no-such-runtime" in found.message
    await driver.close()


async def test_orchestrators_in_containers_sit_side_by_side_and_leave_with_the_bridge(tmp_path):
    async with driver_in(tmp_path, Choices()) as driver:
        network = driver._cells.first()
        assert network is not None
        label = ("--label", f"{ORCHESTRATOR}=yes", "--entrypoint", "sleep", containers.standin_image(), "60")
        made = [containers.docker("run", "--detach", *label).strip() for _ in range(2)]
        try:
            one, two = (Seats(driver._engine, Myself(id, "image", {})) for id in made)
            assert [one.take(network), two.take(network), one.take(network)] == [True, True, False]
            assert one.of(network) == two.of(network) == tuple(sorted(seats_of(network)[:2]))
            assert one.mine_on(network) != two.mine_on(network)
            assert two.facing(network.gateway) == two.mine_on(network)
            containers.docker("network", "disconnect", network.name, made[0])
            assert one.take(network)  # as the reconciler finds it
            assert not driver._cells._used(network)
            one.give_up(network)
            assert one.of(network) == ()
        finally:
            containers.docker("rm", "--force", *made)


def test_the_helper_runs_commands_in_the_machines_network_and_comes_back_when_it_is_removed():
    name, mark = f"nst-{uuid.uuid4().hex[:8]}-rules", uuid.uuid4().hex
    image = str(containers.inspect("image", containers.standin_image())["Id"])
    helper = Helper(Engine(ENGINE), name=name, image=image, installation=mark)
    try:
        assert helper.trouble() is None
        for _ in range(10):  # what comes at once with the head of the answer is not lost
            done = helper.run("sh", "-c", "echo out; echo error >&2; exit 3")
            assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "error\n")
        assert helper.run("cat", told="*filter\n'$x'\n").stdout == "*filter\n'$x'\n"
        assert helper.run("readlink", "/proc/self/ns/net").stdout.strip() == os.readlink("/proc/self/ns/net")
        shown = containers.inspect("container", name)
        assert (shown["HostConfig"]["CapAdd"], shown["HostConfig"]["CapDrop"]) == (["NET_ADMIN"], ["ALL"])
        assert not shown["Mounts"]
        containers.docker("rm", "--force", name)
        assert helper.run("echo", "again").stdout == "again\n"
    finally:
        helper.remove()
    assert not containers.docker("ps", "--all", "--quiet", "--filter", f"label=io.nestor.rules={mark}")
