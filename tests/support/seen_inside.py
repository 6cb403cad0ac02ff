"""Writes to the file `seen` in the current folder what a process can tell of the place in which it runs, as JSON.

Used as a program, and by a zygote whose runtimes call `look`.
"""

import contextlib
import ctypes
import json
import os
import re
from pathlib import Path
from typing import Any

NAMESPACES = ("mnt", "pid", "ipc", "uts", "user", "net")


def look() -> None:
    Path("seen").write_text(json.dumps(seen()))


def seen() -> dict[str, Any]:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    wanted = ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    return {
        "mounts": mounts(),
        "status": {name: status[name] for name in wanted},
        "first": first_process(),
        "uid_map": Path("/proc/self/uid_map").read_text().split(),
        "gid_map": Path("/proc/self/gid_map").read_text().split(),
        "setgroups": Path("/proc/self/setgroups").read_text(),
        "hostname": os.uname().nodename,
        "pid": os.getpid(),
        "own_session": os.getsid(0) in (0, 1, os.getpid()),
        "directory": str(Path.cwd()),
        "root": listing("/"),
        "devices": listing("/dev"),
        "var": listing("/var"),
        "writable": [path for path in ("/", "/usr", "/etc", "/proc/sys", "/dev", "/tmp", "/var") if writes(path)],
        "namespaces": {
            name: os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "ipc", "uts", "user", "net")
        },
        "mounting": errno_of_mount(),
    }


def first_process() -> dict[str, str]:
    status = dict(line.split(":\t", 1) for line in Path("/proc/1/status").read_text().splitlines() if ":\t" in line)
    return {name: status[name] for name in ("NoNewPrivs", "CapPrm", "CapEff", "CapBnd", "Uid")}


def mounts() -> list[list[str]]:
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words, _, rest = line.partition(" - ")
        fields = words.split()
        kind, source, options = rest.split(" ", 2)
        # The kernel numbers instances; sizes and numbers of nodes follow the machine.
        options = re.sub(r"(size|nr_inodes|ptmxmode)=[^,]*", "", options)
        found.append(
            [
                fields[4],
                re.sub(r"^/newroot", "", fields[3]),
                ",".join(sorted(fields[5].split(","))),
                kind,
                source,
                options,
            ]
        )
    return sorted(found)


def listing(folder: str) -> list[str]:
    found = []
    for entry in sorted(Path(folder).iterdir()):
        facts = entry.lstat()
        target = f" -> {entry.readlink()}" if entry.is_symlink() else ""
        found.append(f"{entry} {facts.st_mode:o} {facts.st_uid}:{facts.st_gid} {facts.st_rdev}{target}")
    return found


def writes(folder: str) -> bool:
    with contextlib.suppress(OSError):
        path = f"{folder}/.canary-{os.getpid()}"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(path)
        return True
    return False


def errno_of_mount() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None) else 0


if __name__ == "__main__":
    look()
