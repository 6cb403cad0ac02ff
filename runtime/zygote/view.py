"""A private view of the machine for a forked runtime: its own processes, mounts and names, without executing anything.

The steps come from the orchestrator, which renders the same ones for bubblewrap where a runtime is executed, and mean
here what bubblewrap makes of them: a new root that is empty but for what is put into it, everything without set-user
bits and devices, folders of the system read-only. `child.py` calls `separate` and then `enter`.
"""

import contextlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.zygote import kernel

_NAMESPACES = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
_BASE = "/tmp"  # noqa: S108 - covered by a file system of ours, in a mount namespace of ours, before anything is written
_OLD, _NEW = "/oldroot", "/newroot"
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
#: What root may write below /proc although it has no capabilities.
_SETTINGS = ("sys", "sysrq-trigger", "irq", "bus")
_FLAGS = {
    "ro": kernel.MS_RDONLY,
    "nosuid": kernel.MS_NOSUID,
    "nodev": kernel.MS_NODEV,
    "noexec": kernel.MS_NOEXEC,
    "noatime": kernel.MS_NOATIME,
    "nodiratime": kernel.MS_NODIRATIME,
    "relatime": kernel.MS_RELATIME,
}


class UnknownStep(ValueError):
    """The orchestrator asked for a step that this runtime does not know."""


@dataclass(frozen=True)
class View:
    """What a runtime is to see. Paths are absolute; steps come parents first."""

    hostname: str
    steps: Sequence[Sequence[str]]

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> "View":
        return cls(str(fields["hostname"]), [[str(word) for word in step] for step in fields["steps"]])


@dataclass(frozen=True)
class Owner:
    """Who the namespaces are made by. Root needs no user namespace, anybody else is root in one while it is set up."""

    uid: int
    gid: int

    @property
    def needs_user_namespace(self) -> bool:
        return self.uid != 0


def separate() -> int:
    """New namespaces, and a child that is process 1 of them. Returns 0 in the child and its number in the caller.

    The caller must have one thread, and should end: it is neither inside nor outside. Raises OSError.
    """
    owner = Owner(os.geteuid(), os.getegid())
    if owner.needs_user_namespace:
        kernel.unshare(_NAMESPACES | kernel.CLONE_NEWUSER)
        # Root inside for now: the kernel gives terminals to nobody else.
        map_user(inside=Owner(0, 0), outside=owner)
    else:
        kernel.unshare(_NAMESPACES)
    return os.fork()


def enter(view: View, *, owner: Owner) -> None:
    """Replace this process's root by the view; `owner` is who called `separate`. Raises OSError, UnknownStep."""
    kernel.sethostname(view.hostname)
    mask = os.umask(0)
    proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
    try:
        steps = [_resolved(step) for step in view.steps]
        _step_aside()
        root = _Root(proc)
        for step in steps:
            root.take(step)
        _move_in()
    finally:
        os.close(proc)
        os.umask(mask)
    if owner.needs_user_namespace:
        # A second user namespace: what may be done to the mounts belonged to the first one.
        kernel.unshare(kernel.CLONE_NEWUSER)
        map_user(inside=owner, outside=Owner(0, 0))


def map_user(*, inside: Owner, outside: Owner) -> None:
    """In a new user namespace: `outside` is called `inside`, and nobody else is there. Raises OSError."""
    # The files belong to root while this process is not dumpable.
    kernel.set_dumpable(True)
    try:
        for name, line in (
            ("uid_map", f"{inside.uid} {outside.uid} 1\n"),
            ("setgroups", "deny\n"),
            ("gid_map", f"{inside.gid} {outside.gid} 1\n"),
        ):
            with open(f"/proc/self/{name}", "wb", buffering=0) as file:
                file.write(line.encode())
    finally:
        kernel.set_dumpable(False)


def _resolved(step: Sequence[str]) -> Sequence[str]:
    """The source's links followed now: later they would lead through the new root."""
    return [step[0], os.path.realpath(step[1], strict=True), step[2]] if step[0] in ("bind", "ro-bind") else step


def _step_aside() -> None:
    """Let the machine's root be at `_OLD`, and an empty one at `_NEW`."""
    kernel.mount(None, "/", None, kernel.MS_SILENT | kernel.MS_SLAVE | kernel.MS_REC)
    kernel.mount("tmpfs", _BASE, "tmpfs", kernel.MS_NODEV | kernel.MS_NOSUID)
    os.chdir(_BASE)
    os.mkdir("newroot", 0o755)
    kernel.mount("newroot", "newroot", None, kernel.MS_SILENT | kernel.MS_BIND | kernel.MS_REC)
    os.mkdir("oldroot", 0o755)
    kernel.pivot_root(_BASE, "oldroot")
    os.chdir("/")


