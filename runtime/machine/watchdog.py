"""Ends commands whose server died; a program of its own, with the standard library only.

`python -I -S watchdog.py USER STRAYS` becomes that user (`number:group`, or `same`), then reads marks of commands from
standard input: `+MARK` when one starts, `-MARK` when it has ended. When standard input ends, because the server closed
it or was killed, everything with a mark that is left is killed by what the file STRAYS knows.
"""

import os
import runpy
import signal
import sys


def main() -> None:
    """Returns when the server is gone and nothing of its commands runs."""
    for shrugged_off in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(shrugged_off, signal.SIG_IGN)
    user, strays = sys.argv[1:]
    kill_marked = runpy.run_path(strays)["kill_marked"]
    if user != "same":
        number, _, group = user.partition(":")
        os.setgroups([])
        os.setgid(int(group))
        os.setuid(int(number))
    left: set[str] = set()
    for line in sys.stdin:
        mark = line[1:].strip()
        if line.startswith("+"):
            left.add(mark)
        else:
            left.discard(mark)
    for mark in left:
        kill_marked(mark)


if __name__ == "__main__":
    main()
