"""Starting the servers that the benches compare, and reading from the kernel what they cost.

CPU time is the whole process tree's, ended children included; memory is PSS, which counts a shared page once. Reading
another process's memory needs root where that process made itself unreadable, as the runtime does.
"""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEY = "bench-session-key"
TICK = os.sysconf("SC_CLK_TCK")


def leave(number: int, frame: object) -> None:
    """For SIGTERM: go through the `finally` blocks, so that no server outlives its bench."""
    raise SystemExit(128 + number)


@dataclass(frozen=True)
class Kind:
    """A server that can be started: how, and with what in its environment."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def ours() -> Kind:
    return Kind("ours", (sys.executable, "-P", "-m", "runtime"))


def peer(python: str) -> Kind:
    return Kind("peer", (python, "-P", "-m", "openhands.agent_server"))


class Server:
    """One process of a kind, over a folder of its own unless one is given."""

    def __init__(self, kind: Kind, folder: Path | None = None) -> None:
        self.kind = kind
        self._made = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="nestor-bench-"))
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> tuple[float, float]:
        """Wall and CPU seconds from exec to the first good answer of /ready."""
        self.port = free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "OH_SESSION_API_KEYS_0": KEY,
            "OH_SECRET_KEY": "bench-sealing-key",
            "OH_CONVERSATIONS_PATH": str(self.folder / "conversations"),
            "OH_WORKSPACE_PATH": str(self.folder / "project"),
            "OH_PERSISTENCE_DIR": str(self.folder / "persistence"),
            **self.kind.environment,
        }
        began = time.perf_counter()
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.kind.command, "--host", "127.0.0.1", "--port", str(self.port)],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not self._ready():
            if self.process.poll() is not None or time.perf_counter() - began > 180:
                tail = (self.folder / "server.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.kind.name} did not get ready:\n{tail}")
            time.sleep(0.005)
        took = time.perf_counter() - began, self.cpu()
        if not listens(self.pid, self.port):
            raise RuntimeError(f"somebody else answers at port {self.port}: start again")
        return took

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self, *, remove: bool = True) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        if remove and self._made:
            shutil.rmtree(self.folder, ignore_errors=True)

    def cpu(self) -> float:
        """Seconds of CPU of the process, its living descendants and its ended children."""
        main = time.clock_gettime((~self.pid << 3) | 2)  # the kernel's clock of another process: nanoseconds
        ended = sum(int(part) for part in _stat(self.pid)[13:15]) / TICK
        living = sum(sum(int(part) for part in _stat(pid)[11:15]) / TICK for pid in tree(self.pid)[1:])
        return main + ended + living

    def pss(self) -> float:
        """Mebibytes of the whole tree."""
        total = 0
        for pid in tree(self.pid):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        return total / 1024


class Client:
    """One keep-alive connection with the session key."""

    def __init__(self, server: Server) -> None:
        self._port = server.port
        self.connect()

    def connect(self) -> None:
        """Anew, where the last one may have been ended by the server: it does so after five seconds of rest."""
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        self._connection.connect()
        assert self._connection.sock is not None
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, method: str, path: str, body: Any = None) -> bytes:
        headers = {"X-Session-API-Key": KEY}
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        self._connection.request(method, path, content, headers)
        answer = self._connection.getresponse()
        read = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {read[:500]!r}")
        return read

    def json(self, method: str, path: str, body: Any = None) -> Any:
        return json.loads(self.call(method, path, body))

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def serving(kind: Kind) -> Iterator[Server]:
    server = Server(kind)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 20


def free_port() -> int:
    """One that the kernel gives nobody else meanwhile: it lies below those of net.ipv4.ip_local_port_range."""
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def listens(pid: int, port: int) -> bool:
    """Whether it is this process, or one of its descendants, that is heard at this port of loopback."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    inodes = {f"socket:[{line[9]}]" for line in lines if line[3] == "0A" and line[1] == f"0100007F:{port:04X}"}
    for process in tree(pid):
        for descriptor in Path(f"/proc/{process}/fd").glob("*"):
            with contextlib.suppress(OSError):
                if os.readlink(descriptor) in inodes:
                    return True
    return False
