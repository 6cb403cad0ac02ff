"""What a runtime on this engine really has: two throw-away containers, made as runtimes are, that look at themselves.

An engine takes most flags without a word and does what it can. So the report at the start goes by what a process inside
sees and reaches: `docker_report.py` judges it. One container listens to nothing and is the neighbour; the other prints
what it finds. Both are removed, and those of a start that was killed are removed by the next one.
"""

import contextlib
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.drivers.docker_engine import Engine, Missing, Occupied, Refused
from orchestrator.drivers.docker_network import Network
from orchestrator.drivers.docker_rules import Door
from orchestrator.drivers.docker_spec import PREFIX, Hardening, Image, container_arguments
from orchestrator.drivers.values import OwnerLabels, RuntimeSpec

PROBE = f"{PREFIX}probe"
_SECONDS = 120.0  #: on a machine that starts much at once a second's work takes long
#: It is removed before; that it is there at the end is looked at, since nobody reaches one that is gone.
_NEIGHBOUR = "sleep 600"
_LEFT_OVER_SECONDS = 300
#: Version 1 and version 2 of the kernel's control groups.
_FILES: Mapping[str, Sequence[str]] = {
    "memory": ("memory/memory.limit_in_bytes", "memory.max"),
    "memory and swap": ("memory/memory.memsw.limit_in_bytes", "memory.swap.max"),
    "processes": ("pids/pids.max", "pids.max"),
    "processor quota": ("cpu/cpu.cfs_quota_us", "cpu.max"),
    "processor period": ("cpu/cpu.cfs_period_us",),
    "shares": ("cpu/cpu.shares", "cpu.weight"),
    "swappiness": ("memory/memory.swappiness",),
}
_SCRIPT = r"""
grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
grep -q '^NoNewPrivs' /proc/self/status || setpriv --dump 2>/dev/null | sed -n 's/^no_new_privs: /NoNewPrivs: /p'
echo "kernel: $(uname -r)"
echo "user: $(id -u):$(id -g)"
echo "user map: $(tr -s ' ' </proc/self/uid_map | head -1)"
echo "confined: $(cat /proc/self/attr/current 2>/dev/null | tr -d '\0')"
echo "oom score: $(cat /proc/self/oom_score_adj)"
echo "init: $(cat /proc/1/comm)"
echo "files: $(ulimit -Sn)"
echo "core: $(ulimit -Hc)"
echo "file size: $(sed -n 's/^Max file size *\([^ ]*\) .*/\1/p' /proc/self/limits)"
echo "cgroups: $(cut -d : -f 3- /proc/self/cgroup | sort -u | tr '\n' ' ')"
for path in / /etc /usr /proc/sys/kernel; do (: >"$path/nestor-probe") 2>/dev/null && echo "writable: $path"; done
while read -r _ path kind options _; do
  case "$path" in
    /tmp | /run | /home/agent) echo "mount: $path,$kind,$options" ;;
    /dev/shm) echo "shm: $options" ;;
  esac
done </proc/mounts
echo "vsock: $(python3 -c '
import socket
try:
    socket.socket(40, socket.SOCK_STREAM)
    print("open")
except OSError:
    print("closed")
' 2>/dev/null)"
echo "interfaces: $(cat /proc/net/if_inet6 2>/dev/null | grep -v ' lo$' | wc -l)"
"""
#: Closed means that nothing came back: a refusal by the other side shows that it was reached.
_REACH = r"""
reach() {
  said=$(timeout 1 bash -c "exec 3<>/dev/tcp/$2/$3" 2>&1)
  case "$?,$said" in
    0,*) echo "$1: open" ;;
    *refused*) echo "$1: refused" ;;
    124,* | *unreachable* | *"No route"* | *prohibited* | *"ermission denied"*) echo "$1: closed" ;;
    *) echo "$1: unknown" ;;
  esac
}
"""


@dataclass(frozen=True)
class Seen:
    """What was found, name by name as the script prints it, and the container as the engine describes it."""

    inside: Mapping[str, Sequence[str]]
    shown: Mapping[str, Any]

    def one(self, name: str) -> str:
        """The only value of that name, or an empty text."""
        return next(iter(self.inside.get(name, ())), "")

    @property
    def own_kernel(self) -> str:
        """Its version, where a container has another than the machine; empty otherwise."""
        return self.one("kernel") if self.one("machine's kernel") else ""


def look(
    engine: Engine,
    image: Image,
    network: Network,
    hardening: Hardening,
    *,
    installation: str,
    listener: Door | None,
) -> Seen:
    """Make both, wait, remove both. Raises `DriverUnavailable` when nothing can be found out."""
    _remove_left_over(engine, installation)
    mark = secrets.token_hex(4)
    with _port_on(network.gateway) as port, contextlib.ExitStack() as stack:
        neighbour = _container(engine, stack, f"{mark}-a", _NEIGHBOUR, image, network, hardening, installation)
        engine.act("start a probe", lambda client: client.start(neighbour))
        found = engine.ask("look at a probe", lambda client: client.inspect_container(neighbour))
        address = str(found["NetworkSettings"]["Networks"][network.name]["IPAddress"])
        script = _script(address, network.gateway, port, listener)
        looker = _container(engine, stack, f"{mark}-b", script, image, network, hardening, installation)
        engine.act("start a probe", lambda client: client.start(looker))
        shown = _ended(engine, looker)
        there = engine.ask("look at a probe", lambda client: client.inspect_container(neighbour))["State"]["Running"]
        said: bytes = engine.ask("read what a probe said", lambda client: client.logs(looker))
        counted = _counted(engine, neighbour) if hardening.oci_runtime is not None else {}
    inside: dict[str, list[str]] = {}
    for line in said.decode(errors="replace").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            inside.setdefault(name.strip(), []).append(value.strip())
    if not there:
        inside["neighbour"] = ["not tried: it had ended"]
    if counted and inside.get("kernel", counted["machine's kernel"]) != counted["machine's kernel"]:
        inside |= counted
    return Seen(inside, shown)


