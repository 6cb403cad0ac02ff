"""What the folders of a runtime take on the disk, also where the agent would rather not have it seen.

`docker_usage.py` asks it, because a volume has no quota on most machines. An agent may do with its folders what it
likes: so a file counts for its place in the file system although it is empty, a folder that its owner may not read is
read, a file without a name counts while a process of the runtime has it open, and what is too much to be counted in
time is told as such. Methods block.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.drivers import storage_walk

_SECONDS = 30.0
#: The share of the disk that comes with each file, folder or link: file systems are made with a place for one of them
#: for every 16 KiB (the default of ext4), and somebody with all of these places leaves nobody else a single file.
PLACE_BYTES = 16 * 1024
_UNREADABLE = b"ermission denied"


@dataclass(frozen=True)
class Taken:
    """Bytes on the disk; at least so many where it is not `whole`, because the time was over."""

    bytes: int
    whole: bool = True


def taken_by(folders: Sequence[Path], *, process: int | None = None) -> Taken | None:
    """What they take together; None where that cannot be seen from here. `process` is the first one of those that write
    there, as this machine counts them: what they keep open without a name counts too, where this process may look at
    them (root, in the machine's own table of processes)."""
    program = shutil.which("du")
    if program is None or not folders or not all(map(os.path.isdir, folders)):
        return None
    until = time.monotonic() + _SECONDS
    try:
        kilobytes, hidden = _asked(program, ["-skx"], folders, until)
        places, _ = _asked(program, ["-sx", "--inodes"], folders, until)
        if hidden:
            kilobytes, places = _walked(folders, until)
    except subprocess.TimeoutExpired:
        return Taken(0, whole=False)
    except OSError:
        return None
    if kilobytes is None or places is None:
        return None
    unnamed = _unnamed(process, {os.stat(folder).st_dev for folder in folders}, until) if process else 0
    return Taken(max(1024 * kilobytes, PLACE_BYTES * places) + unnamed)


def _asked(program: str, options: Sequence[str], folders: Sequence[Path], until: float) -> tuple[int | None, bool]:
    """The sum of what `du` says, and whether there was something that it could not read."""
    done = subprocess.run(
        [program, *options, "--", *map(str, folders)],
        capture_output=True,
        timeout=_left(until),
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    # Files vanish while it looks: what it could see is what counts.
    sizes = [line.split(b"\t")[0] for line in done.stdout.splitlines()]
    known = len(sizes) == len(folders) and all(size.isdigit() for size in sizes)
    return sum(map(int, sizes)) if known else None, _UNREADABLE in done.stderr


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise subprocess.TimeoutExpired("du", 0)
    return left


def _walked(folders: Sequence[Path], until: float) -> tuple[int | None, int | None]:
    """Kilobytes and places, by a process of its own: it may take long, and would hold up this one."""
    left = _left(until)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(storage_walk.__file__), str(left), *map(str, folders)],
        capture_output=True,
        timeout=2 * left + 5,  # it ends by itself, and puts back what it opened up
        check=False,
    )
    if done.returncode == storage_walk.TOO_MUCH:
        raise subprocess.TimeoutExpired("storage_walk", left)
    words = done.stdout.split()
    return (int(words[0]), int(words[1])) if done.returncode == 0 and len(words) == 2 else (None, None)


def _unnamed(process: int, devices: set[int], until: float) -> int:
    """Bytes of files on these devices that have no name any more, and are open in a process beside that one."""
    found: dict[tuple[int, int], int] = {}
    for beside in _beside(process):
        for folder in ("fd", "map_files"):
            with contextlib.suppress(OSError):  # ended meanwhile, or not ours to look at
                for link in os.scandir(f"/proc/{beside}/{folder}"):
                    if time.monotonic() > until:
                        return sum(found.values())
                    with contextlib.suppress(OSError):
                        status = os.stat(link.path)
                        if status.st_nlink == 0 and status.st_dev in devices:
                            found[status.st_dev, status.st_ino] = 512 * status.st_blocks
    return sum(found.values())


def _beside(process: int) -> Iterator[str]:
    """All of its container, also what the engine put in: those that have the same table of processes."""
    with contextlib.suppress(OSError):
        own = os.readlink(f"/proc/{process}/ns/pid")
        if own == os.readlink("/proc/self/ns/pid"):
            return  # no container's: the number is from another table than ours
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{name}/ns/pid") == own:
                    yield name
