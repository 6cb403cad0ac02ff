"""Covers what a zygote has no business with: the orchestrator's data folder, but for the folders that runtimes get.

Done before anything is imported, in a mount namespace of the zygote's own, where runtimes are to have views of their
own anyway: no library that is imported outside of those can read the master key by its name. A zygote of root keeps the
right to make views, and with it the right to take this cover away; another user's does not.
"""

import os
from collections.abc import Sequence

from runtime.zygote import kernel
from runtime.zygote.view import Owner, map_user


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
