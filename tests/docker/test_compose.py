"""`docker compose up` from a fresh clone, as the README says it: up, used, down and up again, and nothing left."""

import contextlib
import errno
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from support import containers
from support.docker_nestor import Client, container_of, talking_to
from support.outside import run

from orchestrator.demo.model_server import ScriptedModel
from orchestrator.demo.place import PORTS

pytestmark = [pytest.mark.docker, pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(900)]

GATEWAY = "10.213.8.1"
OCI_RUNTIME = "io.containerd.runc.v2"  # every engine has it, by this name beside its own


#: service -> the network that it has
NETWORKS = {
    "redis": "none",
    "gate": "none",
    "keeper": "{}_runtimes",
    "netguard": "host",
    "front": "host",
    "orchestrator": "host",
    "orchestrator-2": "host",
}


@dataclass(frozen=True)
class Kept:
    """A conversation that the demo left, a key that reads it, and its events."""

    key: str
    id: str
    events: list[dict[str, object]]


@dataclass
class Project:
    """A compose project of this test's own, beside one that a person may have up."""

    name: str
    url: str
    environment: dict[str, str]
    clone: Path
    kept: list["Kept"] = field(default_factory=list)  #: conversations of the demo

    @property
    def operator_key(self) -> str:
        return self.environment["NESTOR_OPERATOR_KEY"]

    def compose(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.name, *arguments],
            cwd=self.clone,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def up(self) -> None:
        self.compose("up", "--detach", "--build", "--wait")

    def left(self) -> list[str]:
        """What the engine has of this project, images apart."""
        named = f"name={self.name}"
        found = containers.docker("ps", "--all", "--format", "{{.Names}}", "--filter", named).split()
        found += containers.docker(
            "ps", "--all", "--format", "{{.Names}}", "--filter", f"network={self.name}_runtimes"
        ).split()
        found += containers.docker("volume", "ls", "--format", "{{.Name}}", "--filter", named).split()
        return found + containers.docker("network", "ls", "--format", "{{.Name}}", "--filter", named).split()


def cloned(folder: Path) -> Path:
    """What a clone of this checkout would have, with what was changed since: nothing that lies about, or was made."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=containers.REPOSITORY, capture_output=True, check=True).stdout
    for name in names.decode().split("\0"):
        if (containers.REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(containers.REPOSITORY / name, folder / name)
    return folder


def free_ports(number: int) -> list[int]:
    """Not those that the kernel gives away: minutes pass until these are used."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < number:
            port = 20_000 + secrets.randbelow(12_000)
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
        return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One for all tests here, each of which has it up first: to come up and to go takes most of their time."""
    port, one, two = free_ports(3)
    environment = {
        "NESTOR_OPERATOR_KEY": secrets.token_urlsafe(32),
        "NESTOR_PORT": str(port),
        "NESTOR_PORT_1": str(one),
        "NESTOR_PORT_2": str(two),
        "NESTOR_RUNTIME_SUBNET": "10.213.8.0/22",
        "NESTOR_RUNTIME_GATEWAY": GATEWAY,
        "NESTOR_OCI_RUNTIME": OCI_RUNTIME,
        "NESTOR_RUNTIME_DISK_MEGABYTES": "200",
    }
    clone = cloned(tmp_path_factory.mktemp("clone"))
    project = Project(f"nestor-test-{secrets.token_hex(4)}", f"http://127.0.0.1:{port}", environment, clone)
    try:
        yield project
    finally:
        project.compose("down", "--volumes")


async def test_who_has_the_engine_and_who_runs_as_whom(project: Project):
    project.up()
    socket_path = "/var/run/docker.sock"
    holders = set()
    for service, network in NETWORKS.items():
        shown = containers.inspect("container", f"{project.name}-{service}-1")
        assert shown["HostConfig"]["NetworkMode"] == network.format(project.name), service
        assert shown["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped", (
            service
        )  # so that a reboot brings it back
        assert service == "keeper" or shown["State"]["Health"]["Status"] == "healthy", service
        assert shown["HostConfig"]["CapDrop"] == ["ALL"], service
        assert shown["HostConfig"]["ReadonlyRootfs"] is True, service
        assert not shown["HostConfig"]["PortBindings"], service
        if any(mount["Source"] == socket_path for mount in shown["Mounts"]):
            holders.add(service)
    assert holders == {"keeper", "gate"}  # the orchestrators have the other end of the gate alone
    for service in ("orchestrator", "orchestrator-2", "front"):
        processes = containers.docker("top", f"{project.name}-{service}-1", "-eo", "pid,uid,args").splitlines()[1:]
        assert {line.split()[1] for line in processes} == {"10001"}, processes
    for address, port in itertools.product(own_addresses(), ("NESTOR_PORT", "NESTOR_PORT_1", "NESTOR_PORT_2")):
        with socket.socket() as tried:  # the machine's loopback alone
            assert tried.connect_ex((address, int(project.environment[port]))) == errno.ECONNREFUSED, (address, port)
    redis = ("exec", f"{project.name}-redis-1", "redis-cli", "-s", "/run/redis/redis.sock")
    assert "NOAUTH" in containers.docker(*redis, "ping")
    word = containers.docker("exec", f"{project.name}-redis-1", "cat", "/run/redis/password").strip()
    known = ("--user", "nestor", "--pass", word, "--no-auth-warning")
    assert "PONG" in containers.docker(*redis, *known, "ping")
    async with httpx.AsyncClient(trust_env=False) as http:
        about = (await http.get(f"{project.url}/server_info")).json()
    assert about["durability"] == "every accepted write is on disk before it is answered"
    for dangerous in (("flushall",), ("config", "set", "appendonly", "no"), ("keys", "*"), ("acl", "list")):
        assert "NOPERM" in containers.docker(*redis, *known, *dangerous)


def test_a_clone_that_only_its_owner_may_read_is_told_what_to_do(project: Project, tmp_path: Path):
    """A umask of 077 gives one, and root without capabilities is nobody's owner."""
    services = json.loads(project.compose("config", "--format", "json"))["services"]
    for name in ("gate", "keeper"):
        (closed := tmp_path / f"{name}.py").touch(0o600)
        if os.geteuid() == 0:
            os.chown(closed, 12345, 12345)
        run = ["docker", "run", "--rm", "--user", "root", "--cap-drop", "ALL", "--network", "none"]
        run += ["--volume", f"{closed}:/{name}.py:ro", services[name]["image"], *services[name]["command"]]
        done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert "chmod a+r deploy/*.py" in done.stderr


