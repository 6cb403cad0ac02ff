"""`--reload`: a child that serves, started anew whenever a file of this package changes. For people who develop it.

The parent holds the listening socket, so that a request that comes between two children waits for the next one. A child
that ends by itself ends the parent too, unless a change broke it: then the next change is waited for.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import structlog

log = structlog.get_logger()

PACKAGE = Path(__file__).parent
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 15.0
Stamp = frozenset[tuple[str, int, int]]


def serve_and_reload(server: socket.socket, *, package: Path = PACKAGE) -> int:
    """Until a signal raises SystemExit here. Returns the status of a child that ended by itself."""
    seen, reloads = _stamp(package), 0
    child: subprocess.Popen[bytes] | None = _start(server)
    try:
        while True:
            if child is None:
                select.select([], [], [], _LOOK_SECONDS)
            elif _ended_within(child, _LOOK_SECONDS):
                if reloads == 0:
                    return child.wait()
                log.warning("runtime.reload_failed", status=child.wait(), hint="it is started again after a change")
                child = None
            now = _stamp(package)
            if now != seen:
                changed = sorted(Path(path).name for path, *_ in now ^ seen)
                log.info("runtime.reloading", files=sorted(set(changed))[:10])
                seen, reloads = now, reloads + 1
                _end(child)
                child = _start(server)
    finally:
        _end(child)


def _start(server: socket.socket) -> subprocess.Popen[bytes]:
    isolated = ["-I"] if sys.flags.isolated else []
    command = [sys.executable, *isolated, "-m", PACKAGE.name, "--listen-fd", str(server.fileno())]
    return subprocess.Popen(command, pass_fds=(server.fileno(),))


def _ended_within(child: subprocess.Popen[bytes], seconds: float) -> bool:
    descriptor = os.pidfd_open(child.pid)
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def _end(child: subprocess.Popen[bytes] | None) -> None:
    if child is None:
        return
    child.terminate()
    try:
        child.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _stamp(package: Path) -> Stamp:
    found = set()
    for path in package.rglob("*"):
        if path.suffix in {".py", ".bash"}:
            try:
                state = path.stat()
            except FileNotFoundError:
                continue  # an editor is just replacing it
            found.add((str(path), state.st_mtime_ns, state.st_size))
    return frozenset(found)
