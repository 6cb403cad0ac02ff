"""The report at the start: which parts of the hardening took effect on this engine, and which are required.

Pure: it judges what `docker_probe.py` has seen against what was asked for. A required row that did not take effect
keeps a second tenant out, unless the operator accepts it by its name (`NESTOR_ACCEPT_WEAKER`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.drivers.docker_probe import Seen
from orchestrator.drivers.docker_spec import OOM_SCORE, SHM_MEBIBYTES, USER, Hardening
from orchestrator.drivers.values import Limits, Row

_UNLIMITED = 1 << 60
_USUAL_SHARES, _USUAL_WEIGHT = 1024, 100  #: of a program with no limit, in version 1 and version 2


@dataclass(frozen=True)
class Ground:
    """What else is known of this machine and engine."""

    info: Mapping[str, Any]  #: as the engine tells of itself
    rules: str | None  #: why no rules are set by this process; None when they are
    outside: bool  #: somebody else sets the rules
    listener: bool  #: there is one that runtimes must reach
    opened: bool  #: the operator lets runtimes reach all of this machine's address on the bridge
    size: bool  #: the engine bounds what a container writes
    measured: bool = True  #: what runtimes have in their volumes can be counted from here


def report(seen: Seen, hardening: Hardening, limits: Limits, ground: Ground) -> Sequence[Row]:
    """Every row, in the order of the threat: rights, then limits, then what is reached."""
    return [*_rights(seen, hardening, ground), *_limits(seen, hardening, limits, ground), *_reached(seen, ground)]


def _rights(seen: Seen, hardening: Hardening, ground: Ground) -> Iterator[Row]:
    host = seen.shown["HostConfig"]
    capabilities = [values[0] for name, values in seen.inside.items() if name.startswith("Cap")]
    yield Row("user", seen.one("user") == USER, True, f"runs as {seen.one('user')}")
    # Not each kernel tells of the ambient ones, which are among the permitted.
    told = {"CapInh", "CapPrm", "CapEff", "CapBnd"} <= set(seen.inside)
    none = told and all(int(value, 16) == 0 for value in capabilities)
    yield Row("capabilities", none, True, "none" if none else f"has {', '.join(capabilities)}")
    yield _equal(seen, "no-new-privileges", "NoNewPrivs", "1")
    if seen.own_kernel:
        yield Row("seccomp", True, True, f"its own kernel ({seen.own_kernel}) stands before the machine's")
    else:
        yield _equal(seen, "seccomp", "Seccomp", "2")
    writable = seen.inside.get("writable", ())
    yield Row("read-only", not writable, True, f"writable: {', '.join(writable)}" if writable else "the whole system")
    mounts = seen.inside.get("mount", ())
    wanted = ("size=",) if seen.own_kernel else ("nosuid", "nodev", "size=")  # gVisor has neither to show
    apart = len(mounts) == 3 and all(option in mount for mount in mounts for option in wanted)
    yield Row("tmpfs", apart, True, "small, nosuid, nodev" if apart else "; ".join(mounts) or "none")
    yield Row("init", seen.one("init") in ("docker-init", "tini"), False, f"process 1 is {seen.one('init')}")
    yield Row("ipc", host.get("IpcMode") == "private", True, str(host.get("IpcMode")))
    own = seen.one("cgroups") == "/"
    yield Row("cgroups", own, False, "its own" if own else "shows where it is among the machine's")
    named = hardening.oci_runtime or ground.info.get("DefaultRuntime", "runc")
    yield Row("oci-runtime", host.get("Runtime") == named, True, str(host.get("Runtime")))
    confined = seen.one("confined")
    has = any("apparmor" in option for option in ground.info.get("SecurityOptions") or ())
    held = bool(confined) and "unconfined" not in confined
    yield Row("apparmor", held, has, confined or "this machine has none")
    mapped = seen.one("user map").split()[:2] != ["0", "0"]
    yield Row("user-namespace", mapped, False, "mapped" if mapped else "user ids are the machine's: see userns-remap")


def _limits(seen: Seen, hardening: Hardening, limits: Limits, ground: Ground) -> Iterator[Row]:
    yield _at_most(seen, "memory", limits.memory_bytes)
    swap = _number(seen.one("memory and swap"))
    both = {limits.memory_bytes, 0}  # version 1 counts them together, version 2 swap alone
    no_swap = ground.info.get("SwapLimit") is False
    yield Row("swap", swap in both, not no_swap, "none" if swap in both else "the kernel does not account for swap")
    yield _at_most(seen, "processes", limits.pids)
    quota, period = _quota(seen)
    if seen.own_kernel and _integer(seen.one("processor periods")) > 0:  # counted only where there is a quota
        yield Row("processors", True, True, "held by the machine's kernel")
    else:
        said = f"{quota / period:g}" if quota > 0 else "no limit"
        yield Row("processors", 0 < quota <= limits.cpus * period, True, said)
    yield _equal(seen, "files", "files", str(limits.open_files))
    yield _equal(seen, "core", "core", "0")
    if hardening.file_bytes:
        said = seen.one("file size")
        yield Row("file-size", said == str(hardening.file_bytes), False, said or "not told")
    if hardening.swappiness:
        yield Row("swappiness", seen.one("swappiness") == "0", False, seen.one("swappiness") or "not told")
    shares = _integer(seen.one("shares"))
    yield Row("shares", 0 < shares < _USUAL_SHARES and shares != _USUAL_WEIGHT, False, seen.one("shares") or "not told")
    small = f"size={SHM_MEBIBYTES * 1024}k" in seen.one("shm").split(",")
    yield Row("shm", small, False, seen.one("shm") or "not told")
    yield Row("oom-score", seen.one("oom score") == str(OOM_SCORE), False, seen.one("oom score"))
    log = seen.shown["HostConfig"].get("LogConfig") or {}
    yield Row("log-size", "max-size" in (log.get("Config") or {}), True, str(log.get("Type")))
    restart = (seen.shown["HostConfig"].get("RestartPolicy") or {}).get("Name")
    yield Row("restart", restart in ("no", ""), True, f"by the engine: {restart}")
    could = "read-only, so nothing to bound" + (", which this engine could" if ground.size else "")
    yield Row("layer-size", ground.size, False, could)
    yield _disk(hardening, ground)


def _disk(hardening: Hardening, ground: Ground) -> Row:
    """Workspace and state, which no engine bounds on most file systems."""
    if not hardening.file_bytes:
        return Row("disk", False, False, "no limit: one runtime may fill the disk (NESTOR_RUNTIME_DISK_MEGABYTES)")
    if not ground.measured:
        return Row(
            "disk", False, False, "no limit but of a single file: the engine's volumes cannot be looked into from here"
        )
    return Row("disk", True, False, f"{hardening.file_bytes // 1_000_000} MB, looked at every ten seconds")


def _reached(seen: Seen, ground: Ground) -> Iterator[Row]:
    """A way counts as closed only when it was tried."""
    host = seen.shown["HostConfig"]
    published = host.get("PortBindings") or host.get("PublishAllPorts")
    yield Row("ports", not published, True, "published" if published else "none published")
    for name, inside in (("neighbours", "neighbour"), ("machine", "machine")):
        said = seen.one(inside) or "not tried"
        chosen = name == "machine" and ground.opened and said in ("open", "refused")
        yield Row(name, said == "closed" or chosen, True, "open: NESTOR_RUNTIME_REACHES names it" if chosen else said)
    if ground.outside:
        yield Row("rules", True, True, "set by another process: what is above was tried")
    else:
        yield Row("rules", ground.rules is None, True, ground.rules or "set, and looked at again and again")
    if ground.listener:
        said = seen.one("listener") or "not tried"
        yield Row("listener", said == "open", False, f"{said}: runtimes tell their events there")
    yield _vsock(seen)
    yield Row("ipv6", seen.one("interfaces") == "0", True, f"{seen.one('interfaces')} addresses")


def _vsock(seen: Seen) -> Row:
    """Sockets between a virtual machine and its host, which no rule of iptables is about. Engines before 23 let a
    container have them; what the other side listens to is not tried."""
    said = seen.one("vsock") or "not told"
    past = "open: what listens on VM sockets of this machine or its host is reached past all rules"
    return Row("vsock", said == "closed", False, past if said == "open" else said)


def _equal(seen: Seen, name: str, inside: str, wanted: str) -> Row:
    said = seen.one(inside)
    return Row(name, said == wanted, True, said or "not told")


def _at_most(seen: Seen, name: str, wanted: int) -> Row:
    number = _number(seen.one(name))
    return Row(name, number is not None and number <= wanted, True, seen.one(name) or "not told")


def _number(text: str) -> int | None:
    if text == "max":
        return _UNLIMITED
    return int(text) if text.isdigit() else None


def _quota(seen: Seen) -> tuple[int, int]:
    words = seen.one("processor quota").split()
    period = seen.one("processor period") or (words[1] if len(words) > 1 else "")
    quota = words[0] if words else ""
    return _integer(quota), max(1, _integer(period))


def _integer(text: str) -> int:
    return int(text) if text.removeprefix("-").isdigit() else -1
