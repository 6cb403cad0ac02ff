"""What a process does between being forked from the zygote and being a runtime, in the order in which it must be done.

It waits until the claim on disk names it, so that whoever comes after a crash of the orchestrator finds every runtime.
From then on nothing of the zygote is left in it but memory: not a descriptor, not a variable, not a signal's handler.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from runtime.zygote import kernel, view
from runtime.zygote.request import BadRequest, Descriptors, Request, parse

#: Serves until a signal; takes the arguments of `python -m runtime`, answers the exit status.
Serve = Callable[[Sequence[str]], int]


class _NotWanted(Exception):
    """The orchestrator went away before it had noted this process."""


def live(message: bytes, received: Sequence[int], serve: Serve, kept: Mapping[str, str]) -> NoReturn:
    """Become the runtime that the message asks for, and end with it. `kept` are variables that imports have set."""
    status = 1
    try:
        status = _live(message, received, serve, kept)
    except BadRequest as error:
        print(f"zygote: {error}", file=sys.stderr)  # noqa: T201 # the zygote's log
    except BaseException:  # noqa: BLE001 - nothing may return into the zygote's loop
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _live(message: bytes, received: Sequence[int], serve: Serve, kept: Mapping[str, str]) -> int:
    os.setsid()
    _default_signals()
    request, descriptors = parse(message, received)
    _standard(descriptors.log)
    _close_all_but(descriptors.all)
    _become({**kept, **request.environment}, request.mark)
    try:
        owner = view.Owner(os.geteuid(), os.getegid())
        _announce(request, descriptors)
        _settle(request, owner)
    except _NotWanted:
        return 0
    except Exception as error:  # noqa: BLE001 - whatever it was, who started this runtime is told
        with contextlib.suppress(OSError):
            os.write(descriptors.report, f"{type(error).__name__}: {error}"[:900].encode())
        return 127
    if request.view is not None:
        server = os.fork()
        if server:
            return _first_of_namespace(server, descriptors)
    os.close(descriptors.report)
    os.close(descriptors.log)
    gc.enable()
    arguments = ["--listen-fd", str(descriptors.listener)]
    if descriptors.key is not None:
        arguments += ["--boot-key-fd", str(descriptors.key)]
    return _served(serve, arguments)


def _default_signals() -> None:
    """As they are when an interpreter begins."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            # The two that every Python ignores from its start: writing to who is gone is an error, not the end.
            ignored = number in (signal.SIGPIPE, signal.SIGXFSZ)
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _standard(log: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for number, source in enumerate((null, log, log)):
        os.dup2(source, number)
    os.close(null)


def _close_all_but(kept: Iterable[int]) -> None:
    keep = {0, 1, 2, *kept}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with contextlib.suppress(OSError):  # the one with which the folder was read
                os.close(int(name))
    for descriptor in keep - {0, 1, 2}:
        os.set_inheritable(descriptor, False)


def _become(environment: dict[str, str], mark: str) -> None:
    os.environ.clear()  # first, so that the library points at nothing of what is overwritten now
    _show(mark)
    os.environ.update(environment)
    tempfile.tempdir = None  # chosen by an environment that is gone
    time.tzset()
    os.umask(0o077)
    with contextlib.suppress(OSError):
        kernel.set_name("runtime")


def _show(mark: str) -> None:
    """Write the mark where the kernel reads this process's environment: that was the zygote's, at its execution."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    start, end = int(fields[47]), int(fields[48])  # fields 50 and 51 of the line
    room = end - start
    shown = os.fsencode(mark) + b"\0"
    if start == 0 or len(shown) > room:
        raise OSError(f"there is no room of {len(shown)} bytes for the mark of this process")
    ctypes.memset(start, 0, room)
    ctypes.memmove(start, shown, len(shown))


def _announce(request: Request, descriptors: Descriptors) -> None:
    """Tell who this runtime will be outside, and wait for leave. In namespaces, that is a child; this process ends."""
    if request.view is not None:
        first = view.separate()
        if first:
            os.write(descriptors.report, f"{first}\n".encode())
            os._exit(0)
    else:
        os.write(descriptors.report, f"{os.getpid()}\n".encode())
    if not os.read(descriptors.leave, 1):
        raise _NotWanted
    os.close(descriptors.leave)


def _settle(request: Request, owner: view.Owner) -> None:
    if request.view is not None:
        view.enter(request.view, owner=owner)
        os.setsid()
    else:
        # Daemonised grandchildren come back to this process, so that the tree below it stays the whole truth.
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    os.chdir(request.directory)
    _change_user(request)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if request.view is not None:
        kernel.drop_capabilities()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kernel.set_dumpable(False)  # after the change of user, which would undo it


def _change_user(request: Request) -> None:
    if request.gid is not None and request.gid != os.getegid():
        os.setgroups([])
        os.setresgid(request.gid, request.gid, request.gid)
    if request.uid is not None and request.uid != os.geteuid():
        os.setresuid(request.uid, request.uid, request.uid)


def _first_of_namespace(server: int, descriptors: Descriptors) -> int:
    """Process 1: takes in orphans until the server ends, and ends as it did. The kernel then kills all others."""
    for descriptor in descriptors.all:
        with contextlib.suppress(OSError):  # `leave` is closed already
            os.close(descriptor)
    while True:
        pid, status = os.wait()
        if pid == server:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _served(serve: Serve, arguments: Sequence[str]) -> int:
    try:
        return serve(arguments)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
