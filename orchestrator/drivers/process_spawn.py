"""How a runtime's process comes to be: command, environment, socket, init key, and the barrier before its first step.

`process_lifecycle.py` calls `spawn` while it holds the runtime's claim. The child waits at a pipe (`process_launch.py`)
until the claim on disk names it, so a crash of ours at any line leaves either no process or one that can be found. The
init key travels in a pipe and is nowhere else; the listening socket is bound here, so no port can be lost in between.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.base import OwnerLabels, StartRefused
from orchestrator.drivers.namespaces import HOME, STATE, TEMPORARY, WORKSPACE, Namespaces, PrivateFolders
from orchestrator.drivers.process_tree import Process, alive, identify, is_child, send

MARK = "NESTOR_CLAIM"  #: in the environment of every process of a runtime: the name of its claim
LOOPBACK = "127.0.0.1"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_LAUNCHER = Path(__file__).with_name("process_launch.py")
_BACKLOG = 128
_START_SECONDS = 20.0
_POLL_SECONDS = 0.005


@dataclass(frozen=True)
class Recipe:
    """How this driver runs runtimes. `command` is another agent server; None means our own."""

    python: str
    command: Sequence[str] | None
    namespaces: Namespaces | None

    @property
    def search_path(self) -> str:
        """PATH of a runtime: the system's, and last the folder of our interpreter, so that some `python3` is there."""
        return f"{SYSTEM_PATH}:{Path(self.python).parent}"


@dataclass(frozen=True)
class Birth:
    """What one start needs to know about its runtime."""

    name: str
    labels: OwnerLabels
    environment: Mapping[str, str]
    folder: Path
    folders: PrivateFolders


@dataclass(frozen=True)
class Born:
    """A process that runs. `init` is pid 1 of its namespace."""

    server: Process
    init: Process | None
    port: int


@dataclass
class _Descriptors:
    """What the child inherits, and our ends; all are closed when the start is over."""

    listener: socket.socket
    port: int
    key: FileIO | None  #: the child's end, the key already written
    leave: FileIO  #: the child waits here
    give_leave: FileIO
    report: FileIO  #: the child tells here why it could not become the command
    read_report: FileIO
    log: FileIO
    info: FileIO | None  #: bubblewrap writes here; a file, because a pipe without a reader would kill it half-way

    def inherited(self) -> Sequence[int]:
        own_server = [] if self.key is None else [self.listener.fileno(), self.key.fileno()]
        namespaced = [] if self.info is None else [self.info.fileno()]
        return [self.leave.fileno(), self.report.fileno(), *own_server, *namespaced]


def spawn(recipe: Recipe, birth: Birth, init_key: SecretText, record: Callable[[Process, int], None]) -> Born:
    """Start the runtime. `record(process, port)` must have the claim on disk when it returns; only then it runs.

    Raises `StartRefused` when it cannot be started. After any failure the process is killed; a namespace that it may
    have made by then is for the caller to end.
    """
    with _descriptors(
        birth, init_key, own_server=recipe.command is None, namespaced=recipe.namespaces is not None
    ) as ends:
        server = _start_launcher(recipe, birth, ends)
        try:
            record(server, ends.port)
            _let_go(ends)
            init = None if ends.info is None else _pid_one(server, birth.folder)
        except BaseException:
            send(server, signal.SIGKILL)
            raise
        return Born(server, init, ends.port)


def info_file(folder: Path) -> Path:
    """Where bubblewrap writes the number of pid 1; whoever adopts a half-made claim reads it there."""
    return folder / "namespace.json"


