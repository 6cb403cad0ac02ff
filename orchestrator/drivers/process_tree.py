"""Processes as the kernel shows them: who is alive, who descends from whom, and how to freeze and kill all of them.

Only the `process*` files of this package call it; it knows nothing of claims or commands. A process is a pid with its
start time, because a pid alone is used again; a signal goes through a pidfd, so that it cannot hit the next one. A
zombie counts as dead: it runs nothing. Everything blocks a little: call it in a thread.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_FREEZE_ROUNDS = 200
_ENVIRONMENT_LIMIT_BYTES = 1024 * 1024
_DEAD = frozenset("ZXx")


@dataclass(frozen=True)
class Process:
    """One process of this boot: `started` is field 22 of its stat, in clock ticks since the boot."""

    pid: int
    started: int


@dataclass(frozen=True)
class _Stat:
    state: str
    parent: int
    threads: int
    started: int

    @property
    def dead(self) -> bool:
        # The first thread of a program may be gone while others work on, or are just ending.
        return self.state in _DEAD and self.threads <= 1


def boot_id() -> str:
    """What tells this boot of the machine from every other one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Process | None:
    """The process of that number, unless there is none or it is dead."""
    facts = _read_stat(pid)
    return None if facts is None or facts.dead else Process(pid, facts.started)


def alive(process: Process) -> bool:
    """Whether this very process still runs or could run."""
    return identify(process.pid) == process


def is_child(child: Process, parent: Process) -> bool:
    """Whether `parent` is the present parent of `child`."""
    facts = _read_stat(child.pid)
    return facts is not None and facts.started == child.started and facts.parent == parent.pid


def oldest_child(parent: Process) -> Process | None:
    """The living child that was started first, if there is one."""
    children = [process for process in family([parent]) if is_child(process, parent)]
    return min(children, key=lambda process: (process.started, process.pid), default=None)


def reap(process: Process) -> int | None:
    """Free a dead child of ours for good; its exit code, negative for a signal. None when that cannot be known."""
    facts = _read_stat(process.pid)
    if facts is None or facts.started != process.started or not facts.dead:
        return None  # gone already; the number may be another child's by now
    try:
        reaped, status = os.waitpid(process.pid, os.WNOHANG)
    except ChildProcessError:  # another orchestrator's child: only its parent learns the code
        return None
    return os.waitstatus_to_exitcode(status) if reaped else None


def family(roots: Iterable[Process]) -> Sequence[Process]:
    """The living among `roots` and all their living descendants, parents before children."""
    facts = dict(_all_stats())
    children: dict[int, list[int]] = {}
    for pid, one in facts.items():
        children.setdefault(one.parent, []).append(pid)
    queue = [root.pid for root in roots if root.pid in facts and facts[root.pid].started == root.started]
    found: dict[int, Process] = {}
    for pid in queue:  # grows while it is read
        if pid in found:
            continue
        found[pid] = Process(pid, facts[pid].started)
        queue.extend(children.get(pid, ()))
    return [process for pid, process in found.items() if not facts[pid].dead]


def carrying(variable: str, value: str) -> Sequence[Process]:
    """Every other living process that was started with `variable=value` in its environment."""
    wanted = f"{variable}={value}".encode()
    found = []
    for pid, facts in _all_stats():
        if not facts.dead and pid != os.getpid() and wanted in _environment(pid):
            found.append(Process(pid, facts.started))
    return found


def send(process: Process, number: signal.Signals) -> None:
    """Signal this very process; dead already is fine."""
    with _pidfd(process) as descriptor:
        if descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)


def wait_gone(processes: Iterable[Process], *, seconds: float) -> Sequence[Process]:
    """Wait until all are dead, at most `seconds`; those that still live."""
    deadline = time.monotonic() + seconds
    living = []
    for process in processes:
        with _pidfd(process) as descriptor:
            if descriptor is None:
                continue
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                living.append(process)
    return living


def freeze(find: Callable[[], Sequence[Process]]) -> Sequence[Process]:
    """Stop all that `find` finds, again and again until a round finds nothing new; in the order in which it was done.

    A parent is stopped before its children, so that a shell does not take a stopped child for one that ended its turn.
    """
    frozen: dict[Process, None] = {}
    for _ in range(_FREEZE_ROUNDS):
        # What the agent itself has stopped is left alone: `thaw` would let it go on.
        fresh = [process for process in find() if process not in frozen and not _stopped(process)]
        if not fresh:
            break
        for process in fresh:
            send(process, signal.SIGSTOP)
            frozen[process] = None
    return list(frozen)


def thaw(processes: Sequence[Process]) -> None:
    """Let all go on, children before their parents."""
    for process in reversed(processes):
        send(process, signal.SIGCONT)


def kill(find: Callable[[], Sequence[Process]], *, seconds: float) -> Sequence[Process]:
    """Kill all that `find` finds, frozen first so that none can fork away; those that still live after `seconds`."""
    doomed = dict.fromkeys([*freeze(find), *find()])
    for process in doomed:
        send(process, signal.SIGKILL)
    return wait_gone(doomed, seconds=seconds)


@contextlib.contextmanager
def _pidfd(process: Process) -> Iterator[int | None]:
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # Looked at after opening: from here on the descriptor cannot come to mean another process.
        yield descriptor if alive(process) else None
    finally:
        os.close(descriptor)


def _all_stats() -> Iterator[tuple[int, _Stat]]:
    for name in os.listdir("/proc"):
        if name.isdigit() and (facts := _read_stat(int(name))) is not None:
            yield int(name), facts


def _read_stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's own name in brackets and may hold spaces and brackets itself.
    fields = text[text.rindex(b")") + 2 :].split()
    return _Stat(state=fields[0].decode(), parent=int(fields[1]), threads=int(fields[17]), started=int(fields[19]))


def _stopped(process: Process) -> bool:
    facts = _read_stat(process.pid)
    return facts is None or facts.state in "Tt"


def _environment(pid: int) -> Sequence[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read(_ENVIRONMENT_LIMIT_BYTES).split(b"\0")
    except OSError:  # gone meanwhile, or another user's: not ours in either case
        return ()
