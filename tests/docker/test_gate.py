"""The filter before the engine (`deploy/gate.py`): all that the driver does passes, and nothing that would be more."""

import asyncio
import importlib.util
import json
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from anyio import to_thread
from support import containers

from orchestrator.domain.errors import Misconfigured
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import new_secret
from orchestrator.drivers.docker import Choices, DockerDriver
from orchestrator.drivers.docker_engine import Engine, Refused
from orchestrator.drivers.docker_helper import Helper
from orchestrator.drivers.docker_rules import Egress
from orchestrator.drivers.docker_seat import myself
from orchestrator.drivers.values import Condition, OwnerLabels, RuntimeSpec

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


@pytest.fixture(scope="module")
def gate_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gate", containers.REPOSITORY / "deploy/gate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gate"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def names() -> Iterator[tuple[str, str]]:
    """A bridge and a volume as compose makes them."""
    mark = f"nestor-gate-{uuid.uuid4().hex[:8]}"
    option = "com.docker.network.bridge.enable_icc=false"
    containers.docker("network", "create", "--opt", option, "--subnet", "10.213.200.0/24", mark)
    containers.docker("volume", "create", mark)
    yield mark, mark
    containers.docker("network", "rm", mark)
    containers.docker("volume", "rm", mark)


@asynccontextmanager
async def serving(module: ModuleType, folder: Path, names: tuple[str, str]) -> AsyncIterator[tuple[str, Path]]:
    """The gate's socket, and where the engine keeps the volume."""
    root = Path(containers.inspect("volume", names[1])["Mountpoint"])
    gate = module.Gate(module.ENGINE, module.Ground(names[0], names[1], str(root)))
    path = folder / "engine.sock"
    server = await asyncio.start_unix_server(gate.serve, path, limit=module.HEAD_BYTES)
    async with server:
        yield str(path), root


async def test_a_runtimes_whole_life_passes_and_so_does_its_report(gate_module, names, folder):
    async with serving(gate_module, folder, names) as (path, root):
        installation = str(uuid.uuid4())
        driver = DockerDriver(
            root,  # compose: the orchestrator is mounted on the volume
            installation=installation,
            image=containers.standin_image(),
            host=f"unix://{path}",
            network=names[0],
            data_volume=names[1],
            choices=Choices(egress=Egress.ALLOW_LIST, egress_image=containers.egress_image(), outside=True),
        )
        found = await driver.fingerprint()
        assert found.usable, found.message
        await driver.wall(None)
        rows = {row.name: row for row in await driver.report()}
        assert rows["capabilities"].held
        conversation = str(uuid.uuid4())
        owner = ConversationId(conversation), RuntimeId(str(uuid.uuid4())), 1
        labels = OwnerLabels(installation, TenantId(str(uuid.uuid4())), *owner)
        await driver.ensure_volume(labels, fence=1)
        handle = await driver.create(RuntimeSpec(f"nestor-{conversation}-g1", labels), fence=1)
        await driver.start(handle, fence=1, init_key=new_secret())
        await driver.pause(handle, fence=1)
        await driver.unpause(handle, fence=1)
        assert [one.name for one in await driver.list(installation)] == [handle.name]
        assert await driver.mend() == []
        await driver.stop(handle, fence=1, grace=1)
        assert (await driver.inspect(handle)).condition is Condition.EXITED
        await driver.logs(handle)
        await driver.destroy(handle, fence=1)
        await driver.remove_volume(labels, fence=1)
        await driver.close()
        assert not containers.docker("ps", "--all", "--quiet", "--filter", f"network={names[0]}")


def fit(names: tuple[str, str], root: str) -> dict[str, Any]:
    """What the driver asks for, as far as the gate looks at it."""
    return {
        "Image": containers.standin_image(),
        "User": "10001:10001",
        "Labels": {"io.nestor.runtime": "x"},
        "HostConfig": {
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "NetworkMode": names[0],
            "IpcMode": "private",
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": 1 << 28,
            "MemorySwap": 1 << 28,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}},
            "PidsLimit": 64,
            "Mounts": [{"Type": "bind", "Source": f"{root}/volumes/x/state", "Target": "/state"}],
        },
    }


