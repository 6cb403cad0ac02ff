"""Whose the agent's processes and files are: the server's own user, or another one that cannot read the server.

`python -m runtime` chooses once, before it serves (`choose`). Where another user is possible, everything that the agent
starts or that is done to files in its name goes through here: processes with `owner()`, work in threads inside of
`acting()`. Without a choice nothing changes, so that code need not ask.

The agent's user is worth having because of what it may not do: open the folders of the runtime's state, look into the
server's memory, or send it a signal.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pwd
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import structlog

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")

log = structlog.get_logger()

#: what one process must be allowed to do to act as another user and to keep order among its processes
_NEEDED = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7}
#: accounts of one runtime each, where no system gives out numbers by itself
_FIRST, _COUNT = 400_000, 100_000
_NAME = "agent"
#: system calls for one thread alone; the library's own change all threads
_CALLS: Mapping[str, tuple[int, int, int]] = {"x86_64": (122, 123, 116), "aarch64": (151, 152, 159)}

_BECOME = (
    "import os, sys, warnings; user, group = map(int, sys.argv[1:3]); "
    "os.setgroups([]); os.setgid(group); os.setuid(user); os.execvp(sys.argv[3], sys.argv[3:])"
)

SAME_USER = (
    "the agent's shell runs as the server's own user, root, and can read this runtime's state: start the runtime as "
    "another user, or give it the right to change users"
)


@dataclass(frozen=True)
class Account:
    uid: int
    gid: int
    name: str
    home: Path


class NoAccount(Exception):
    """Why the agent's processes have to run as the server's user; the text is told to the operator."""


_chosen: Account | None = None
_state: Sequence[Path] = ()
_reason: str | None = None
_asked = False


def choose(wanted: str, *, workspace: Path, state: Sequence[Path]) -> None:
    """Decide for this process. `wanted`: a user's name or number, `auto`, or `same`. `workspace` becomes the agent's.

    Raises NoAccount when a user was named and cannot be had; `auto` then does without, and `weakness` says so.
    """
    global _chosen, _state, _reason, _asked
    _chosen, _state, _reason, _asked = None, [folder.resolve() for folder in state], None, True
    if wanted == "same":
        _reason = "it was chosen so"
        return
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        account = _possible(wanted, workspace=workspace.resolve(), state=_state)
        _check_reach(account, workspace)
        _give(workspace.resolve(), account)
        _make_home(account)
    except (NoAccount, OSError) as problem:
        if wanted != "auto":
            raise NoAccount(str(problem)) from None
        _reason = str(problem)
        return
    _chosen = account
    log.info("runtime.agent_user", user=account.name, uid=account.uid)


def chosen() -> Account | None:
    """None: the agent's processes are of the server's user."""
    return _chosen


def weakness() -> str | None:
    """What an operator must know: that this is root, and the agent with it."""
    if not _asked or _chosen is not None or os.geteuid() != 0:
        return None
    return f"{SAME_USER} ({_reason})"


def owner() -> dict[str, Any]:
    """Arguments of Popen that make a process the agent's."""
    if _chosen is None:
        return {}
    return {"user": _chosen.uid, "group": _chosen.gid, "extra_groups": []}


def text() -> str:
    """For a program of ours that becomes the agent's user by itself, whom its interpreter may be out of reach for."""
    return f"{_chosen.uid}:{_chosen.gid}" if _chosen is not None else "same"


def command(words: Sequence[str]) -> list[str]:
    """The same for who starts a process with a library that takes no user."""
    if _chosen is None:
        return list(words)
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(_chosen.uid), str(_chosen.gid), *words]


def give(path: Path | int) -> None:
    """A file that the server made for the agent becomes the agent's. Raises OSError."""
    if _chosen is not None:
        if isinstance(path, int):
            os.fchown(path, _chosen.uid, _chosen.gid)
        else:
            os.chown(path, _chosen.uid, _chosen.gid, follow_symlinks=False)


def adopt(directory: Path) -> None:
    """A working directory that a client on this machine has just made with `mkdtemp` becomes the agent's.

    Only what that makes, and nothing that holds anything: an empty folder of the server's user, closed to others,
    right below the system's folder of temporary files. Every other folder stays whose it is; never raises.
    """
    if _chosen is None or directory.name == ".." or directory.parent.resolve() != Path(tempfile.gettempdir()).resolve():
        return
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            private = found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == stat.S_IRWXU
            if private and directory.resolve() not in _state and not os.listdir(descriptor):
                os.fchown(descriptor, _chosen.uid, _chosen.gid)
        finally:
            os.close(descriptor)


@contextmanager
def acting() -> Iterator[None]:
    """What this thread does to files meanwhile, the agent does: with its rights, and it owns what is made. No await."""
    if _chosen is None:
        yield
        return
    with _as(_chosen):
        yield