def _counted(engine: Engine, id: str) -> dict[str, list[str]]:
    """What the machine's kernel bounds a running container by, as the engine counts it: another kernel inside (gVisor,
    a small machine) does not know."""
    version = engine.ask("tell its version", lambda client: client.version())
    found = engine.ask("measure a probe", lambda client: dict(client.stats(id, stream=False)))
    memory = found.get("memory_stats") or {}
    values = {
        "machine's kernel": version.get("KernelVersion"),
        "memory": memory.get("limit"),
        "memory and swap": (memory.get("stats") or {}).get("hierarchical_memsw_limit"),
        "processes": (found.get("pids_stats") or {}).get("limit"),
        "processor periods": ((found.get("cpu_stats") or {}).get("throttling_data") or {}).get("periods"),
    }
    return {name: [str(value or "")] for name, value in values.items()}


def takes_size(engine: Engine, image: Image, *, installation: str) -> bool:
    """Whether the engine can bound what a container writes to its own layer. Nothing is started."""
    name = f"nestor-probe-{secrets.token_hex(4)}-s"

    def make(client: Any) -> str:
        config = client.create_host_config(storage_opt={"size": "64m"}, network_mode="none")
        made = client.create_container(
            image.name, name=name, command=["true"], host_config=config, labels=_labels(installation)
        )
        return str(made["Id"])

    try:
        made = engine.act("make a probe", make)
    except (Refused, Occupied, Missing, DriverUnavailable):  # an engine answers 500 to an option that it cannot do
        return False
    _remove(engine, made)
    return True


def _script(neighbour: str, gateway: str, port: int, listener: Door | None) -> str:
    lines = [_SCRIPT]
    for name, files in _FILES.items():
        places = " ".join(f"/sys/fs/cgroup/{file}" for file in files)
        lines.append(f'echo "{name}: $(cat {places} 2>/dev/null | head -1)"')
    lines.append(_REACH)
    lines.append(f"reach neighbour {neighbour} 9 & reach machine {gateway} {port} &")
    if listener is not None:
        lines.append(f"reach listener {listener.network.split('/')[0]} {listener.port} &")
    return "\n".join([*lines, "wait"])


def _container(
    engine: Engine,
    stack: contextlib.ExitStack,
    mark: str,
    script: str,
    image: Image,
    network: Network,
    hardening: Hardening,
    installation: str,
) -> str:
    nobody = OwnerLabels(installation, TenantId(""), ConversationId(""), RuntimeId("probe"), 0)
    spec = RuntimeSpec(f"nestor-probe-{mark}", nobody)

    def make(client: Any) -> str:
        arguments = container_arguments(
            spec,
            image=image,
            network=network.name,
            mounts=(),
            fence=0,
            version=client.api_version,
            hardening=hardening,
        )
        arguments |= {"labels": _labels(installation), "entrypoint": ["/bin/sh", "-c", script], "command": []}
        return str(client.create_container(**arguments)["Id"])

    made = engine.act("make a probe", make)
    stack.callback(_remove, engine, made)
    return made


def _labels(installation: str) -> Mapping[str, str]:
    """By which one that was left over is found; no runtime's, so that nobody takes it for one."""
    return {PROBE: "yes", f"{PREFIX}probe-of": installation}


def _ended(engine: Engine, id: str) -> Mapping[str, Any]:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        shown = engine.ask("look at a probe", lambda client: dict(client.inspect_container(id)))
        if shown["State"]["Status"] in ("exited", "dead"):
            return shown
        time.sleep(0.05)
    raise DriverUnavailable("a probe container does not come to its end", hint="look at the engine")


def _remove(engine: Engine, id: str) -> None:
    with contextlib.suppress(Missing, Occupied, Refused, DriverUnavailable):
        engine.act("remove a probe", lambda client: client.remove_container(id, force=True, v=True))


def _remove_left_over(engine: Engine, installation: str) -> None:
    labels = [PROBE, f"{PREFIX}probe-of={installation}"]
    for found in engine.ask("list probes", lambda client: client.containers(all=True, filters={"label": labels})):
        if time.time() - float(found.get("Created", 0)) > _LEFT_OVER_SECONDS:
            _remove(engine, str(found["Id"]))


@contextlib.contextmanager
def _port_on(address: str) -> Iterator[int]:
    """Something that listens there, so that reaching it would show."""
    with contextlib.ExitStack() as stack:
        try:
            listening = stack.enter_context(socket.create_server((address, 0)))
        except OSError:  # the orchestrator is not where the bridge ends: a closed port answers as well
            yield 9
            return
        yield listening.getsockname()[1]