#: Where in the body, and what would be more than a runtime has.
MORE: list[tuple[str, Any]] = [
    ("User", "0:0"), ("User", ""), ("Labels", {}), ("Labels", {"other": "x"}), ("Volumes", {"/x": {}}),
    ("HostConfig.Privileged", True), ("HostConfig.CapAdd", ["SYS_ADMIN"]), ("HostConfig.CapDrop", []),
    ("HostConfig.CapDrop", ["NET_RAW"]), ("HostConfig.Binds", ["/:/host"]), ("HostConfig.NetworkMode", "host"),
    ("HostConfig.NetworkMode", "bridge"), ("HostConfig.NetworkMode", "container:x"), ("HostConfig.PidMode", "host"),
    ("HostConfig.IpcMode", "host"), ("HostConfig.UTSMode", "host"), ("HostConfig.UsernsMode", "host"),
    ("HostConfig.CgroupnsMode", "host"), ("HostConfig.Devices", [{"PathOnHost": "/dev/sda"}]),
    ("HostConfig.DeviceRequests", [{"Count": -1}]), ("HostConfig.DeviceCgroupRules", ["a *:* rwm"]),
    ("HostConfig.SecurityOpt", []), ("HostConfig.SecurityOpt", ["no-new-privileges:true", "seccomp=unconfined"]),
    ("HostConfig.SecurityOpt", ["no-new-privileges:true", "apparmor=unconfined"]),
    ("HostConfig.SecurityOpt", ["no-new-privileges:true", "label=disable"]), ("HostConfig.ReadonlyRootfs", False),
    ("HostConfig.SecurityOpt", ["no-new-privileges:true", 'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']),
    ("HostConfig.SecurityOpt", ["no-new-privileges:true", "apparmor=somebodys"]),
    ("HostConfig.Sysctls", {"kernel.x": "1"}), ("HostConfig.CgroupParent", "/"), ("HostConfig.VolumesFrom", ["x"]),
    ("HostConfig.PortBindings", {"80/tcp": [{}]}), ("HostConfig.PublishAllPorts", True), ("HostConfig.Memory", 0),
    ("HostConfig.PidsLimit", -1), ("HostConfig.ExtraHosts", ["host:host-gateway"]), ("HostConfig.MaskedPaths", ["/x"]),
    ("HostConfig.GroupAdd", ["0"]), ("HostConfig.Links", ["x"]),
    ("HostConfig.MemorySwap", -1), ("HostConfig.OomScoreAdj", -1000), ("HostConfig.RestartPolicy", {"Name": "always"}),
    ("HostConfig.LogConfig", {}), ("HostConfig.LogConfig", {"Type": "json-file", "Config": {}}),
    ("HostConfig.LogConfig", {"Type": "syslog", "Config": {"syslog-address": "tcp://127.0.0.1:6379"}}),
    ("HostConfig.LogConfig", {"Type": "json-file", "Config": {"max-size": "-1", "max-file": "2"}}),
    ("HostConfig.LogConfig", {"Type": "json-file", "Config": {"max-size": "900g", "max-file": "2"}}),
    ("NetworkingConfig", {"EndpointsConfig": {"bridge": {}}}), ("NetworkingConfig", "x"), ("HostConfig", ["x"]),
    # An engine prefers what is in it to the name before it.
    ("NetworkingConfig", {"EndpointsConfig": {"BRIDGE": {"NetworkID": "bridge"}}}),
    ("NetworkingConfig", {"EndpointsConfig": {"BRIDGE": {"networkid": "bridge"}}}),
    # Names that an engine takes in any spelling: here beside the right one, and alone.
    ("hostconfig", {"Privileged": True}), ("user", "0:0"), ("u\u017fer", "0:0"), ("HostConfig.capdrop", []),
    ("HostConfig.readonlyrootfs", False), ("HostConfig.\u017fecurityOpt", []), ("volumes", {"/x": {}}),
    ("networkingConfig", {"EndpointsConfig": {"bridge": {}}}), ("HostConfig.oomScoreAdj", 0),
    ("HostConfig.RestartPolicy", {"name": "always"}),
    *[
        ("HostConfig.Mounts", [{"Type": kind, "Source": source, "Target": "/x"}])
        for kind, source in [
            ("bind", "/"), ("bind", "/var/run/docker.sock"), ("bind", "ROOT"), ("bind", "ROOT/volumes"),
            ("bind", "ROOT/volumes/x"), ("bind", "ROOT/volumes/x/../../master.key"), ("bind", "ROOT/master.key"),
            ("bind", "ROOT/docker/egress"), ("volume", "somebodys"), ("npipe", "x"),
        ]
    ],
]  # fmt: skip


