"""The first instructions of a runtime's process: wait for leave, then become the command. Run as a script, by path.

The process driver starts it with the number of a pipe, and writes one byte there once the claim on disk names this
process. If the orchestrator dies before, the pipe ends and so does this process: there is never one that no claim
names. It imports the standard library only and runs without `site`, because it stands between a caller and an answer.

Arguments: the pipe to wait on, the pipe to report a failed start on, `plain` or `namespaced`, then the command.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Sequence

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_OOM_SCORE = b"500"  # the kernel takes a runtime before it takes the orchestrator


def _settle(mode: str) -> None:
    # Python ignores SIGPIPE, the orchestrator may have been started with SIGHUP ignored, and both would be inherited.
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(_OOM_SCORE)
    if mode == "plain":
        # Daemonised grandchildren come back to this process, so that the tree below it stays the whole truth.
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def main(arguments: Sequence[str]) -> int:
    leave, report, mode, command = int(arguments[0]), int(arguments[1]), arguments[2], list(arguments[3:])
    if not os.read(leave, 1):
        return 0
    os.close(leave)
    os.set_inheritable(report, False)  # closes when the command is running: that is how the driver learns of it
    _settle(mode)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted here
    except OSError as exc:
        os.write(report, (exc.strerror or "unknown error").encode())
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