async def test_the_demo_runs_against_it(project: Project):
    project.up()
    command = [sys.executable, "-m", "orchestrator", "demo", "--plain", "--keep", "--url", project.url]
    done = subprocess.run(
        [*command, "--operator-key", project.operator_key],
        cwd=containers.REPOSITORY,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("pushed ") == 3
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        nestor = Client(project.url, project.operator_key, ScriptedModel(), http)
        for id, tenant in re.findall(r"Kept: conversation (\S+) of tenant (\S+)", done.stdout):
            path = f"/api/v2/tenants/{tenant}/api-keys"
            key = (await nestor.call("POST", path, project.operator_key, json={"name": "k"}, status=201))["key"]
            assert (await nestor.call("GET", f"/api/v2/conversations/{id}", key, status=200))["phase"] == "ready"
            project.kept.append(Kept(key, id, await settled(nestor, key, id, [])))
    assert len(project.kept) == 3


async def test_up_used_down_and_up_again_and_nothing_left(project: Project):
    project.up()
    async with talking_to(project.url, project.operator_key, gateway=GATEWAY, port=PORTS[0]) as nestor:
        key = await nestor.tenant()
        conversation = await nestor.conversation(key)
        id = conversation["id"]
        events = await nestor.run(key, id, say("before"))
        events = await settled(nestor, key, id, events)

        shown = containers.inspect("container", container_of(id))
        assert shown["HostConfig"]["Runtime"] == OCI_RUNTIME  # what the operator chose is passed on
        container = shown["Id"]
        project.compose("kill", "orchestrator")  # the other replica goes on, at once
        assert (await nestor.call("GET", f"/api/v2/conversations/{id}", key, status=200))["phase"] == "ready"
        project.compose("start", "orchestrator")
        await up(project)
        assert containers.inspect("container", container_of(id))["Id"] == container
        found = await nestor.call("GET", f"/api/v2/conversations/{id}", key, status=200)
        assert found["phase"] == "ready"

        project.compose("down")
        assert sorted(project.left()) == [
            f"{project.name}_data",
            f"{project.name}_engine",
            f"{project.name}_redis",
            f"{project.name}_redis-socket",
        ]
        assert not containers.docker("ps", "--all", "--quiet", "--filter", f"label=io.nestor.conversation={id}")

        project.compose("up", "--detach", "--wait")
        listed = await nestor.call("GET", "/api/v2/conversations", key, status=200)
        assert [item["id"] for item in listed["items"]] == [id]
        assert await nestor.events(key, id) == events
        for kept in project.kept:
            assert await nestor.events(kept.key, kept.id) == kept.events
        await nestor.until(key, id, "failed", past="ready")
        await nestor.call("POST", f"/api/v2/conversations/{id}/start", key, status=202)
        await nestor.until(key, id, "ready", past="failed")
        assert containers.docker("exec", container_of(id), "cat", "/workspace/said") == "before\n"

        # The orchestrators have no right to read what its owner may not, and see it all the same.
        fill = "exec 3>one 4>two 5>three; chmod 0 .; for n in 3 4 5; do head -c 120000000 /dev/zero >&$n; done"
        containers.docker(
            "exec", container_of(id), "bash", "-c", f"mkdir /workspace/closed; cd /workspace/closed; {fill}"
        )
        full = await nestor.until(key, id, "failed", past="ready")
        assert (full["reason"], full["retryable"]) == ("disk_full", True)
    assert "10.213.8.0/22" in run("iptables-save")
    project.compose("down", "--volumes")
    assert project.left() == []
    assert "10.213.8." not in run("iptables-save")


def say(text: str) -> dict[str, object]:
    return {"tool": "terminal", "args": {"command": f"echo {text} | tee /workspace/said", "summary": "Say it"}}


def own_addresses() -> list[str]:
    """Of this machine, loopback apart; the gateway of the runtimes' bridge is one."""
    words = run("ip", "-4", "-o", "addr", "show", "scope", "global").split()
    found = [after.partition("/")[0] for before, after in itertools.pairwise(words) if before == "inet"]
    assert GATEWAY in found
    return found


async def settled(nestor: Client, key: str, id: str, events: list[dict[str, object]]) -> list[dict[str, object]]:
    """The log once nothing is added to it any more."""
    while len(now := await nestor.events(key, id)) != len(events):
        events = now
    return now


async def up(project: Project) -> None:
    deadline = time.monotonic() + 60
    async with httpx.AsyncClient(trust_env=False) as http:
        while time.monotonic() < deadline:
            try:
                if (await http.get(f"{project.url}/ready")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
    raise AssertionError("the orchestrator did not come back")
