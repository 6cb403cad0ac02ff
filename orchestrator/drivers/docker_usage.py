"""What a runtime uses, as the engine and the disk tell it: processors, memory, processes, and the size of its storage.

`docker.py` offers it as `Measurable.usage`. The size is what `storage.py` counts; where the engine's folders cannot be
read it is unknown. Methods block.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.domain.errors import RuntimeNotFound
from orchestrator.drivers import docker_spec, storage
from orchestrator.drivers.docker_engine import Engine, Missing, Occupied
from orchestrator.drivers.values import DiskUse, Handle, Usage


def usage(engine: Engine, handle: Handle, container: Mapping[str, Any], folders: Sequence[Path]) -> Usage:
    """Of one runtime, whose `container` is as the engine describes it: limits are read there. Raises
    `RuntimeNotFound`, `DriverUnavailable`."""
    try:
        found: Mapping[str, Any] = engine.ask(
            f"measure {handle.name}", lambda client: client.stats(handle.reference, stream=False, one_shot=True)
        )
    except (Missing, Occupied) as exc:
        raise RuntimeNotFound(f"there is no runtime {handle.name}") from exc
    memory = found.get("memory_stats") or {}
    taken = storage.taken_by(folders, process=first_process(container))
    return Usage(
        cpu_seconds=float((found.get("cpu_stats") or {}).get("cpu_usage", {}).get("total_usage", 0)) / 1e9,
        memory_bytes=_held(memory),
        memory_limit_bytes=int(memory.get("limit") or 0),
        processes=int((found.get("pids_stats") or {}).get("current") or 0),
        disk_bytes=taken.bytes if taken is not None and taken.whole else None,
        **_limits(container),
    )


def _limits(container: Mapping[str, Any]) -> dict[str, Any]:
    """What holds for it, whatever holds for one that would be made now."""
    host = container["HostConfig"]
    bounds = {one["Name"]: int(one["Soft"]) for one in host.get("Ulimits") or ()}
    log = (host.get("LogConfig") or {}).get("Config") or {}
    each = log.get("max-size", "").removesuffix("m")
    return {
        "size": docker_spec.size_of(container["Config"]["Labels"]),
        "cpu_limit": int(host.get("NanoCpus") or 0) / 1e9,
        "processes_limit": int(host.get("PidsLimit") or 0),
        "open_files_limit": bounds.get("nofile", 0),
        "log_limit_bytes": int(each) * 1_000_000 * int(log.get("max-file", 1)) if each.isdigit() else 0,
        "disk_limit_bytes": bounds.get("fsize"),
    }


def disk_use(container: Mapping[str, Any], folders: Sequence[Path]) -> DiskUse | None:
    """What the storage of one that runs takes; None where that cannot be told."""
    taken = storage.taken_by(folders, process=first_process(container))
    if taken is None:
        return None
    size = docker_spec.size_of(container["Config"]["Labels"])
    return DiskUse(taken.bytes if taken.whole else None, _seconds_since(container["State"]["StartedAt"]), size)


def first_process(container: Mapping[str, Any]) -> int | None:
    """Its number in the machine's own table of processes."""
    return int(container["State"].get("Pid") or 0) or None


def _seconds_since(started: str) -> float:
    """Since a time as the engine writes it; its nanoseconds are cut off."""
    then = datetime.fromisoformat(started[:19]).replace(tzinfo=UTC)
    return (datetime.now(UTC) - then).total_seconds()


def _held(memory: Mapping[str, Any]) -> int:
    """Without what the kernel keeps of files and would give back: as people mean it, and as `docker stats` shows it."""
    stats = memory.get("stats") or {}
    cached = stats.get("total_inactive_file", stats.get("inactive_file", 0))
    return max(0, int(memory.get("usage") or 0) - int(cached))
