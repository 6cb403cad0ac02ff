"""One runtime as a container: every flag of the hardening as the engine shows it, and as it is felt from inside."""

import gc
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from support import containers

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import SecretText, new_secret
from orchestrator.drivers.docker import DockerDriver
from orchestrator.drivers.errors import ClaimTaken, ImageUnavailable, StaleFence, StartRefused
from orchestrator.drivers.values import Condition, Endpoint, ExitCause, Handle, Limits, OwnerLabels, RuntimeSpec
from orchestrator.nested.client import RuntimeClients
from orchestrator.nested.refusals import Impostor

pytestmark = [pytest.mark.docker, pytest.mark.anyio]

IMAGE = "nestor-runtime:latest"
MEBIBYTE = 1024**2


@dataclass
class Yard:
    """A driver, and what was made through it."""

    driver: DockerDriver
    installation: str
    made: list[OwnerLabels]

    def spec(self, **more: Any) -> RuntimeSpec:
        conversation = str(uuid.uuid4())
        labels = OwnerLabels(
            self.installation,
            TenantId(str(uuid.uuid4())),
            ConversationId(conversation),
            RuntimeId(str(uuid.uuid4())),
            generation=1,
        )
        self.made.append(labels)
        return RuntimeSpec(name=f"nestor-{conversation}-g1", labels=labels, **more)

    async def started(self, key: SecretText | None = None, **more: Any) -> tuple[Handle, Endpoint]:
        spec = self.spec(**more)
        await self.driver.ensure_volume(spec.labels, fence=1)
        handle = await self.driver.create(spec, fence=1)
        endpoint = await self.driver.start(handle, fence=1, init_key=key or new_secret())
        async with RuntimeClients().open(endpoint.origin, SecretText("none")) as client:
            with anyio.fail_after(30):
                await client.wait_alive()
        return handle, endpoint


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    installation = str(uuid.uuid4())
    driver = DockerDriver(tmp_path / "data", installation=installation, image=IMAGE)
    found = await driver.fingerprint()
    assert found.usable, found.message
    yard = Yard(driver, installation, [])
    yield yard
    for handle in await driver.list(installation):
        await driver.destroy(handle, fence=1000)
    for labels in yard.made:
        await driver.remove_volume(labels, fence=1000)
    await driver.close()
    assert installation[:8] not in containers.docker("network", "ls", "--format", "{{.Name}}")


def inside(handle: Handle, command: str) -> str:
    """What a shell in the container prints; it has no more rights than the runtime itself."""
    return containers.docker("exec", handle.reference, "bash", "-c", command).strip()


async def test_every_flag_is_in_force_as_the_engine_shows_it(yard):
    handle, _ = await yard.started(environment={"PLAIN": "value"})
    shown = containers.inspect("container", handle.reference)
    host, config = shown["HostConfig"], shown["Config"]
    assert config["User"] == "10001:10001"
    assert config["Tty"] is False
    assert config["Healthcheck"]["Test"] == ["NONE"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Privileged"] is False
    assert host["ReadonlyRootfs"] is True
    assert set(host["Tmpfs"]) == {"/tmp", "/run", "/home/agent"}
    assert all("nosuid" in options and "nodev" in options for options in host["Tmpfs"].values())
    sizes = {path: [word for word in options.split(",") if "size=" in word] for path, options in host["Tmpfs"].items()}
    assert sizes == {"/tmp": ["size=512m"], "/run": ["size=16m"], "/home/agent": ["size=512m"]}
    assert "noexec" in host["Tmpfs"]["/run"]
    assert (host["CpuShares"], host["ShmSize"], config["StopTimeout"]) == (512, 128 * MEBIBYTE, 10)
    version1 = containers.docker("info", "--format", "{{.CgroupVersion}}").strip() == "1"
    assert host["MemorySwappiness"] == (0 if version1 else None)
    assert (host["Memory"], host["MemorySwap"]) == (2048 * MEBIBYTE, 2048 * MEBIBYTE)
    assert (host["NanoCpus"], host["PidsLimit"], host["OomScoreAdj"]) == (2_000_000_000, 512, 500)
    assert {(limit["Name"], limit["Soft"], limit["Hard"]) for limit in host["Ulimits"]} == {
        ("nofile", 4096, 8192),
        ("core", 0, 0),
    }
    assert (host["Init"], host["IpcMode"], host["PidMode"], host["UTSMode"]) == (True, "private", "", "")
    assert host["CgroupnsMode"] == "private"
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["AutoRemove"] is False
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "2", "max-size": "10m"}}
    assert not host["PortBindings"]
    assert not host["Binds"]
    assert not host["Devices"]
    assert not host["ExtraHosts"]
    assert not host["VolumesFrom"]
    assert not host["CgroupParent"]
    assert host["PublishAllPorts"] is False
    assert {mount["Destination"]: mount["Type"] for mount in shown["Mounts"]} == {
        "/workspace": "volume",
        "/state": "volume",
    }
    assert list(shown["NetworkSettings"]["Networks"]) == [f"nestor-{yard.installation.replace('-', '')[:11]}"]


