"""What a run left behind: processes that still name the data folder. `run.py` asks after everything was ended.

Linux tells it in /proc; where there is none the answer is empty, and only the exit status of the parts counts.
"""

import contextlib
import os
from pathlib import Path

import anyio

_PROCESSES = Path("/proc")


async def processes_left(folder: Path, *, within: float) -> list[str]:
    """The processes, as `pid command`, that still have `folder` in their arguments, environment or working directory.

    Waits up to `within` seconds for the last ones to go.
    """
    left = _mentions(folder)
    with anyio.move_on_after(within):
        while left:
            await anyio.sleep(0.1)
            left = _mentions(folder)
    return left


def _mentions(folder: Path) -> list[str]:
    found = []
    for process in _PROCESSES.glob("[0-9]*"):
        if int(process.name) != os.getpid() and _mentions_folder(process, os.fsencode(folder)):
            with contextlib.suppress(OSError):
                found.append(f"{process.name} {(process / 'comm').read_text().strip()}")
    return found


def _mentions_folder(process: Path, folder: bytes) -> bool:
    """Some of the three cannot be read of a protected process, or of one that ends just now."""
    for part in ("cmdline", "environ"):
        with contextlib.suppress(OSError):
            if folder in (process / part).read_bytes():
                return True
    with contextlib.suppress(OSError):
        return os.fsencode((process / "cwd").readlink()).startswith(folder)
    return False
