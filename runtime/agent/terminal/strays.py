"""Ends processes of a shell whose keeper was killed: they carry the shell's mark in the environment they began with.

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


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid()]


def _environment(pid: int) -> bytes:
    """Empty for a zombie, another user's process, or one that is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