def test_of_profiles_the_one_that_the_operator_chose_is_let_through(gate_module, names):
    body = fit(names, "/root")
    chosen = gate_module.Ground(names[0], names[1], "/root", "runtimes")
    body["HostConfig"]["SecurityOpt"].append("apparmor=runtimes")
    assert gate_module.unfit(body, chosen) is None
    assert gate_module.unfit(body, gate_module.Ground(names[0], names[1], "/root")) == "a security option"
    body["HostConfig"]["SecurityOpt"][-1] = "apparmor=unconfined"
    assert gate_module.unfit(body, chosen) == "a security option"


#: A part that is said twice: an engine puts both together, a reader of JSON takes the last.
TWICE = ('"HostConfig": {"Privileged": true}', '"User": "0:0"')


async def test_no_container_with_more_than_a_runtime_has_is_made(gate_module, names, folder):
    async with serving(gate_module, folder, names) as (path, root):
        transport = httpx.AsyncHTTPTransport(uds=path)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", trust_env=False) as http:
            assert gate_module.unfit(fit(names, str(root)), gate_module.Ground(names[0], names[1], str(root))) is None
            for where, value in MORE:
                body = deepcopy(fit(names, str(root)))
                *way, last = where.split(".")
                place: dict[str, Any] = body
                for step in way:
                    place = place[step]
                place[last] = json.loads(json.dumps(value).replace("ROOT", str(root)).replace("BRIDGE", names[0]))
                answer = await http.post("/v1.41/containers/create?name=nestor-gate-test", json=body)
                assert answer.status_code == 403, (where, value, answer.text)
            for part in TWICE:
                twice = "{" + part + ", " + json.dumps(fit(names, str(root)))[1:]
                answer = await http.post("/v1.41/containers/create?name=nestor-gate-test", content=twice)
                assert answer.status_code == 403, (part, answer.text)
            deep = await http.post("/v1.41/containers/create?name=nestor-gate-test", content="[" * 200_000)
            assert deep.status_code == 403
        assert "nestor-gate-test" not in containers.docker("ps", "--all", "--format", "{{.Names}}")


OTHERS = [
    ("GET", "/images/json"), ("GET", "/volumes"), ("GET", "/networks"),
    ("GET", "/networks/bridge"), ("GET", "/volumes/somebodys"), ("POST", "/build"), ("POST", "/images/create"),
    ("POST", "/networks/create"), ("POST", "/volumes/create"), ("DELETE", "/volumes/x"), ("POST", "/swarm/init"),
    ("POST", "/containers/OTHER/exec"), ("POST", "/containers/OTHER/update"), ("GET", "/containers/OTHER/json"),
    ("POST", "/containers/OTHER/stop"), ("DELETE", "/containers/OTHER?force=1"), ("GET", "/containers/OTHER/archive"),
    ("POST", "/containers/OTHER/attach?stdin=1&stream=1"), ("GET", "/containers/OTHER/%6ason"), ("GET", "/events"),
    ("POST", "/containers/prune"), ("GET", "/../containers/json"), ("POST", "/session"), ("GET", "/secrets"),
    ("GET", "/v1.23/containers/json"), ("GET", "/images/x/../../containers/json"), ("GET", "/containers/none/json"),
    ("GET", '/events?x;filters={}&filters={"label":["io.nestor.runtime"]}'), ("GET", '/events?filters={"type":["x"]}'),
    ("GET", '/containers/json?filters={"label":["io.nestor.runtime"],"label":["x"]}'), ("GET", "/_ping?\nX:y"),
]  # fmt: skip


