"""Calls of the kernel that Python's library does not have (3.11), as functions that raise OSError.

Used by the zygote before and after it forks. Nothing here remembers anything.
"""

import ctypes
import os
from collections.abc import Collection

PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_FOWNER = 3
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_SYS_ADMIN = 21

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_SILENT = 32768
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_RELATIME = 1 << 21

MNT_DETACH = 2

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
_CAPSET = {"x86_64": 126, "aarch64": 91, "riscv64": 91, "ppc64le": 184, "s390x": 185}
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def prctl(option: int, value: int = 0, third: int = 0) -> None:
    _checked(_libc.prctl(option, *(ctypes.c_ulong(word) for word in (value, third, 0, 0))), f"prctl {option}")


def set_dumpable(wanted: bool) -> None:
    """Whether other processes of this user may read this one's memory, environment and descriptors."""
    prctl(PR_SET_DUMPABLE, int(wanted))


def set_name(name: str) -> None:
    """What `ps` and `top` show of this process; 15 bytes at most."""
    _checked(_libc.prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0), "prctl PR_SET_NAME")


def unshare(flags: int) -> None:
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def sethostname(name: str) -> None:
    encoded = name.encode()
    _checked(_libc.sethostname(encoded, ctypes.c_size_t(len(encoded))), "sethostname")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, options)]
    done = _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _checked(done, f"mount {kind or 'bind'} on {target}")


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    _checked(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), f"unmount {target}")


def pivot_root(new: str, put_old: str) -> None:
    number = ctypes.c_long(_number_of(_PIVOT_ROOT))
    _checked(_libc.syscall(number, os.fsencode(new), os.fsencode(put_old)), "pivot_root")


def drop_capabilities(*, but: Collection[int] = ()) -> None:
    """Have none (but these), and be able to get no others by executing anything. Those that this process lacks already:
    fine, unless they are among these."""
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        last = int(file.read())
    try:
        for capability in set(range(last + 1)) - set(but):
            prctl(PR_CAPBSET_DROP, capability)
    except PermissionError:
        pass  # without CAP_SETPCAP the bounding set stays; NO_NEW_PRIVS makes it worth nothing
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    kept = sum(1 << capability for capability in but)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)  # effective, permitted, inheritable
    _checked(_libc.syscall(ctypes.c_long(_number_of(_CAPSET)), header, sets), "capset")


def _number_of(table: dict[str, int]) -> int:
    machine = os.uname().machine
    if machine not in table:
        raise OSError(f"the numbers of this kernel's calls on {machine} are not known here")
    return table[machine]
