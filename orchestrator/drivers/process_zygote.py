"""Keeps one zygote running beside the process driver: the process from which runtimes are forked instead of executed.

`process.py` makes one and closes it, `process_fork.py` asks it for runtimes. Only its socket is known here: what is
behind it is a program of the other half. A thread of its own starts the zygote, adopts the one that an earlier
orchestrator left, and replaces it when it died, when the installed files changed, or when it says that it has a second
thread. As long as none is ready, runtimes are executed, which is slower and needs no help.
"""

import contextlib
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from orchestrator.drivers.process_tree import Process, wait_gone
from orchestrator.drivers.process_zygote_start import Standing, begun, forget
from orchestrator.drivers.process_zygote_wire import ZygoteGone, ask, connect, heard, tell

log = structlog.get_logger()

_READY_SECONDS = 180.0  #: importing everything takes some five seconds, on a machine that does nothing else
_FORK_SECONDS = 20.0
_ASK_SECONDS = 5.0
_LONGEST_WAIT = 60.0
#: A zygote that lived this long was none that dies at once.
_SOUND_SECONDS = 30.0


class Zygote:
    """`command` starts it, with its socket and `folder` appended. `files` tells one state of what is installed from
    another.

    `folder` holds its socket, its log and the note by which the next orchestrator finds it. Thread-safe.
    """

    def __init__(
        self, folder: Path, command: Sequence[str], *, search_path: str, files: Callable[[], str] = lambda: ""
    ) -> None:
        self._folder = folder
        self._command = list(command)
        self._search_path = search_path
        self._files = files
        self._covers: list[str] = []
        self._standing: Standing | None = None
        self._trouble = ""
        self._changed = threading.Condition()
        self._wish = ""  #: why the present one is to be replaced
        self._closing = False
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._children: list[subprocess.Popen[bytes]] = []
        self._thread: threading.Thread | None = None

    # -- what callers do

    def start(self) -> None:
        """Have one from some seconds after this on, until `close`. Idempotent."""
        with self._changed:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._keep, name="zygote", daemon=True)
                self._thread.start()

    def cover(self, folders: Sequence[Path], *, files: Sequence[Path] = (), keep: Sequence[Path] = ()) -> None:
        """Have it see `folders` empty but for what is to `keep`, and `files` empty. To be said before `start`."""
        for option, paths in (("--cover", folders), ("--cover-file", files), ("--keep", keep)):
            self._covers += [word for path in paths for word in (option, str(path))]

    @property
    def command(self) -> Sequence[str]:
        return self._command

    @property
    def standing(self) -> Standing | None:
        """The one that is ready, if one is."""
        return self._standing

    @property
    def trouble(self) -> str:
        """Why the last one did not get ready; empty when it did, or is still starting."""
        return self._trouble

    def wait_ready(self, seconds: float) -> Standing | None:
        """The one that is ready, as soon as one is; None when that takes longer."""
        with self._changed:
            self._changed.wait_for(lambda: self._standing is not None, seconds)
            return self._standing

    def fork(self, body: Mapping[str, Any], descriptors: Sequence[int]) -> Path | None:
        """Ask for a runtime; the socket of the zygote that forked it. None: there is none now, execute it."""
        standing = self._standing
        if standing is None:
            return None
        if self._files() != standing.files:
            self._replace(standing, "the installed files changed")
            return None
        try:
            answer = ask(standing.socket, "fork", body, descriptors, seconds=_FORK_SECONDS)
        except ZygoteGone as exc:
            log.warning("zygote.no_answer", problem=str(exc))
            return None
        if "forked" in answer:
            return standing.socket
        log.warning("zygote.refused", reason=answer.get("refused"), threads=answer.get("threads"))
        self._replace(standing, f"it refused: {answer.get('refused')}")
        return None

    def close(self) -> None:
        """Let go of it. It ends when no runtime of it is left, and at once if none is now. Idempotent."""
        self._closing = True
        self._nudge()
        if self._thread is not None:
            self._thread.join(_ASK_SECONDS * 2)
        self._wake.close()
        self._woken.close()

    # -- the thread

    def _replace(self, standing: Standing, why: str) -> None:
        with self._changed:
            if self._standing is not standing:
                return  # somebody else saw it first
            self._wish = why
            self._standing = None
        self._nudge()

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):  # full, so it wakes anyhow; or closed
            self._wake.send(b"!")

    def _set(self, standing: Standing | None, trouble: str = "") -> None:
        with self._changed:
            self._standing = standing
            self._trouble = trouble
            self._changed.notify_all()

    def _keep(self) -> None:
        wait = 1.0
        while not self._closing:
            began = time.monotonic()
            try:
                self._live()
                trouble = ""
            except Exception as exc:  # noqa: BLE001 - runtimes go on without a zygote, whatever is wrong with it
                trouble = str(exc) or type(exc).__name__
                log.warning("zygote.lost", problem=trouble)
            self._set(None, trouble)
            self._reap()
            if not trouble or time.monotonic() - began > _SOUND_SECONDS:
                wait = 1.0
            if trouble:
                self._sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0)
            # It goes on without us when runtimes of it do; Popen would complain about that when it is collected.
            child.returncode = child.returncode if child.returncode is not None else 0

    def _live(self) -> None:
        """One zygote, from its start or adoption to its replacement. Raises ZygoteGone when it ended by itself."""
        files = self._files()
        standing, child = begun(
            self._folder, [*self._command, *self._covers], search_path=self._search_path, files=files
        )
        self._children += [] if child is None else [child]
        with connect(standing.socket, seconds=_ASK_SECONDS) as lifeline:
            self._wish = ""
            tell(lifeline, "hello", {})
            if not self._wait(lifeline, _READY_SECONDS):
                return self._give_up(standing, child)
            about = heard(lifeline)
            if about.get("threads") != 1 or self._files() != files:
                log.warning("zygote.unfit", threads=about.get("threads"))
                self._retire(standing, lifeline)
                if about.get("threads") != 1:
                    raise ZygoteGone("it has a second thread")
                return None
            log.info(
                "zygote.ready", pid=standing.process.pid, modules=about.get("modules"), missing=about.get("missing")
            )
            self._set(standing)
            if self._wait(lifeline, None):
                raise ZygoteGone("it ended")
            self._set(None)
            if self._closing:
                return self._leave(standing, lifeline)
            log.info("zygote.replaced", reason=self._wish)
            self._retire(standing, lifeline)
        return None

    def _retire(self, standing: Standing, lifeline: socket.socket) -> None:
        forget(self._folder, standing)
        lifeline.settimeout(_ASK_SECONDS)
        with contextlib.suppress(ZygoteGone):
            tell(lifeline, "retire", {})
            heard(lifeline)

    def _leave(self, standing: Standing, lifeline: socket.socket) -> None:
        """Say so; if it has no runtime and nobody else, it ends now, and that is waited for."""
        lifeline.settimeout(_ASK_SECONDS)
        with contextlib.suppress(ZygoteGone):
            tell(lifeline, "leave", {})
            ending = heard(lifeline).get("leaving")
            lifeline.close()
            if ending:
                wait_gone([standing.process], seconds=_ASK_SECONDS)

    def _give_up(self, standing: Standing, child: subprocess.Popen[bytes] | None) -> None:
        """It is not ready, and we close or have waited long enough. It has no runtime yet, so nobody misses it."""
        if child is not None:
            forget(self._folder, standing)
            child.kill()
            child.wait()
        if not self._closing:
            raise ZygoteGone(f"it was not ready within {_READY_SECONDS:.0f} s")

    def _wait(self, lifeline: socket.socket, seconds: float | None) -> bool:
        """Until the zygote says something or is gone (True), or somebody wants something or it took too long."""
        until = None if seconds is None else time.monotonic() + seconds
        poll = select.poll()
        poll.register(lifeline, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while not (self._closing or self._wish):
            left = None if until is None else max(0.0, until - time.monotonic()) * 1000
            ready = {descriptor for descriptor, _ in poll.poll(left)}
            self._drain()
            if lifeline.fileno() in ready:
                return True
            if not ready:
                return False
        return False

    def _sleep(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.poll(seconds * 1000)
        self._drain()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)

    def _reap(self) -> None:
        self._children = [child for child in self._children if child.poll() is None]


def ending_told(socket_path: Path, process: Process) -> int | None:
    """How a forked runtime ended, asked of the zygote that forked it; None when nobody knows any more."""
    try:
        body = {"pid": process.pid, "started": process.started}
        code = ask(socket_path, "ending", body, seconds=_ASK_SECONDS).get("code")
    except ZygoteGone:
        return None
    return code if isinstance(code, int) else None