async def test_a_name_is_that_of_the_container_that_was_looked_at(gate_module, names, folder):
    """One of ours that is called like the beginning of another's id hides that other until it is gone."""
    other = containers.docker("create", containers.standin_image()).strip()
    async with serving(gate_module, folder, names) as (path, root):
        body = fit(names, str(root))
        del body["HostConfig"]["Mounts"]
        gate = gate_module.Gate(gate_module.ENGINE, gate_module.Ground(names[0], names[1], str(root)))
        transport = httpx.AsyncHTTPTransport(uds=path)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", trust_env=False) as http:
            made = await http.post(f"/v1.41/containers/create?name={other[:12]}", json=body)
            assert made.status_code == 201, made.text
            ours = made.json()["Id"]
            try:
                _, target, _ = await gate._admit("DELETE", f"/v1.41/containers/{other[:12]}?force=1", b"")
                assert target == f"/v1.41/containers/{ours}?force=1"
                # Long ago a container's host part could be changed where it is started.
                for version in ("v1.23/", "v1.22/", "v1.41/", ""):
                    answer = await http.post(f"/{version}containers/{ours}/start", json={"Privileged": True})
                    assert answer.status_code == 403, (version, answer.text)
                # A checkpoint would go on as whoever it was taken of, capabilities included.
                for query in ("checkpoint=x&checkpoint-dir=/tmp", "check%70oint=x"):
                    answer = await http.post(f"/v1.41/containers/{ours}/start?{query}")
                    assert answer.status_code == 403, (query, answer.text)
            finally:
                containers.docker("rm", ours)
                containers.docker("rm", other)


async def test_no_other_call_passes_and_nothing_of_others_is_touched(gate_module, names, folder):
    other = containers.docker("create", containers.standin_image()).strip()
    try:
        async with serving(gate_module, folder, names) as (path, _):
            for method, target in OTHERS:
                said = await raw(path, f"{method} {target.replace('OTHER', other)} HTTP/1.1\r\nHost: x\r\n\r\n")
                assert said.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 404 ")), (method, target, said[:200])
                assert b"the gate refuses" in said
            for filters in (
                "",
                '&filters={"network":["bridge"]}',
                '&filters={"label":["io.nestor.runtime"]}',
                f"&size=1&id={other}",
            ):
                listed = await raw(path, f"GET /containers/json?all=1{filters} HTTP/1.1\r\nHost: x\r\n\r\n")
                assert listed.startswith(b"HTTP/1.1 200 ")
                assert listed.partition(b"\r\n\r\n")[2].strip() == b"[]", listed  # nothing is on this bridge
            # A second call behind the first is not read, nor is one behind a body of unknown length.
            twice = "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n" + "GET /containers/json HTTP/1.1\r\nHost: x\r\n\r\n"
            assert (await raw(path, twice)).count(b"HTTP/1.1 ") <= 1
            chunked = "POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            assert (await raw(path, chunked)).startswith(b"HTTP/1.1 403 ")
        assert containers.inspect("container", other)["State"]["Status"] == "created"
    finally:
        containers.docker("rm", other)


async def test_an_orchestrator_on_a_bridge_gets_neither_its_seat_nor_its_helper(gate_module, names, folder):
    """So that behind the gate it stays in the machine's network (docs/docker.md)."""
    me = containers.docker("create", "--network", names[0], containers.standin_image()).strip()
    cell = f"{names[0]}-cell"
    containers.docker("network", "create", cell)
    try:
        async with serving(gate_module, folder, names) as (path, _):
            unseen, seatless, helpless = await to_thread.run_sync(tried, f"unix://{path}", me, cell)
        assert f"the engine has no container {me}" in unseen
        assert "refused to join the cell (403)" in seatless
        assert "the helper that would set the machine's rules could not be had" in helpless
        assert "nestor netguard" in helpless
        assert me not in containers.docker("network", "inspect", cell)
        assert "nestor-gate-helper" not in containers.docker("ps", "--all", "--format", "{{.Names}}")
    finally:
        containers.docker("rm", me)
        containers.docker("network", "rm", cell)


def tried(host: str, me: str, cell: str) -> tuple[str, str, str]:
    """What an orchestrator in the container `me` is told where it looks at itself, takes its seat, makes its helper."""
    engine = Engine(host)
    try:
        with pytest.raises(Misconfigured) as unseen:
            myself(engine, me)
        with pytest.raises(Refused) as seatless:
            engine.act("join the cell", lambda client: client.connect_container_to_network(me, cell))
        helper = Helper(engine, name="nestor-gate-helper", image=containers.standin_image(), installation="x")
        return str(unseen.value), str(seatless.value), str(helper.trouble())
    finally:
        engine.close()


async def raw(path: str, text: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(text.encode())
        await writer.drain()
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()
