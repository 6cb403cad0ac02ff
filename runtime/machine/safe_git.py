"""Real git, told to run nothing but itself.

A repository's own configuration may name programs (hooks, monitors, filters, text converters, external diffs), and
whoever writes into the workspace can write one: every call here switches them off. Blocking: call these in a thread.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.machine import account

_SECONDS = 60.0
_MOST_BYTES = 64 << 20
_QUIET = (
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.pager=cat"),
    *("-c", "core.quotePath=false"),
    *("-c", "protocol.allow=never"),
    *("-c", "log.showSignature=false"),
    *("-c", "diff.ignoreSubmodules=dirty"),
    *("-c", "submodule.recurse=false"),
)


class GitFailed(Exception):
    """The text is told to the caller."""


def filters_off(folder: Path, environment: Mapping[str, str]) -> Sequence[str]:
    """Options that turn off each filter that is configured: git has none that turns off all of them."""
    try:
        named = names_in(safe_git(folder, environment, "config", "-z", "--name-only", "--get-regexp", r"^filter\."))
    except GitFailed:
        return ()  # there are none
    drivers = {name.removeprefix("filter.").rpartition(".")[0] for name in named}
    if any("=" in driver or "\n" in driver for driver in drivers):
        raise GitFailed("The repository configures a filter whose name cannot be used")
    settings = ("clean=", "smudge=", "process=", "required=false")
    return [word for driver in sorted(drivers) for one in settings for word in ("-c", f"filter.{driver}.{one}")]


def safe_git(folder: Path, environment: Mapping[str, str], *arguments: str) -> bytes:
    """Its output. Raises GitFailed when git does, takes more than a minute, or says more than 64 MiB."""
    words = ["git", "--no-pager", "--no-optional-locks", *_QUIET, "-C", str(folder), *arguments]
    quiet = {**environment, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
    with tempfile.TemporaryFile() as said:
        process: subprocess.Popen[bytes] = subprocess.Popen(
            words,
            env=quiet,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
            **account.owner(),
        )
        late = threading.Event()

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        limit = threading.Timer(_SECONDS, end)
        limit.start()
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        with process.stdout:
            output = process.stdout.read(_MOST_BYTES + 1)
            if len(output) > _MOST_BYTES:
                process.kill()
        # The limit ends before the process is reaped, so that no other process can have its number.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        limit.cancel()
        limit.join()
        status = process.wait()
        said.seek(0)
        complaint = said.read(1 << 16).decode(errors="replace").strip().rpartition("\n")[2]
    if late.is_set():
        raise GitFailed(f"git did not finish within {_SECONDS:.0f} seconds")
    if len(output) > _MOST_BYTES:
        raise GitFailed(f"There is more than the {_MOST_BYTES >> 20} MiB that can be answered")
    if status != 0:
        raise GitFailed(complaint[:300] or f"git ended with status {status}")
    return output


def line_of(output: bytes) -> str:
    """Output of one line, which may be a path."""
    return os.fsdecode(output.rstrip(b"\n"))


def names_in(output: bytes) -> list[str]:
    """Output that ends each name with NUL."""
    return [name.decode(errors="replace") for name in output.split(b"\0") if name]
