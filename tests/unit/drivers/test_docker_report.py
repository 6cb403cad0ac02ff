"""The report of the hardening, from what a probe would have seen."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.app.containers import Isolation
from orchestrator.domain.clock import SystemClock
from orchestrator.domain.errors import Misconfigured, NotApart
from orchestrator.drivers.docker_probe import Seen
from orchestrator.drivers.docker_report import Ground, report
from orchestrator.drivers.docker_spec import NO_CHOICE, Hardening
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.values import Limits, Row
from orchestrator.services.tenancy import Tenancy
from orchestrator.state.memory import MemoryStore

pytestmark = pytest.mark.anyio

INSIDE = {
    "CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
    "CapBnd": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
    "user": "10001:10001", "user map": "0 0 4294967295", "confined": "", "oom score": "500", "init": "docker-init",
    "files": "4096", "core": "0", "interfaces": "0", "memory": str(2 * 1024**3), "memory and swap": str(2 * 1024**3),
    "processes": "512", "processor quota": "200000", "processor period": "100000",
    "cgroups": "/", "shm": "rw,nosuid,nodev,noexec,relatime,size=131072k", "shares": "512", "swappiness": "0",
    "file size": "30000000", "neighbour": "closed", "machine": "closed", "listener": "open", "vsock": "closed",
}  # fmt: skip
MOUNTS = [f"{path},tmpfs,rw,nosuid,nodev,size=16384k" for path in ("/tmp", "/run", "/home/agent")]
SHOWN = {
    "HostConfig": {
        "IpcMode": "private", "Runtime": "runc", "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
    }
}  # fmt: skip
GROUND = Ground(info={"DefaultRuntime": "runc"}, rules=None, outside=False, listener=True, opened=False, size=False)


def judged(
    hardening: Hardening = NO_CHOICE,
    ground: Ground = GROUND,
    *,
    mounts: Sequence[str] = MOUNTS,
    without: Sequence[str] = (),
    **inside: str,
) -> dict[str, Row]:
    values = {name: [text] for name, text in (INSIDE | {n.replace("_", " "): t for n, t in inside.items()}).items()}
    seen = Seen({name: text for name, text in {**values, "mount": mounts}.items() if name not in without}, SHOWN)
    return {row.name: row for row in report(seen, hardening, Limits(), ground)}


def test_all_that_is_required_is_held_where_everything_took_effect():
    assert [row.name for row in judged().values() if row.required and not row.held] == []


@pytest.mark.parametrize(
    ("inside", "row"),
    [
        ({"CapEff": "00000000a80425fb"}, "capabilities"),
        ({"NoNewPrivs": "0"}, "no-new-privileges"),
        ({"Seccomp": "0"}, "seccomp"),
        ({"user": "0:0"}, "user"),
        ({"writable": "/etc"}, "read-only"),
        ({"memory": "9223372036854771712"}, "memory"),
        ({"memory": "max"}, "memory"),
        ({"memory_and_swap": "9223372036854771712"}, "swap"),
        ({"processes": "max"}, "processes"),
        ({"processor_quota": "-1"}, "processors"),
        ({"processor_quota": "max 100000", "processor_period": ""}, "processors"),
        ({"core": "unlimited"}, "core"),
        ({"files": "1048576"}, "files"),
        ({"neighbour": "refused"}, "neighbours"),
        ({"neighbour": "unknown"}, "neighbours"),
        ({"machine": "open"}, "machine"),
        ({"interfaces": "1"}, "ipv6"),
    ],
)
def test_each_part_that_did_not_take_effect_is_told(inside: dict[str, str], row: str):
    missing = [found.name for found in judged(**inside).values() if found.required and not found.held]
    assert missing == [row]


@pytest.mark.parametrize(
    ("inside", "row"),
    [
        ({"cgroups": "/docker/0123"}, "cgroups"),
        ({"shm": "rw,nosuid,nodev,size=65536k"}, "shm"),
        ({"shm": ""}, "shm"),
        ({"shares": "1024"}, "shares"),
        ({"shares": "100"}, "shares"),
        ({"shares": ""}, "shares"),
        ({"swappiness": "60"}, "swappiness"),
        ({"file_size": "unlimited"}, "file-size"),
        ({"oom_score": "0"}, "oom-score"),
    ],
)
def test_what_is_not_required_is_told_as_well(inside: dict[str, str], row: str):
    chosen = Hardening(swappiness=True, file_bytes=30_000_000)
    usual = {name for name, found in judged(chosen).items() if not found.held}
    missing = {found.name: found.required for found in judged(chosen, **inside).values() if not found.held}
    assert missing.keys() - usual == {row}
    assert missing[row] is False


def test_a_port_that_is_published_is_told():
    shown = {"HostConfig": {**SHOWN["HostConfig"], "PortBindings": {"8000/tcp": [{"HostPort": "80"}]}}}
    seen = Seen({name: [text] for name, text in INSIDE.items()} | {"mount": MOUNTS}, shown)
    rows = {row.name: row for row in report(seen, NO_CHOICE, Limits(), GROUND)}
    assert [row.name for row in rows.values() if row.required and not row.held] == ["ports"]
    assert judged()["ports"].held


#: As gVisor shows itself, and as an engine counts its container.
GVISOR = {
    "kernel": "4.4.0", "machine's_kernel": "6.18.44", "Seccomp": "0", "oom_score": "0", "processor_quota": "",
    "processor_period": "", "processor_periods": "53",
}  # fmt: skip


def gvisor(**inside: str) -> dict[str, Row]:
    return judged(Hardening(oci_runtime="runc"), mounts=[line.replace("nosuid,nodev,", "") for line in MOUNTS],
                  without=("CapAmb",), **(GVISOR | inside))  # fmt: skip


def test_a_container_with_a_kernel_of_its_own_is_judged_by_what_the_engine_counts():
    assert [row.name for row in gvisor().values() if row.required and not row.held] == []
    assert gvisor()["seccomp"].said == "its own kernel (4.4.0) stands before the machine's"


@pytest.mark.parametrize(
    ("inside", "row"),
    [
        ({"memory": "25000000000"}, "memory"),
        ({"memory_and_swap": ""}, "swap"),
        ({"processes": ""}, "processes"),
        ({"processor_periods": ""}, "processors"),
        ({"NoNewPrivs": ""}, "no-new-privileges"),
        ({"CapBnd": "00000000a80425fb"}, "capabilities"),
    ],
)
def test_so_is_what_does_not_bound_it(inside: dict[str, str], row: str):
    assert [found.name for found in gvisor(**inside).values() if found.required and not found.held] == [row]


def test_version_two_of_the_control_groups_is_read_too():
    rows = judged(memory_and_swap="0", processor_quota="200000 100000", processor_period="")
    assert rows["swap"].held
    assert rows["processors"].held


def test_another_oci_runtime_than_the_one_asked_for_is_told():
    assert not judged(Hardening(oci_runtime="runsc"))["oci-runtime"].held


def test_apparmor_is_required_only_where_the_machine_has_it():
    assert not judged()["apparmor"].required
    ground = replace(GROUND, info={"SecurityOptions": ["name=apparmor"], "DefaultRuntime": "runc"})
    assert judged(ground=ground, confined="unconfined")["apparmor"] == Row("apparmor", False, True, "unconfined")
    assert judged(ground=ground, confined="docker-default (enforce)")["apparmor"].held


class WalledFake(FakeDriver):
    """The fake driver with a report that a test chose."""

    rows: Any = ()

    async def wall(self, listener: Any) -> None:
        self.listener = listener

    async def report(self) -> Any:
        return self.rows

    async def mend(self) -> Any:
        return []


def walled(*rows: Row) -> WalledFake:
    driver = WalledFake()
    driver.rows = rows
    return driver


MISSING = Row("seccomp", False, True, "0")


async def tenancy(isolation: Isolation) -> Tenancy:
    store = MemoryStore(SystemClock()).tenants
    await isolation.establish(("10.0.0.1", 1), store)
    return Tenancy(store, SystemClock(), refusal=isolation.refusal, hint=lambda: isolation.hint)


async def test_a_second_tenant_is_refused_where_something_required_is_missing():
    isolation = Isolation(walled(MISSING, Row("apparmor", False, False, "none")), frozenset())
    house = await tenancy(isolation)
    await house.create_tenant("acme")
    with pytest.raises(NotApart, match="seccomp") as refused:
        await house.create_tenant("globex")
    assert refused.value.hint is not None
    assert "NESTOR_ACCEPT_WEAKER=seccomp" in refused.value.hint


@pytest.mark.parametrize("accepted", ["seccomp", "all", "untried"])
async def test_what_is_accepted_by_its_name_refuses_nobody(accepted):
    house = await tenancy(Isolation(walled(MISSING), frozenset({accepted})))
    for name in ("acme", "globex"):
        await house.create_tenant(name)


async def test_with_several_tenants_there_is_no_start_without_it():
    store = MemoryStore(SystemClock()).tenants
    whole = Tenancy(store, SystemClock())
    for name in ("acme", "globex"):
        await whole.create_tenant(name)
    with pytest.raises(Misconfigured, match="several tenants"):
        await Isolation(walled(MISSING), frozenset()).establish(None, store)


async def test_a_row_that_is_not_there_cannot_be_accepted():
    with pytest.raises(Misconfigured, match="no row secomp"):
        await tenancy(Isolation(walled(MISSING), frozenset({"secomp"})))


@pytest.mark.parametrize(
    ("file_bytes", "measured", "held", "words"),
    [
        (30_000_000, True, True, "30 MB"),
        (0, True, False, "NESTOR_RUNTIME_DISK_MEGABYTES"),
        (30_000_000, False, False, "cannot be looked into"),
    ],
)
def test_a_disk_that_nobody_bounds_is_told(file_bytes: int, measured: bool, held: bool, words: str):
    row = judged(Hardening(file_bytes=file_bytes), replace(GROUND, measured=measured))["disk"]
    assert (row.held, row.required) == (held, False)
    assert words in row.said


@pytest.mark.parametrize(("said", "held"), [("closed", True), ("open", False), ("", False)])
def test_sockets_of_virtual_machines_are_told(said: str, held: bool):
    row = judged(vsock=said)["vsock"]
    assert (row.held, row.required) == (held, False)
    assert row.said
