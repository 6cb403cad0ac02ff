"""The server's end of the watchdog: one process beside the commands that outlives a killed server just long enough."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

from runtime.agent.terminal import strays
from runtime.machine import account

_PROGRAM = Path(__file__).with_name("watchdog.py")
_END_SECONDS = 10.0


class Guard:
    """Started with the first command. Used from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, mark: str) -> None:
        """From now on what carries the mark dies with this server. Raises OSError."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(_PROGRAM), account.text(), strays.__file__],
                    cwd="/",
                    env={},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            self._tell(f"+{mark}\n")

    def forget(self, mark: str) -> None:
        """The command has ended: what it left running on purpose may stay."""
        with self._lock, contextlib.suppress(OSError):
            if self._process is not None:
                self._tell(f"-{mark}\n")

    def close(self) -> None:
        """Blocks until the watchdog has done its work. Idempotent."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _tell(self, line: str) -> None:
        assert self._process is not None  # noqa: S101 - the callers looked
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()