def _move_in() -> None:
    """Let the new root be the only one."""
    kernel.mount(None, _OLD, None, kernel.MS_SILENT | kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.unmount(_OLD)
    old = os.open("/", os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.chdir(_NEW)
        kernel.pivot_root(".", ".")
        os.fchdir(old)
        kernel.unmount(".")
    finally:
        os.close(old)
    os.chdir("/")


class _Root:
    """The new root while it is filled. `proc` is a descriptor of the machine's own /proc."""

    def __init__(self, proc: int) -> None:
        self._proc = proc

    def take(self, step: Sequence[str]) -> None:
        match step:
            case ["bind", source, target]:
                self._bind(_OLD + source, _NEW + target, read_only=False)
            case ["ro-bind", source, target]:
                self._bind(_OLD + source, _NEW + target, read_only=True)
            case ["symlink", source, target]:
                _parents(_NEW + target)
                os.symlink(source, _NEW + target)
            case ["tmpfs", target]:
                _folder(_NEW + target)
                kernel.mount("tmpfs", _NEW + target, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")
            case ["proc", target]:
                self._processes(_NEW + target)
            case ["dev", target]:
                self._devices(_NEW + target)
            case ["remount-ro", target]:
                self._limit(_NEW + target.rstrip("/"), kernel.MS_RDONLY, alone=True)
            case _:
                raise UnknownStep(f"{step[0] if step else 'nothing'} is no step of a view")

    def _bind(self, source: str, target: str, *, read_only: bool, devices: bool = False) -> None:
        if stat.S_ISDIR(os.stat(source).st_mode):
            _folder(target)
        else:
            _file(target)
        kernel.mount(source, target, None, kernel.MS_SILENT | kernel.MS_BIND | kernel.MS_REC)
        flags = kernel.MS_NOSUID | (0 if devices else kernel.MS_NODEV) | (kernel.MS_RDONLY if read_only else 0)
        self._limit(target, flags)

    def _limit(self, target: str, flags: int, *, alone: bool = False) -> None:
        """Add `flags` to the mount at `target` and to all below it."""
        target = os.path.realpath(target)
        for place, has in self._mounts():
            first = place == target
            if not first and (alone or not place.startswith(target + "/")):
                continue
            if has | flags == has:
                continue
            try:
                kernel.mount(None, place, None, kernel.MS_SILENT | kernel.MS_BIND | kernel.MS_REMOUNT | has | flags)
            except PermissionError:
                # Below a folder that this user cannot enter; what cannot be reached needs no limit.
                if first:
                    raise

    def _mounts(self) -> Sequence[tuple[str, int]]:
        """Every mount that can be seen, in the order made, with its flags. Of several at one place the last counts."""
        with open(os.open("self/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc), "rb") as file:
            lines = [line.split(b" ") for line in file.read().splitlines()]
        found: dict[str, int] = {}
        for words in lines:
            place = os.fsdecode(words[4].replace(b"\\040", b" ").replace(b"\\011", b"\t").replace(b"\\012", b"\n"))
            place = place.replace("\\134", "\\")
            found.pop(place, None)
            found[place] = sum(_FLAGS.get(word, 0) for word in words[5].decode().split(","))
        return list(found.items())

    def _processes(self, target: str) -> None:
        _folder(target)
        kernel.mount("proc", target, "proc", kernel.MS_NOSUID | kernel.MS_NOEXEC | kernel.MS_NODEV)
        for name in _SETTINGS:
            path = f"{target}/{name}"
            if os.access(path, os.W_OK):
                self._bind(path, path, read_only=True)

    def _devices(self, target: str) -> None:
        _folder(target)
        kernel.mount("tmpfs", target, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")
        for name in _DEVICES:
            self._bind(f"{_OLD}/dev/{name}", f"{target}/{name}", read_only=False, devices=True)
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.symlink(f"/proc/self/fd/{number}", f"{target}/{name}")
        os.symlink("/proc/self/fd", f"{target}/fd")
        os.symlink("/proc/kcore", f"{target}/core")
        for name in ("shm", "pts"):
            os.mkdir(f"{target}/{name}", 0o755)
        options = "newinstance,ptmxmode=0666,mode=620"
        kernel.mount("devpts", f"{target}/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, options)
        os.symlink("pts/ptmx", f"{target}/ptmx")


def _parents(path: str) -> None:
    """Folders on the way, which belong to nobody else: entered by the owner only."""
    above = os.path.dirname(path)
    if not os.path.isdir(above):
        _parents(above)
        os.mkdir(above, 0o700)


def _folder(path: str) -> None:
    _parents(path)
    if not os.path.isdir(path):
        os.mkdir(path, 0o755)


def _file(path: str) -> None:
    _parents(path)
    if not os.path.lexists(path):
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
