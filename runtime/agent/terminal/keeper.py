"""Parent of one shell and of everything the shell starts; a program of its own, with the standard library only.

`python -I -S keeper.py USER TERMINAL FOLDER COMMAND...` runs the command as leader of a new session on that terminal.
The keeper first becomes that user (`number:group`, or `same` for none).
Orphans of the session come to the keeper instead of to process 1, so that daemons are found as well. When the command
ends, or when standard input does (the runtime closed it, or died), everything is killed, the folder of the shell's
files is removed, and the keeper exits with its status. It runs apart from the runtime so that reaping strangers
never takes a status that the runtime waits for.
"""

import ctypes
import os
import select
import shutil
import signal
import sys
import time
import warnings  # noqa: F401 - wanted by os.execvp, when the library's files may be out of this user's reach

PR_SET_CHILD_SUBREAPER = 36
#: signals that a careless `pkill` inside the shell would send to us too
SHRUGGED_OFF = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTOU)


def main() -> int:
    """Run the command; returns its exit status, 128 + signal when one ended it."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.stderr.write("keeper: the kernel does not let this process adopt orphans\n")
        return 1
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in SHRUGGED_OFF:
        signal.signal(number, signal.SIG_IGN)
    user, terminal, folder, *command = sys.argv[1:]
    become(user)
    shell = spawn(terminal, command)
    status = watch(shell, woken)
    end_all()
    shutil.rmtree(folder, ignore_errors=True)
    return status


def become(user: str) -> None:
    """Another user for ever, with its rights alone."""
    if user == "same":
        return
    number, _, group = user.partition(":")
    os.setgroups([])
    os.setgid(int(group))
    os.setuid(int(number))


def spawn(terminal: str, command: list[str]) -> int:
    """Start the command on the terminal, which becomes its controlling one; returns its process id."""
    child = os.fork()
    if child != 0:
        return child
    try:
        os.setsid()
        for number in (*SHRUGGED_OFF, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        # A session leader without a terminal gets the first one that it opens.
        opened = os.open(terminal, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(opened, standard)
        os.closerange(3, 256)
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    finally:
        os._exit(127)


def watch(shell: int, woken: int) -> int:
    """Reap until the shell ends or standard input does; returns the shell's status, -1 when it still runs."""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        while (ended := reap()) is not None:
            if ended[0] == shell:
                return os.waitstatus_to_exitcode(ended[1])
        if 0 in ready and not os.read(0, 4096):
            return -1


def reap() -> "tuple[int, int] | None":
    """One process that ended, as (pid, status); None when none did."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def end_all() -> None:
    """Kill every descendant. In rounds, since a process may start another while it is being looked at."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found = descendants(os.getpid())
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended by itself
        while reap() is not None:
            pass
        if not found:
            return
        time.sleep(0.002)


def descendants(root: int) -> "set[int]":
    """All processes below this one, zombies included."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            children.setdefault(parent_of(entry), []).append(int(entry))
    found: set[int] = set()
    pending = [root]
    while pending:
        for child in children.get(pending.pop(), []):
            if child not in found:
                found.add(child)
                pending.append(child)
    return found


def parent_of(pid: str) -> int:
    """The parent's id, 0 when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    ended = main()
    sys.exit(ended if ended >= 0 else 128 - ended)
