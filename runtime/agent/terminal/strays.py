"""Looks at what runs in a shell, and ends what a killed keeper left: it carries the shell's mark in its environment.

The keeper ends everything in the normal case; a command that kills the keeper must not leave daemons behind.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_ROUNDS = 100


def kill_marked(token: str) -> None:
    """Kill every process of this user that was started with NESTOR_SHELL=token. Blocks; returns when none is left."""
    mark = f"NESTOR_SHELL={token}".encode()
    for _ in range(_ROUNDS):
        found = [pid for pid in _pids() if mark in _environment(pid).split(b"\0")]
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue  # it ended, or took another user: then it is not ours to end
        time.sleep(0.005)


def has_programs(keeper: int) -> bool:
    """Whether the keeper has more below it than one shell without children. True when nobody can tell."""
    try:
        below = _children(keeper)
        return len(below) > 1 or any(_children(pid) for pid in below)
    except OSError:
        return True


def _children(pid: int | str) -> list[str]:
    found: list[str] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += (task / "children").read_text().split()
    return found


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid()]


def _environment(pid: int) -> bytes:
    """Empty for a zombie, another user's process, or one that is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
