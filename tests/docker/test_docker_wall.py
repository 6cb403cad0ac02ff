"""What runtimes reach and what they do not, tried from inside, against listeners on interfaces of the tests' own."""

import json
import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support import containers
from support.docker_nestor import ENGINE
from support.outside import Outside, outside
from support.walled import address_of, connects, driver_in, fetched, network_of, reached, rules, started, until

from orchestrator.drivers import docker_probe
from orchestrator.drivers.docker import Choices, DockerDriver
from orchestrator.drivers.docker_engine import Engine
from orchestrator.drivers.docker_helper import Helper
from orchestrator.drivers.docker_rules import Door, Egress
from orchestrator.drivers.docker_seat import ORCHESTRATOR, Myself, Seats, seats_of
from orchestrator.drivers.docker_spec import Hardening
from orchestrator.drivers.values import Endpoint

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


@pytest.fixture
def ground() -> Iterator[Outside]:
    with outside() as made:
        yield made


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
            forbidden = [(address, 80) for address in ground.inside]
            assert all(map(connects, forbidden))  # from this machine, so they are there
            assert reached(one, *forbidden) == ["closed"] * len(forbidden)
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


async def test_the_proxy_of_an_earlier_version_is_replaced_when_the_next_one_begins(tmp_path, ground):
    image, newer = containers.egress_image(), "nestor-test-egress-newer"
    containers.docker("build", "--quiet", "--tag", newer, "-", stdin=f"FROM {image}\nLABEL another=one\n")
    async with driver_in(tmp_path, Choices(egress=Egress.ALLOW_LIST, egress_image=image)) as driver:
        await driver.wall(None)
        handle = await started(driver)
        await driver.permit(Endpoint(address_of(handle), 8000), [f"{ground.public}:80"])
        await until(lambda: fetched(handle, f"http://{ground.public}") == ["200"])
        name = f"{network_of(handle)}-egress"
        first = containers.inspect("container", name)["Id"]
        await driver.wall(None)  # begun again, of the same version
        assert containers.inspect("container", name)["Id"] == first
        upgraded = DockerDriver(
            tmp_path,
            installation=driver._installation,
            image=containers.standin_image(),
            choices=Choices(egress=Egress.ALLOW_LIST, egress_image=newer),
        )
        assert (await upgraded.fingerprint()).usable
        await upgraded.wall(None)
        assert containers.inspect("container", name)["Image"] == containers.inspect("image", newer)["Id"]
        await until(lambda: fetched(handle, f"http://{ground.public}") == ["200"])  # it is told the same
        upgraded._engine.close()
    containers.docker("image", "rm", newer)


#: How many of 400 connections to its proxy a runtime keeps.
CROWD = """
import os, socket, time
host, port = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
held = [socket.create_connection((host, int(port)), 5) for _ in range(400)]
time.sleep(2)
def is_open(one):
    one.setblocking(False)
    try:
        return one.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
print(sum(map(is_open, held)))
"""


async def test_a_runtime_that_opens_connections_without_end_leaves_its_neighbours_their_proxy(tmp_path, ground):
    choices = Choices(egress=Egress.ALLOW_LIST, egress_image=containers.egress_image())
    async with driver_in(tmp_path, choices) as driver:
        await driver.wall(None)
        one, two = await started(driver), await started(driver)
        await until(lambda: fetched(one, f"http://{ground.public}") == ["403"])
        kept = int(containers.docker("exec", one.reference, "python3", "-c", CROWD))
        assert 200 <= kept <= 260
        assert fetched(two, f"http://{ground.public}") == ["403"]
        await until(lambda: fetched(one, f"http://{ground.public}") == ["403"])  # once it has let go of them


#: A hundred connections of a runtime ask its proxy for one host after the other.
FLOOD = """
import asyncio, itertools, os
host, port = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
turns = itertools.count()
async def ask():
    reader, writer = await asyncio.open_connection(host, int(port))
    while True:
        turn = next(turns)
        writer.write(f"GET http://h{turn}.invalid/ HTTP/1.1\\r\\nHost: h{turn}.invalid\\r\\n\\r\\n".encode())
        lines = (await reader.readuntil(b"\\r\\n\\r\\n")).lower().splitlines()
        await reader.readexactly(sum(int(line[15:]) for line in lines if line.startswith(b"content-length:")))
        if turn == 1000:
            open("/tmp/flooding", "w").close()
async def again():
    while True:
        try:
            await ask()
        except (OSError, EOFError):
            await asyncio.sleep(0.1)
async def main():
    await asyncio.gather(*(again() for _ in range(100)))
asyncio.run(asyncio.wait_for(main(), 30))
"""


async def test_what_one_runtime_asks_of_the_proxy_is_no_refusal_for_its_neighbour(tmp_path, ground):
    choices = Choices(egress=Egress.ALLOW_LIST, egress_image=containers.egress_image())
    async with driver_in(tmp_path, choices) as driver:
        await driver.wall(None)
        one, two = await started(driver), await started(driver)
        await driver.permit(Endpoint(address_of(two), 8000), [f"{ground.public}:{80 + number}" for number in range(12)])
        await until(lambda: fetched(two, f"http://{ground.public}") == ["200"])
        containers.docker("exec", "--detach", one.reference, "python3", "-c", FLOOD)
        await until(lambda: "flooding" in containers.docker("exec", one.reference, "ls", "/tmp"))
        # Nobody listens on the others; that the proxy tried is its 503, and a refusal would be 403.
        asked = [f"http://{ground.public}:{80 + number}" for number in range(12)]
        for _ in range(3):
            assert fetched(two, *asked) == ["200", *["503"] * 11]


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


#: As an operator would forbid more than the engine does: here sockets between a virtual machine and its host.
PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]}
    ],
}


async def test_a_seccomp_profile_of_the_operators_own_is_in_force(tmp_path):
    choices = Choices(hardening=Hardening(seccomp=json.dumps(PROFILE)))
    async with driver_in(tmp_path, choices) as driver:
        rows = {row.name: row for row in await driver.report()}
        assert (rows["seccomp"].held, rows["vsock"].said) == (True, "closed")
        handle = await started(driver)
        socket_of = "import socket; socket.socket(int({}), socket.SOCK_STREAM); print('made')"
        asked = [
            containers.docker(
                "exec", handle.reference, "sh", "-c", f'python3 -c "{socket_of.format(family)}" 2>&1 || true'
            )
            for family in (2, 40)
        ]
        assert "made" in asked[0]
        assert "not permitted" in asked[1]


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
