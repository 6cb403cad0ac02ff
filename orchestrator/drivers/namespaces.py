"""A runtime's private view of the machine: its own processes, its own /workspace, /state, /tmp and home.

The view is a list of steps. `process_spawn.py` has bubblewrap take them for a command that is executed, and
`process_fork.py` sends the same ones to the zygote, whose children take them themselves. `process.py` asks once whether
this host allows it. The root inside is empty and read-only, and only what a program needs is put into it: the system's
folders, the interpreter, the two folders of the conversation. So the orchestrator's data folder, homes and sockets
under /run are not hidden one by one: they are not there. The network is the host's own; processors, memory and the
number of processes are not limited.
"""

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.drivers.process_interpreter import InterpreterUnusable, ask, links

WORKSPACE = Path("/workspace")
STATE = Path("/state")
TEMPORARY = Path("/tmp")  # noqa: S108 - the runtime's own, a folder of its own outside
HOME = Path("/home/agent")
HOSTNAME = "runtime"

_PROBE_SECONDS = 10.0
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix", "/sys")
#: Readable by root even without capabilities, and no business of an agent.
_CREDENTIALS = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-")
#: The kernel lets root write here even without capabilities, and what is written holds for the whole machine.
_KERNEL_SETTINGS = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
_KERNEL_MEMORY = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/latency_stats")
_UNSHARE = (
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--hostname",
    HOSTNAME,
    "--cap-drop",
    "ALL",
    "--new-session",
)


class NamespacesUnavailable(Exception):
    """This host does not allow them; the message says why and what to do."""


@dataclass(frozen=True)
class PrivateFolders:
    """The folders of one runtime, outside; inside they have the fixed names above."""

    workspace: Path
    state: Path
    temporary: Path
    home: Path


Step = Sequence[str]  #: an option of bubblewrap without its dashes, and its arguments
Mounts = Mapping[Path, Step]  #: a path inside, and the step that puts something there


class Namespaces:
    """The view, and the wrapper for commands.

    `readable` is seen inside, read-only; `hidden` is not, even below what is shown.
    """

    def __init__(self, executable: str, *, readable: Iterable[Path], hidden: Iterable[Path]) -> None:
        self._executable = executable
        self._root = _root(readable, hidden)

    def wrap(self, command: Sequence[str], *, folders: PrivateFolders, info_descriptor: int | None = None) -> list[str]:
        """`command` inside. Descriptors pass through; pid 1 of the namespace is told on `info_descriptor`.

        The runtime outlives its orchestrator on purpose: nothing here dies with its parent.
        """
        filled = [word for name, *arguments in self.steps(folders) for word in (f"--{name}", *arguments)]
        info = [] if info_descriptor is None else ["--info-fd", str(info_descriptor)]
        return [self._executable, *_UNSHARE, *filled, "--chdir", str(STATE), *info, "--", *command]

    def steps(self, folders: PrivateFolders) -> Sequence[Step]:
        """What fills the empty root, in order: parents first, so that what lies deeper has the last word."""
        mounts = {**self._root, **_private(folders)}
        return [*(mounts[path] for path in sorted(mounts, key=lambda path: len(path.parts))), ["remount-ro", "/"]]


def probe(search_path: str, *, readable: Iterable[Path], hidden: Iterable[Path], scratch: Path) -> Namespaces:
    """A wrapper that was seen to work here, with the very flags that a runtime gets. Blocks for some 20 ms.

    Raises `NamespacesUnavailable`.
    """
    executable = shutil.which("bwrap", path=search_path)
    if executable is None:
        raise NamespacesUnavailable("bubblewrap is not installed (on Debian or Ubuntu: apt-get install bubblewrap)")
    namespaces = Namespaces(executable, readable=readable, hidden=hidden)
    command = namespaces.wrap(["/bin/sh", "-c", "exit 0"], folders=PrivateFolders(*[scratch] * 4))
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_PROBE_SECONDS, env={"PATH": search_path}, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise NamespacesUnavailable(f"{executable} could not be run ({type(exc).__name__})") from exc
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise NamespacesUnavailable(
            f"this host does not allow namespaces ({said[0][:200]}); see kernel.unprivileged_userns_clone or AppArmor"
        )
    return namespaces


def readable_for(command: Sequence[str], search_path: str) -> Sequence[Path]:
    """What a foreign command needs to see: its program, the files it names, and its interpreter if it is a Python."""
    program = shutil.which(command[0], path=search_path)
    if program is None:
        return ()
    found = {step.parent for step in links(Path(program))}
    found |= {Path(argument) for argument in command[1:] if argument.startswith("/") and Path(argument).exists()}
    if Path(program).name.startswith("python"):
        try:
            found |= set(ask(program).folders)
        except InterpreterUnusable:
            return sorted(found)  # it will say so itself when it is started
    return sorted(found)


def _private(folders: PrivateFolders) -> Mounts:
    settings = {Path(path): ["ro-bind", path, path] for path in _KERNEL_SETTINGS if Path(path).exists()}
    memory = {Path(path): ["ro-bind", "/dev/null", path] for path in _KERNEL_MEMORY if Path(path).exists()}
    return {
        **settings,
        **memory,
        Path("/proc"): ["proc", "/proc"],
        Path("/dev"): ["dev", "/dev"],
        Path("/var/tmp"): ["symlink", str(TEMPORARY), "/var/tmp"],  # noqa: S108
        TEMPORARY: ["bind", str(folders.temporary), str(TEMPORARY)],
        HOME: ["bind", str(folders.home), str(HOME)],
        WORKSPACE: ["bind", str(folders.workspace), str(WORKSPACE)],
        STATE: ["bind", str(folders.state), str(STATE)],
    }


def _root(readable: Iterable[Path], hidden: Iterable[Path]) -> Mounts:
    """What is shown of the machine, without what must stay hidden below it."""
    system = {folder: mount for folder in map(Path, _SYSTEM) if (mount := _system_folder(folder))}
    linked = [folder for folder in system if folder.is_symlink()]  # what lies below one is shown where the link leads
    mounts: dict[Path, Sequence[str]] = dict(system)
    for path in readable:
        if path.exists() and path != Path("/") and not any(path.is_relative_to(link) for link in linked):
            mounts.setdefault(path, ["ro-bind", str(path), str(path)])
    shown = list(mounts)
    for path in (*map(Path, _CREDENTIALS), *hidden):
        if path.exists() and any(path.is_relative_to(above) for above in shown):
            mounts[path] = ["tmpfs", str(path)] if path.is_dir() else ["ro-bind", "/dev/null", str(path)]
    return {**mounts, **_name_resolution(shown)}


def _system_folder(folder: Path) -> Sequence[str]:
    if folder.is_symlink():
        return ["symlink", str(folder.readlink()), str(folder)]
    return ["ro-bind", str(folder), str(folder)] if folder.is_dir() else []


def _name_resolution(shown: Iterable[Path]) -> Mounts:
    # /etc/resolv.conf is often a link into /run, which is not there inside.
    target = Path("/etc/resolv.conf").resolve()
    if not target.is_file() or any(target.is_relative_to(above) for above in shown):
        return {}
    return {target: ["ro-bind", str(target), str(target)]}
