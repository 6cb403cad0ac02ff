"""Covers what a zygote has no business with: the orchestrator's data folder, but for the folders that runtimes get.

Done before anything is imported, in a mount namespace of the zygote's own, where runtimes are to have views of their
own anyway: no library that is imported outside of those can read the master key by its name. What is covered stays so:
the rights that are left are over what is made later. Only where root cannot make views that way does it keep the right
over all mounts, and with it the one to take this cover away.
"""

import os
from collections.abc import Mapping, Sequence

from runtime.zygote import kernel
from runtime.zygote.view import Owner, map_user, separate

#: What views take, where they are made with rights over the machine.
_FOR_VIEWS = (
    kernel.CAP_SYS_ADMIN,
    kernel.CAP_SETUID,
    kernel.CAP_SETGID,
    kernel.CAP_SETPCAP,
    kernel.CAP_DAC_OVERRIDE,
    kernel.CAP_CHOWN,
    kernel.CAP_FOWNER,
)


def cover(folders: Sequence[str], files: Sequence[str], kept: Sequence[str]) -> None:
    """Show `folders` empty but for what is `kept` of them, and `files` empty. Raises OSError."""
    owner = Owner(os.geteuid(), os.getegid())
    if owner.needs_user_namespace:
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
        map_user(inside=owner, outside=owner)
    else:
        kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount(None, "/", None, kernel.MS_SILENT | kernel.MS_SLAVE | kernel.MS_REC)
    # Held open, because their names lead nowhere for a moment.
    opened = [(path, os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) for path in kept]
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    for path in files:
        kernel.mount("/dev/null", path, None, kernel.MS_SILENT | kernel.MS_BIND)
    for path in folders:
        kernel.mount("tmpfs", path, "tmpfs", flags, "mode=0700")
    for path, descriptor in opened:
        os.makedirs(path, mode=0o700, exist_ok=True)
        kernel.mount(f"/proc/self/fd/{descriptor}", path, None, kernel.MS_SILENT | kernel.MS_BIND | kernel.MS_REC)
        os.close(descriptor)
    for path in folders:
        read_only = flags | kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY
        kernel.mount(None, path, None, kernel.MS_SILENT | read_only)
    if owner.needs_user_namespace:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.drop_capabilities()
    elif _can_make_views_from_inside():
        _enter_user_namespace()
    else:
        kernel.drop_capabilities(but=_FOR_VIEWS)


def _enter_user_namespace() -> None:
    """Everybody is called there as here. All rights, but over nothing that is outside: the mounts of now, the processes
    of others, the machine. Raises OSError."""
    maps = {name: _unchanged(f"/proc/self/{name}") for name in ("uid_map", "gid_map")}
    here, entered = os.getpid(), os.pipe()
    outside = os.fork()  # it keeps the rights that such a map takes
    if outside == 0:
        os._exit(_mapped(here, maps, *entered))
    os.close(entered[0])
    try:
        kernel.unshare(kernel.CLONE_NEWUSER)
        os.write(entered[1], b"e")
    finally:
        os.close(entered[1])
        _, status = os.waitpid(outside, 0)
    if status != 0:
        raise PermissionError("the users of this machine could not be named in a user namespace")


def _mapped(process: int, maps: Mapping[str, str], entered: int, other_end: int) -> int:
    os.close(other_end)
    if not os.read(entered, 1):
        return 1
    try:
        for name, lines in maps.items():
            with open(f"/proc/{process}/{name}", "wb", buffering=0) as file:
                file.write(lines.encode())
    except OSError:
        return 1
    return 0


def _unchanged(path: str) -> str:
    with open(path) as file:
        spans = [line.split() for line in file]
    return "".join(f"{first} {first} {count}\n" for first, _, count in spans)


def _can_make_views_from_inside() -> bool:
    """Not where /proc is masked, as in most containers, or user namespaces are forbidden. Tried by a child."""
    child = os.fork()
    if child == 0:
        os._exit(_tried())
    return os.waitpid(child, 0)[1] == 0


def _tried() -> int:
    try:
        _enter_user_namespace()
        first = separate()
        if first == 0:
            kernel.mount(None, "/", None, kernel.MS_SILENT | kernel.MS_PRIVATE | kernel.MS_REC)
            kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
            return 0
        return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    except OSError:
        return 1