async def test_a_larger_size_is_larger_in_everything(yard):
    handle = await yard.driver.create(yard.spec(limits=Limits().times(4)), fence=1)
    host = containers.inspect("container", handle.reference)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (8192 * MEBIBYTE, 8192 * MEBIBYTE)
    processors = int(containers.docker("info", "--format", "{{.NCPU}}"))  # an engine takes no more than there are
    assert host["NanoCpus"] == 1_000_000_000 * min(8, processors)
    assert host["PidsLimit"] == 2048
    assert {(one["Name"], one["Soft"], one["Hard"]) for one in host["Ulimits"]} == {
        ("nofile", 16384, 32768),
        ("core", 0, 0),
    }
    assert host["LogConfig"]["Config"] == {"max-file": "2", "max-size": "40m"}


async def test_every_flag_is_felt_from_inside(yard):
    handle, _ = await yard.started(limits=Limits(memory_bytes=512 * MEBIBYTE, cpus=1.0, pids=64))
    # Of the first process: a command that the engine puts in may get the hard limit as its soft one (runc issue 4195).
    assert inside(handle, "grep -E '^Max open' /proc/1/limits").split()[3:5] == ["4096", "8192"]
    assert inside(handle, "ulimit -Hn") == "8192"
    status = dict(
        line.split(":\t") for line in inside(handle, "grep -E 'Cap|NoNew|Seccomp:' /proc/self/status").splitlines()
    )
    assert {int(value, 16) for name, value in status.items() if name.startswith("Cap")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert inside(handle, "id -u; id -g") == "10001\n10001"
    for path in ("/x", "/etc/x", "/usr/bin/x", "/opt/nestor/x", "/proc/sys/kernel/hostname"):
        refusal = inside(handle, f"(echo x >{path}) 2>&1 || true")
        assert "denied" in refusal or "Read-only" in refusal, path
    for path in ("/tmp", "/home/agent", "/workspace", "/state"):
        inside(handle, f"touch {path}/x && rm {path}/x")
    memory = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert int(inside(handle, memory)) == 512 * MEBIBYTE
    assert "temporarily unavailable" in inside(handle, "(for n in $(seq 100); do sleep 3 & done; true) 2>&1 || true")
    assert inside(handle, "ulimit -Hc") == "0"
    assert set(inside(handle, "cut -d : -f 3 /proc/1/cgroup").split()) == {"/"}  # not where it is on this machine
    assert inside(handle, "df --output=size /dev/shm | tail -1") == str(128 * 1024)
    shares = "cat /sys/fs/cgroup/cpu.weight 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.shares"
    assert inside(handle, shares) not in ("1024", "100")  # what a program has that nobody gave any
    assert inside(handle, "cat /proc/net/if_inet6 2>/dev/null | grep -v ' lo$' || true") == ""


async def test_runtimes_do_not_reach_one_another_but_the_machine_reaches_both(yard):
    one, at_one = await yard.started()
    _, at_two = await yard.started()
    reach = (
        "import socket,sys\ntry:\n socket.create_connection((sys.argv[1], 8000), 3)\n print('open')\n"
        "except OSError:\n print('closed')"
    )
    for target, expected in ((at_two.host, "closed"), ("127.0.0.1", "open")):
        said = containers.docker("exec", one.reference, "python3", "-c", reach, target)
        assert said.strip() == expected, target
    async with httpx.AsyncClient(trust_env=False) as http:
        for endpoint in (at_one, at_two):
            assert (await http.get(f"{endpoint.origin}/alive")).status_code == 200


async def test_the_key_is_in_nothing_that_the_engine_shows_and_only_its_holder_can_bind_the_runtime(yard):
    key = new_secret()
    handle, endpoint = await yard.started(key)
    shown = containers.docker("inspect", handle.reference) + containers.docker("logs", handle.reference)
    assert key.open() not in shown
    body = {"session_api_keys": ["inner-key-of-this-generation"], "secret_key": "state-key"}
    async with RuntimeClients().open(endpoint.origin, SecretText("inner-key-of-this-generation")) as client:
        with pytest.raises(Impostor):
            await client.init(new_secret(), body)
        await client.init(key, body)
        await client.post_settings({"agent": "CodeActAgent", "llm_model": "openai/x"})
    assert key.open() not in containers.docker("logs", handle.reference)
    assert key.open() not in inside(handle, "cat /proc/1/environ /proc/1/cmdline | tr '\\0' '\\n'")
    server = inside(handle, "grep -l '^PPid:.1$' /proc/[0-9]*/status | head -1 | cut -d / -f 3")
    assert "runtime" in inside(handle, f"tr '\\0' ' ' </proc/{server}/cmdline")
    assert "denied" in inside(handle, f"cat /proc/{server}/environ 2>&1 || true")


async def test_a_runtime_that_takes_too_much_memory_ended_for_that_reason(yard):
    spec = yard.spec(limits=Limits(memory_bytes=24 * MEBIBYTE))  # less than the server needs to start
    await yard.driver.ensure_volume(spec.labels, fence=1)
    handle = await yard.driver.create(spec, fence=1)
    await yard.driver.start(handle, fence=1, init_key=new_secret())
    with anyio.fail_after(30):
        while (seen := await yard.driver.inspect(handle)).condition is not Condition.EXITED:
            await anyio.sleep(0.1)
    assert (seen.cause, seen.exit_code) == (ExitCause.OOM, 137)


async def test_volumes_are_whose_they_were_where_the_folder_was_lost(yard, tmp_path):
    """The engine's labels say it then: whose, and under which fence at least."""
    labels = yard.spec().labels
    assert await yard.driver.ensure_volume(labels, fence=5)

    def lost(name: str) -> DockerDriver:
        return DockerDriver(tmp_path / name, installation=yard.installation, image=IMAGE)

    with pytest.raises(ClaimTaken):
        await lost("stranger").ensure_volume(replace(labels, tenant=TenantId(str(uuid.uuid4()))), fence=9)
    with pytest.raises(StaleFence):
        await lost("older").ensure_volume(labels, fence=4)
    newer = lost("newer")
    assert not await newer.ensure_volume(labels, fence=6)
    with pytest.raises(StaleFence):
        await newer.ensure_volume(labels, fence=5)


def volume(labels: OwnerLabels, part: str) -> Any:
    return containers.inspect("volume", f"nestor-{labels.storage}-{part}")


async def test_a_volume_that_is_made_with_its_runtime_is_as_one_that_was_made_before(yard):
    spec, plain = yard.spec(), yard.spec()
    await yard.driver.ensure_volume(plain.labels, fence=1)
    handle = await yard.driver.create_with_volume(spec, fence=1)
    assert handle == await yard.driver.create_with_volume(spec, fence=1)
    await yard.driver.start(handle, fence=1, init_key=new_secret())
    for part in ("workspace", "state"):
        assert set(volume(spec.labels, part)["Labels"]) == set(volume(plain.labels, part)["Labels"])
    assert inside(handle, "stat -c '%u:%g' /workspace /state") == "10001:10001\n10001:10001"
    with pytest.raises(StaleFence):
        await yard.driver.ensure_volume(spec.labels, fence=0)
    inside(handle, "echo kept > /workspace/file")
    await yard.driver.destroy(handle, fence=1)
    again = await yard.driver.create_with_volume(replace(spec, name=f"{spec.name}2"), fence=2)
    await yard.driver.start(again, fence=2, init_key=new_secret())
    assert inside(again, "cat /workspace/file") == "kept"
    with pytest.raises(StaleFence):
        await yard.driver.create_with_volume(replace(spec, name=f"{spec.name}3"), fence=1)


async def test_a_runtime_that_was_made_on_a_strangers_volume_is_ended_and_the_volume_stays(yard, tmp_path):
    """Only where the folder was lost: the name of a volume is a runtime's id, which is ours."""
    spec = yard.spec()
    stranger = replace(spec.labels, tenant=TenantId(str(uuid.uuid4())))
    other = DockerDriver(tmp_path / "other", installation=yard.installation, image=IMAGE)
    await other.ensure_volume(stranger, fence=1)
    handle = await yard.driver.create_with_volume(spec, fence=7)
    with pytest.raises(ClaimTaken):
        await yard.driver.start(handle, fence=7, init_key=new_secret())
    assert (await yard.driver.inspect(handle)).condition is Condition.EXITED
    with pytest.raises(ClaimTaken):
        await yard.driver.remove_volume(spec.labels, fence=7)
    await yard.driver.destroy(handle, fence=7)
    assert volume(stranger, "workspace")["Labels"]["io.nestor.tenant"] == stranger.tenant
    yard.made.remove(spec.labels)
    await other.remove_volume(stranger, fence=7)
    await other.close()


async def test_an_image_that_bears_our_label_alone_is_seen_to_before_it_is_started(yard):
    other = "nestor-test-labelled"
    containers.docker("build", "--quiet", "--tag", other, "-", stdin=f"FROM {IMAGE}\nLABEL another=one\n")

    async def is_settled(image: str | None) -> bool:
        """Whether the volumes have their fence before the start."""
        spec = yard.spec(image=image)
        handle = await yard.driver.create_with_volume(spec, fence=1)
        known = yard.driver._fences.peek(f"volume-{spec.labels.storage}") is not None
        await yard.driver.start(handle, fence=1, init_key=new_secret())
        await yard.driver.destroy(handle, fence=1)
        return known

    id = containers.inspect("image", IMAGE)["Id"]
    assert await is_settled(other)
    assert await is_settled(id)
    assert not await is_settled(None)
    assert await yard.driver.image_id(IMAGE) == id
    assert not await is_settled(id)  # which is the driver's own, as it knows by now
    containers.docker("image", "rm", other)


async def test_an_undone_creation_leaves_no_volume(yard):
    spec = yard.spec()
    handle = await yard.driver.create_with_volume(spec, fence=1)
    await yard.driver.destroy(handle, fence=1)
    await yard.driver.remove_volume(spec.labels, fence=1)
    assert spec.labels.storage not in containers.docker("volume", "ls", "--format", "{{.Name}}")


async def test_an_image_that_is_not_there_is_told_and_nothing_is_pulled(yard):
    with pytest.raises(ImageUnavailable, match="no-such-image:1"):
        await yard.driver.create(yard.spec(image="no-such-image:1"), fence=1)


async def test_an_image_that_cannot_start_is_told(yard):
    broken = "nestor-test-broken"
    containers.docker("build", "--quiet", "--tag", broken, "-", stdin=f'FROM {IMAGE}\nENTRYPOINT ["/no/such/file"]\n')
    spec = yard.spec(image=broken)
    await yard.driver.ensure_volume(spec.labels, fence=1)
    handle = await yard.driver.create(spec, fence=1)
    with pytest.raises(StartRefused) as refused:
        await yard.driver.start(handle, fence=1, init_key=new_secret())
    assert refused.value.hint
    containers.docker("rm", handle.reference)
    containers.docker("image", "rm", broken)


# The SDK leaves a socket that could not be connected to the garbage collector, which warns of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_an_engine_that_is_not_there_is_not_an_absent_runtime(tmp_path):
    driver = DockerDriver(tmp_path, installation="x", image=IMAGE, host=f"unix://{tmp_path}/no-engine.sock")
    found = await driver.fingerprint()
    assert (found.usable, "could not be asked" in found.message) == (False, True)
    with pytest.raises(DriverUnavailable):
        await driver.find("nestor-x")
    with pytest.raises(DriverUnavailable):
        await driver.list("x")
    await driver.close()
    await anyio.to_thread.run_sync(int)  # a worker thread remembers its last failure until it works again
    gc.collect()