def read_pid_one(folder: Path, server: Process | None) -> Process | None:
    """Pid 1 of the runtime's namespace as bubblewrap reported it, if it did and if that process lives.

    `server` is the bubblewrap process outside, if it is known.
    """
    try:
        report = json.loads(info_file(folder).read_bytes())
        first = identify(int(report["child-pid"]))
        if first is None or (server is not None and is_child(first, server)):
            return first
        # The one outside is dead; by now the number could be any process's, so look whether it has that namespace.
        same = os.stat(f"/proc/{first.pid}/ns/pid").st_ino == int(report["pid-namespace"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return first if same else None


def _start_launcher(recipe: Recipe, birth: Birth, ends: _Descriptors) -> Process:
    command = _command(recipe, ends)
    if recipe.namespaces is not None and ends.info is not None:
        command = recipe.namespaces.wrap(command, folders=birth.folders, info_descriptor=ends.info.fileno())
    if recipe.command is not None:
        ends.listener.close()  # the other server binds the port itself; from here on somebody else could take it
    words = [
        str(ends.leave.fileno()),
        str(ends.report.fileno()),
        "plain" if recipe.namespaces is None else "namespaced",
    ]
    try:
        child = subprocess.Popen(
            [recipe.python, "-I", "-S", str(_LAUNCHER), *words, *command],
            env=_environment(recipe, birth, ends.port),
            cwd="/" if recipe.namespaces is not None else birth.folders.state,
            stdin=subprocess.DEVNULL,
            stdout=ends.log,
            stderr=ends.log,
            pass_fds=ends.inherited(),
            start_new_session=True,
            umask=0o077,
        )
    except OSError as exc:
        raise StartRefused(f"{recipe.python} could not be started", hint="run scripts/install") from exc
    # The process outlives this object and is waited for by number, also by a driver that did not start it; Popen,
    # told nothing, would complain about that when it is collected.
    child.returncode = 0
    server = identify(child.pid)
    if server is None:
        os.waitpid(child.pid, 0)
        raise StartRefused("the runtime's process ended before it began")
    return server


def _command(recipe: Recipe, ends: _Descriptors) -> list[str]:
    if recipe.command is None:
        own = [recipe.python, "-I", "-m", "runtime", "--listen-fd", str(ends.listener.fileno())]
        return own if ends.key is None else [*own, "--boot-key-fd", str(ends.key.fileno())]
    if any("{port}" in word for word in recipe.command):
        return [word.replace("{host}", LOOPBACK).replace("{port}", str(ends.port)) for word in recipe.command]
    return [*recipe.command, "--host", LOOPBACK, "--port", str(ends.port)]


def _environment(recipe: Recipe, birth: Birth, port: int) -> Mapping[str, str]:
    inside = recipe.namespaces is not None
    state = STATE if inside else birth.folders.state
    return {
        "LANG": "C.UTF-8",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OH_CONVERSATIONS_PATH": str(state / "conversations"),
        "OH_PERSISTENCE_DIR": str(state / "persistence"),
        # None: the default path lies in the workspace, where the agent could write one for the next start.
        "OPENHANDS_AGENT_SERVER_CONFIG_PATH": "/proc/no-configuration-file",
        "OH_BASH_EVENTS_DIR": str(state / "bash_events"),
        "OH_WORKSPACE_PATH": str(WORKSPACE if inside else birth.folders.workspace),
        "OH_INTERNAL_SERVER_URL": f"http://{LOOPBACK}:{port}",
        **birth.environment,
        "PATH": recipe.search_path,
        "HOME": str(HOME if inside else birth.folders.home),
        "TMPDIR": str(TEMPORARY if inside else birth.folders.temporary),
        "NESTOR_RUNTIME": birth.labels.runtime,
        MARK: birth.name,
    }


@contextlib.contextmanager
def _descriptors(birth: Birth, init_key: SecretText, *, own_server: bool, namespaced: bool) -> Iterator[_Descriptors]:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)))
        listener.bind((LOOPBACK, 0))
        if own_server:
            listener.listen(_BACKLOG)  # connections queue from now on: nobody is refused while the server starts
        leave, give_leave = _pipe(stack)
        read_report, report = _pipe(stack)
        yield _Descriptors(
            listener=listener,
            port=listener.getsockname()[1],
            key=_key_pipe(stack, init_key) if own_server else None,
            leave=leave,
            give_leave=give_leave,
            report=report,
            read_report=read_report,
            log=_open(stack, birth.folder / "runtime.log", os.O_APPEND),
            info=_open(stack, info_file(birth.folder), os.O_TRUNC) if namespaced else None,
        )


def _pipe(stack: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    read, write = os.pipe()
    # File objects, not numbers: closing one twice cannot close what another thread opened in between.
    return stack.enter_context(FileIO(read, "r")), stack.enter_context(FileIO(write, "w"))


def _open(stack: contextlib.ExitStack, path: Path, flags: int) -> FileIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)
    return stack.enter_context(FileIO(descriptor, "w"))


def _key_pipe(stack: contextlib.ExitStack, init_key: SecretText) -> FileIO:
    read, write = _pipe(stack)
    # Written before anybody reads: a line fits into the pipe's buffer, and if we die now it dies with the pipe.
    with write:
        write.write(init_key.open().encode() + b"\n")
    return read


def _let_go(ends: _Descriptors) -> None:
    with contextlib.suppress(BrokenPipeError):  # killed while it waited: whoever looks next will see that
        ends.give_leave.write(b"g")
    ends.report.close()  # the child's copy is the last one now: its end tells that the command runs
    poll = select.poll()
    poll.register(ends.read_report.fileno(), select.POLLIN)
    if not poll.poll(_START_SECONDS * 1000):
        raise StartRefused(f"the runtime did not begin within {_START_SECONDS:.0f} s")
    if said := ends.read_report.read(1000):
        raise StartRefused(
            f"the runtime's command could not be executed: {said.decode(errors='replace')}",
            hint="check NESTOR_RUNTIME_COMMAND, or run scripts/install",
            log_tail=(),
        )


def _pid_one(server: Process, folder: Path) -> Process:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if (found := read_pid_one(folder, server)) is not None:
            return found
        if not alive(server):
            break
        time.sleep(_POLL_SECONDS)
    raise StartRefused("the runtime ended as soon as it began", hint="its last lines say why")
