"""Bridges of runtimes and their rules, while they come and go, fill up, and others change what is on this machine."""

import asyncio
import shlex
import subprocess
import sys
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from support import containers
from support.outside import run
from support.walled import address_of, driver_in, network_of, ours, reached, rules, started

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.domain.secrets import new_secret
from orchestrator.drivers import docker_cells, docker_network
from orchestrator.drivers.docker import Choices, DockerDriver
from orchestrator.drivers.docker_cells import CellKind
from orchestrator.drivers.docker_firewall import Firewall
from orchestrator.drivers.docker_network import Network
from orchestrator.drivers.docker_rules import Egress
from orchestrator.drivers.values import Handle

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


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


async def test_rules_of_a_bridge_that_is_made_while_somebody_looks_are_not_taken_for_left_over(tmp_path, monkeypatch):
    """Another replica makes it, or another start here: what is in it would reach this machine and everything inside."""
    async with driver_in(tmp_path, Choices(cells=CellKind.TENANT)) as driver:
        await driver.wall(None)
        made: list[Handle] = []
        look, loop = docker_network.of_installation, asyncio.get_running_loop()

        def meanwhile(*asked: Any) -> Sequence[Network]:
            found = look(*asked)
            if not made:
                made.append(asyncio.run_coroutine_threadsafe(started(driver), loop).result(60))
            return found

        monkeypatch.setattr(docker_network, "of_installation", meanwhile)
        before = ours(driver)
        assert await driver.mend() == []
        bridge = containers.inspect("network", network_of(made[0]))["Options"]["com.docker.network.bridge.name"]
        assert [line for line in ours(driver) if bridge in line]
        assert len(ours(driver)) == 2 * len(before)


async def test_a_bridge_that_goes_while_somebody_looks_takes_all_of_it_along(tmp_path, monkeypatch):
    """With the last runtime of a tenant, here or by another replica: nothing fails, and no proxy is made for it."""
    choices = Choices(cells=CellKind.TENANT, egress=Egress.ALLOW_LIST, egress_image=containers.egress_image())
    async with driver_in(tmp_path, choices) as driver:
        await driver.wall(None)
        handle = await started(driver)
        name = network_of(handle)
        look, loop = docker_network.of_installation, asyncio.get_running_loop()
        gone: list[str] = []

        async def leave() -> None:
            await driver.destroy(handle, fence=2)
            await driver.remove_volume(handle.labels, fence=2)

        def meanwhile(*asked: Any) -> Sequence[Network]:
            found = look(*asked)
            if not gone:
                gone.append(name)
                asyncio.run_coroutine_threadsafe(leave(), loop).result(60)
            return found

        monkeypatch.setattr(docker_network, "of_installation", meanwhile)
        assert await driver.mend() == []
        assert gone
        assert name not in containers.docker("network", "ls", "--format", "{{.Name}}")
        assert name not in containers.docker("ps", "--all", "--format", "{{.Names}}")
        assert await driver.mend() == []


async def test_a_rule_that_somebody_puts_in_meanwhile_costs_nobody_elses(tmp_path, monkeypatch):
    """Theirs are told apart by what they say, not by where they stand: that changes with each one that comes."""
    theirs = [["INPUT", "-i", f"no-such-{number}", "-j", "ACCEPT"] for number in range(3)]
    async with driver_in(tmp_path, Choices()) as driver:
        await driver.wall(None)
        for words in theirs[:2]:
            run("iptables", "-w", "-I", *words)
        act = Firewall._run
        late = [theirs[2]]

        def run_late(self: Firewall, program: str, *words: str, told: str | None = None) -> Any:
            if late and "-D INPUT" in f"{' '.join(words)} {told}":
                run("iptables", "-w", "-I", *late.pop())
            return act(self, program, *words, told=told)

        monkeypatch.setattr(Firewall, "_run", run_late)
        try:
            assert len(await driver.mend()) == 1
            assert not late
            for words in theirs:
                run("iptables", "-w", "-C", *words)
        finally:
            for words in theirs:
                subprocess.run(["iptables", "-w", "-D", *words], check=False, capture_output=True)


@pytest.mark.slow
def test_more_than_two_hundred_tenants_have_a_bridge_each_and_nothing_is_left():
    """On an engine of its own."""
    done = subprocess.run(
        [sys.executable, str(containers.REPOSITORY / "bench/cells.py"), "--tenants", "210"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "210 tenants: 210 networks, each of its own; 0 left after the last runtime of each" in done.stdout


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


async def test_bridges_whose_interfaces_would_have_one_name_get_two(tmp_path, monkeypatch):
    """Of two hundred tenants that happens to two in one installation of fifty: the name has room for five digits."""
    short = docker_cells._short

    def same(text: str, characters: int) -> str:
        return "0" * characters if characters == 5 and "again" not in text else short(text, characters)

    monkeypatch.setattr(docker_cells, "_short", same)
    async with driver_in(tmp_path, Choices(pool="10.218.64.0/22", cells=CellKind.TENANT)) as driver:
        await driver.wall(None)
        one, two = await started(driver), await started(driver)
        assert network_of(one) != network_of(two)
        assert reached(one, (address_of(two), 8000), ("127.0.0.1", 8000)) == ["closed", "open"]


async def test_a_bridge_that_has_no_address_left_is_told_and_the_next_runtime_is_put_on_another(tmp_path):
    installation = str(uuid.uuid4())
    driver = DockerDriver(
        tmp_path,
        installation=installation,
        image=containers.standin_image(),
        subnet="10.218.77.0/28",
        choices=Choices(),
    )
    try:
        assert (await driver.fingerprint()).usable
        six = [await started(driver) for _ in range(6)]  # the lower half, without the network's own and the gateway's
        with pytest.raises(DriverUnavailable, match="no address left") as refused:
            await started(driver)
        assert "NESTOR_RUNTIME_SUBNET" in str(refused.value.hint)
        other = await started(driver)
        assert {network_of(one) for one in six} == {f"nestor-{installation.replace('-', '')[:11]}"}
        assert network_of(other) not in {network_of(one) for one in six}
    finally:
        for handle in await driver.list(installation):
            await driver.destroy(handle, fence=1000)
            await driver.remove_volume(handle.labels, fence=1000)
        await driver.close()


async def test_a_further_bridge_is_walled_before_what_was_made_for_it_goes_on(tmp_path):
    """Also where another process starts it than the one that made it, and somebody flushed the rules just before."""
    installation = str(uuid.uuid4())
    async with driver_in(tmp_path, Choices(), installation=installation) as driver:
        await driver.wall(None)
        driver._cells._crowd[""] = docker_cells.SHARED_RUNTIMES
        handle = await started(driver)
        network = network_of(handle)
        assert network != driver._cells.base
        bridge = containers.inspect("network", network)["Options"]["com.docker.network.bridge.name"]
        await driver.stop(handle, fence=1, grace=1)
        other = DockerDriver(tmp_path, installation=installation, image=containers.standin_image(), choices=Choices())
        assert (await other.fingerprint()).usable
        await other.wall(None)
        before = [line for line in ours(driver) if bridge in line]
        for line in before:
            run("iptables", "-w", "-D", *shlex.split(line)[1:])
        await other.start(handle, fence=1, init_key=new_secret())
        assert before
        assert [line for line in ours(driver) if bridge in line] == before
        other._engine.close()
