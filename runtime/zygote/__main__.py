"""`python -m runtime.zygote`: executed by the process driver, with an empty environment, in a session of its own.

It gets a listening unix socket by its number, imports what runtimes need, and forks one for each request. It never has
a key: a runtime's init key passes it in a pipe that only the child reads. `--probe` forks nothing: it tries out whether
this host lets a process isolate itself as the steps on standard input say.
"""

import argparse
import contextlib
import json
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from runtime.zygote import kernel, view
from runtime.zygote.cover import cover

_OOM_SCORE = b"500"  # the kernel takes runtimes, and this process, before it takes the orchestrator


def main(
    arguments: Sequence[str] | None = None,
    *,
    serve: Callable[[Sequence[str]], int] | None = None,
    preload: Callable[[], Sequence[str]] | None = None,
) -> int:
    """Serve until nobody needs it. Another `serve` than the runtime's is for tests of the driver."""
    parser = argparse.ArgumentParser(prog="python -m runtime.zygote", description="Forks runtimes.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--socket-fd", type=int, metavar="N", help="inherited listening unix socket (SOCK_SEQPACKET)")
    what.add_argument("--probe", action="store_true", help="try the isolation described on standard input")
    parser.add_argument("--folder", metavar="PATH", help="whose it is; only shown, in lists of processes")
    parser.add_argument("--cover", action="append", default=[], metavar="FOLDER", help="show this folder empty")
    parser.add_argument("--cover-file", action="append", default=[], metavar="FILE", help="show this file empty")
    parser.add_argument("--keep", action="append", default=[], metavar="FOLDER", help="but not this one below it")
    options = parser.parse_args(arguments)
    if options.probe:
        return probe(json.load(sys.stdin))
    if options.cover or options.cover_file:
        cover(options.cover, options.cover_file, options.keep)
    harden()
    listener = socket.socket(fileno=options.socket_fd)
    listener.set_inheritable(False)
    from runtime.zygote.server import Zygote  # here, because the probe does without

    executed_with = set(os.environ)
    if serve is None:
        from runtime.__main__ import main as serve_runtime

        serve = serve_runtime
    if preload is None:
        from runtime.zygote.preload import preload as preload_runtime

        preload = preload_runtime
    missing = preload()
    # Libraries set variables for themselves when they are imported; a runtime would find them gone.
    kept = {name: value for name, value in os.environ.items() if name not in executed_with}
    Zygote(listener, serve, kept=kept, about={"missing": missing, "modules": len(sys.modules)}).run()
    return 0


def harden() -> None:
    """Nobody of this user reads this process's memory; its children inherit the rest."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    # Orphans of runtimes come here instead of to process 1, so that they are found as long as this process lives.
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(_OOM_SCORE)
    kernel.set_dumpable(False)  # last: the file above belongs to root from now on
    with contextlib.suppress(OSError):
        kernel.set_name("zygote")


def probe(fields: dict[str, Any]) -> int:
    """0 when a process could isolate itself here; else 1, and why on standard error."""
    try:
        wanted = view.View.parse(fields)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        owner = view.Owner(os.geteuid(), os.getegid())
        first = view.separate()
        if first == 0:
            os._exit(_entered(wanted, owner))
        _, status = os.waitpid(first, 0)
        return os.waitstatus_to_exitcode(status)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)  # noqa: T201 # the driver reads it
        return 1


def _entered(wanted: view.View, owner: view.Owner) -> int:
    try:
        view.enter(wanted, owner=owner)
        kernel.drop_capabilities()
        os.stat("/proc/1")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201 # as above
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
