"""nginx as a child: its process from the start to the end.

`nestor up --data-plane nginx` uses it, and so do the tests and the benchmarks. nginx inherits the listening socket, so
a port that is taken is told as ever, and no client is refused while nginx starts again. Its sockets
are in a folder with a short path that only this user reaches (`Plan.run`); what it keeps of decisions is in memory.

nginx outlives an orchestrator that was killed, and goes on for a while with what it knows; the next start ends it.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from orchestrator.app.nginx_plan import Plan
from orchestrator.domain.errors import Misconfigured
from orchestrator.settings import child_environment

log = structlog.get_logger(__name__)

_START_SECONDS = 10.0
_STOP_SECONDS = 3.0
_AGAIN_SECONDS = 1.0
_LONGEST_PATH = 100
_NOT_IN_PATHS = frozenset(" \t\n;{}'\"\\$@#")  #: they mean something in nginx's configuration


def find_nginx() -> Path:
    """The program. Raises `Misconfigured` naming the package."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Misconfigured(
            "the data plane is to be nginx, and there is none on PATH",
            hint="apt-get install nginx (or your distribution's package of that name), or leave out --data-plane",
        )
    return Path(found)


@asynccontextmanager
async def claimed(plan: Plan) -> AsyncIterator[Plan]:
    """Make the folders for this user alone, keep other orchestrators out of them, and end the nginx of one that was
    killed. Raises `Misconfigured` naming the folder and what to do."""
    for folder in (plan.folder, plan.run):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
        except OSError as exc:
            raise Misconfigured(f"{folder} cannot be made ({exc.strerror})", hint="mend its owner and mode") from None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise Misconfigured(f"{folder} is not this user's alone", hint="remove it, or mend its owner and mode")
    for path in (plan.folder, plan.run / "decision.sock"):
        if len(os.fsencode(path)) > _LONGEST_PATH or set(str(path)) & _NOT_IN_PATHS:
            raise Misconfigured(
                f"nginx cannot work in {path}", hint="choose a --data-dir that is shorter, without spaces and signs"
            )
    lock = os.open(plan.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misconfigured(
                f"another orchestrator runs an nginx for the data folder of {plan.folder}",
                hint="end it, or choose another --data-dir or --port",
            ) from None
        if not _same(lock, plan.run / "lock"):
            raise Misconfigured("another orchestrator has just ended here", hint="start again")
        await _end_leftover(plan)
        try:
            yield plan
        finally:
            shutil.rmtree(plan.run, ignore_errors=True)
    finally:
        os.close(lock)


class Nginx:
    """One nginx, started on a socket that listens already. Use from one loop."""

    def __init__(self, plan: Plan, listening: socket.socket) -> None:
        self._plan = plan
        self._socket = listening
        self._program = find_nginx()
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = False

    @property
    def pid(self) -> int | None:
        """Of the master; None before the start and after the end."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Render, start, and wait until nginx has taken the socket. Raises `Misconfigured` with nginx's own words."""
        config = self._plan.render(self._socket)
        pid_file = self._plan.run / "nginx.pid"
        pid_file.unlink(missing_ok=True)
        self._process = self._spawn(config)
        deadline = time.monotonic() + _START_SECONDS
        while not (pid_file.exists() and pid_file.read_text().strip() == str(self._process.pid)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._said()
                await self.stop()
                raise Misconfigured(f"nginx did not start: {said}", hint=f"see {self._plan.folder}")
            await asyncio.sleep(0.005)

    async def run(self) -> None:
        """Until cancelled: start nginx again whenever it has ended by itself."""
        while True:
            await asyncio.sleep(_AGAIN_SECONDS / 4)
            if self._ending or self._process is None or self._process.poll() is None:
                continue
            log.error("nginx.ended", status=self._process.returncode, hint=f"see {self._plan.folder}")
            await asyncio.sleep(_AGAIN_SECONDS)
            await _end_group(self._process.pid)
            try:
                await self.start()
            except Misconfigured as exc:
                log.error("nginx.not_started", problem=exc.message)

    def quit(self) -> None:
        """No new connections from now on; what runs may finish for as long as the plan says. Answers at once."""
        self._ending = True
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)

    async def stop(self) -> None:
        """`quit`, and wait for the end. May be called twice."""
        self.quit()
        process, self._process = self._process, None
        if process is None:
            return
        deadline = time.monotonic() + self._plan.drain_seconds + _STOP_SECONDS
        while process.poll() is None:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.01)
        await _end_group(process.pid)
        process.wait()

    def _spawn(self, config: Path) -> subprocess.Popen[bytes]:
        said = self._plan.folder / "start.log"
        with open(said, "wb", opener=_private) as output:
            return subprocess.Popen(
                [
                    str(self._program),
                    "-p",
                    str(self._plan.folder),
                    "-c",
                    str(config),
                    "-e",
                    str(self._plan.folder / "error.log"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # nginx takes over sockets named here: it is how one nginx hands its sockets to the next.
                env={**child_environment(), "NGINX": f"{self._socket.fileno()};"},
                pass_fds=(self._socket.fileno(),),
                cwd=self._plan.folder,  # by which `_end_leftover` knows it
                start_new_session=True,  # a Ctrl-C is for the orchestrator, which ends all of this group
            )

    def _said(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self._plan.folder / "start.log").read_text(errors="replace").splitlines()
            lines += (self._plan.folder / "error.log").read_text(errors="replace").splitlines()[-2:]
            told = [line.strip() for line in lines if line.strip() and "[warn]" not in line and "[notice]" not in line]
            return " | ".join(told[-3:]) or "it said nothing"
        return "what it said cannot be read"


async def _end_leftover(plan: Plan) -> None:
    """End the nginx of an orchestrator of this data folder that was killed. None there: fine."""
    try:
        group = int((plan.run / "nginx.pid").read_text())
    except (OSError, ValueError):
        return
    if any(_works_in(pid, plan.folder) for pid in _group(group)):  # the number may be another's by now
        log.info("nginx.leftover_ended", pid=group)
        await _end_group(group)
    (plan.run / "nginx.pid").unlink(missing_ok=True)


async def _end_group(group: int) -> None:
    """End every process of nginx in this group: workers outlive a master that was killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _STOP_SECONDS
        for pid in _group(group):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while _group(group):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.01)
        else:
            return


def _group(group: int) -> list[int]:
    """The live processes of nginx with this process group."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        before, _, after = _read(pid, "stat").rpartition(b")")
        fields = after.split()
        if len(fields) > 2 and before.endswith(b"(nginx") and fields[0] not in (b"Z", b"X") and int(fields[2]) == group:
            found.append(pid)
    return found


def _same(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name: whoever ends removes the folder."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    except OSError:
        return False


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