async def in_thread(work: Callable[Asked, Answer], /, *arguments: Asked.args, **more: Asked.kwargs) -> Answer:
    """`asyncio.to_thread`, in the agent's name."""

    def done() -> Answer:
        with acting():
            return work(*arguments, **more)

    return await asyncio.to_thread(done)


def may_read(path: Path) -> bool:
    """Whether the agent's processes can open this file."""
    with acting():
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return False
    return True


def interpreter() -> str:
    """A Python that the agent's processes can start; it needs nothing but its own library."""
    if _chosen is None:
        return sys.executable
    with _as(_chosen):
        for program in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
            try:
                os.close(os.open(program, os.O_RDONLY))
            except OSError:
                continue
            return program
    return "python3"


def home() -> Path:
    """Of the agent's user."""
    return _chosen.home if _chosen is not None else Path.home()


@contextmanager
def _as(account: Account) -> Iterator[None]:
    own_groups = os.getgroups()
    _set_groups([])
    _set(1, account.gid)
    _set(0, account.uid)
    try:
        yield
    finally:
        _set(0, os.geteuid())
        _set(1, os.getegid())
        _set_groups(own_groups)


def _set(which: int, number: int) -> None:
    """The user (0) or group (1) that counts for files, of this thread. The calls answer the former one, no error."""
    call = _CALLS[os.uname().machine][which]
    _libc.syscall(call, number)
    if _libc.syscall(call, -1) != number:  # a number that cannot be is refused, and the answer is the one that holds
        raise OSError(f"this thread cannot act as {'group' if which else 'user'} {number}")


def _set_groups(groups: Sequence[int]) -> None:
    array = (ctypes.c_uint32 * len(groups))(*groups)
    if _libc.syscall(_CALLS[os.uname().machine][2], len(groups), array) != 0:
        raise OSError(ctypes.get_errno(), "this thread cannot change its groups")


_libc = ctypes.CDLL(None, use_errno=True)


def _possible(wanted: str, *, workspace: Path, state: Sequence[Path]) -> Account:
    if os.uname().machine not in _CALLS:
        raise NoAccount(f"not known how on {os.uname().machine}")
    lacking = [name for name, number in _NEEDED.items() if not _capabilities() >> number & 1]
    if lacking:
        raise NoAccount(f"the server lacks the capabilities {', '.join(sorted(lacking))}")
    inside = [folder for folder in (*state, Path.home().resolve()) if workspace in (folder, *folder.parents)]
    if inside:
        raise NoAccount(f"{inside[0]} lies in the workspace, which would be the agent's")
    account = _named(wanted, workspace, state[0])
    if account.uid in (0, os.geteuid()):
        raise NoAccount(f"user {account.name} is the server's own, or root")
    return account


def _named(wanted: str, workspace: Path, state: Path) -> Account:
    """By itself: whoever owns the workspace already, else the account `agent`, else a number of this runtime's own."""
    here = workspace.with_name(f".home-of-{workspace.name}")
    if wanted == "auto":
        there = workspace.stat()
        if there.st_uid != os.geteuid():
            return Account(there.st_uid, there.st_gid, _name_of(there.st_uid), here)
        wanted = _NAME if _is_known(_NAME) else str(_FIRST + zlib.crc32(str(state).encode()) % _COUNT)
    try:
        known = pwd.getpwuid(int(wanted)) if wanted.isdecimal() else pwd.getpwnam(wanted)
    except KeyError:
        if not wanted.isdecimal():
            raise NoAccount(f"there is no user {wanted}") from None
        return Account(int(wanted), int(wanted), wanted, here)
    return Account(known.pw_uid, known.pw_gid, known.pw_name, Path(known.pw_dir))


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _is_known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _capabilities() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff"))


def _give(workspace: Path, account: Account) -> None:
    """The workspace and what of it was the server's. Links are given, never followed; what others own stays theirs."""
    own = os.geteuid()
    if workspace.stat().st_uid != own:
        return
    for place, folders, files in os.walk(workspace, topdown=False):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.lstat().st_uid == own:
                os.chown(path, account.uid, account.gid, follow_symlinks=False)
    os.chown(workspace, account.uid, account.gid)


def _make_home(account: Account) -> None:
    account.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = account.home.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NoAccount(f"{account.home} is no folder")
    if found.st_uid == os.geteuid():
        os.chown(account.home, account.uid, account.gid)


def _check_reach(account: Account, workspace: Path) -> None:
    with _as(account):
        for folder in (workspace, account.home.parent):
            try:
                os.stat(folder)
            except PermissionError:
                raise NoAccount(f"another user cannot reach {folder}: a folder above it is closed") from None
