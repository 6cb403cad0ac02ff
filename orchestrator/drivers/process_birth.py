"""What every start of a runtime's process needs, whether it is executed or forked: recipe, environment, descriptors.

`process_spawn.py` and `process_fork.py` use it. The init key travels in a pipe and is nowhere else; the listening
socket is bound here, so no port can be lost in between; and a process waits at a pipe until its claim is on disk.
"""

import contextlib
import os
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.errors import StartRefused
from orchestrator.drivers.namespaces import HOME, STATE, TEMPORARY, WORKSPACE, Namespaces, PrivateFolders
from orchestrator.drivers.process_tree import Process
from orchestrator.drivers.process_zygote import Zygote
from orchestrator.drivers.values import Dialect, OwnerLabels

MARK = "NESTOR_CLAIM"  #: in the environment of every process of a runtime: the name of its claim
LOOPBACK = "127.0.0.1"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_SECONDS = 20.0

_BACKLOG = 128


@dataclass(frozen=True)
class Recipe:
    """How this driver runs runtimes. `command` is another agent server, of the dialect `stock`; None means our own."""

    python: str
    command: Sequence[str] | None
    namespaces: Namespaces | None
    zygote: Zygote | None = None  #: forks our own runtimes, when it is ready
    stock: Dialect = Dialect.DORMANT

    @property
    def dialect(self) -> Dialect:
        return Dialect.OWN if self.command is None else self.stock

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
    """A process that waits, or runs by now. `init` is pid 1 of its namespace, once it is known."""

    server: Process
    init: Process | None
    port: int
    zygote: Path | None = None  #: the socket of the zygote that forked it, and will know how it ended


@dataclass
class Descriptors:
    """What the child inherits, and our ends; all are closed when the start is over."""

    listener: socket.socket
    port: int
    key: FileIO  #: the child's end, the keys already written
    leave: FileIO  #: the child waits here
    give_leave: FileIO
    report: FileIO  #: the child tells here why it could not become the command
    read_report: FileIO
    log: FileIO
    info: FileIO | None  #: bubblewrap writes here; a file, because a pipe without a reader would kill it half-way

    def inherited(self, *, own_server: bool) -> Sequence[int]:
        """Another server than ours has its keys on standard input, and binds the port itself."""
        own = [self.listener.fileno(), self.key.fileno()] if own_server else []
        namespaced = [] if self.info is None else [self.info.fileno()]
        return [self.leave.fileno(), self.report.fileno(), *own, *namespaced]


def environment_of(recipe: Recipe, birth: Birth, port: int) -> Mapping[str, str]:
    """All variables of the runtime; none holds a secret."""
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


def info_file(folder: Path) -> Path:
    """Where bubblewrap writes the number of pid 1; whoever adopts a half-made claim reads it there."""
    return folder / "namespace.json"


@contextlib.contextmanager
def descriptors_for(
    birth: Birth, lines: Sequence[SecretText], *, own_server: bool, namespaced: bool
) -> Iterator[Descriptors]:
    """Open for the block. `lines` are its keys. An own server gets a socket that listens already."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)))
        listener.bind((LOOPBACK, 0))
        if own_server:
            listener.listen(_BACKLOG)  # connections queue from now on: nobody is refused while the server starts
        leave, give_leave = _pipe(stack)
        read_report, report = _pipe(stack)
        yield Descriptors(
            listener=listener,
            port=listener.getsockname()[1],
            key=_key_pipe(stack, lines),
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


def _key_pipe(stack: contextlib.ExitStack, lines: Sequence[SecretText]) -> FileIO:
    read, write = _pipe(stack)
    # Written before anybody reads: the lines fit into the pipe's buffer, and if we die now they die with the pipe.
    with write:
        write.write("".join(f"{line.open()}\n" for line in lines).encode())
    return read


def let_go(ends: Descriptors) -> None:
    """Give leave to a process whose claim is on disk. Raises `StartRefused` with what it says against it."""
    with contextlib.suppress(BrokenPipeError):  # killed while it waited: whoever looks next will see that
        ends.give_leave.write(b"g")
    ends.report.close()  # the child's copy is the last one now: its end tells that the command runs
    poll = select.poll()
    poll.register(ends.read_report.fileno(), select.POLLIN)
    if not poll.poll(START_SECONDS * 1000):
        raise StartRefused(f"the runtime did not begin within {START_SECONDS:.0f} s")
    if said := ends.read_report.read(1000):
        raise StartRefused(
            f"the runtime's command could not be executed: {said.decode(errors='replace')}",
            hint="check NESTOR_RUNTIME_COMMAND, or run scripts/install",
            log_tail=(),
        )
