"""What a library could try that is imported in a zygote and wants to see below its cover."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from runtime.zygote import kernel


def ways_around(folder: str) -> list[str]:
    """The names of those that lead to something in the folder."""

    def uncovered(flags: int) -> bool:
        if flags:
            kernel.unshare(flags)
        kernel.unmount(folder)
        return bool(os.listdir(folder))

    ways: Mapping[str, Callable[[], bool]] = {
        "unmount": lambda: uncovered(0),
        "unmount in mounts of its own": lambda: uncovered(kernel.CLONE_NEWNS),
        "unmount as another root": lambda: uncovered(kernel.CLONE_NEWNS | kernel.CLONE_NEWUSER),
        "through another process": lambda: (
            Path(f"/proc/{os.getppid()}/root") / folder.lstrip("/") / "master.key"
        ).exists(),
        "through the first process": lambda: (Path("/proc/1/root") / folder.lstrip("/") / "master.key").exists(),
    }
    return [name for name, way in ways.items() if _leads(way)]


def _leads(way: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if way() else 1)
        except OSError:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0
