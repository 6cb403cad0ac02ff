"""`python -m runtime`: one agent server in one process.

Reads the command line and the settings, refuses what would be open to strangers, hardens the process, and serves until
SIGTERM or SIGINT, which end it cleanly (shells included) with exit status 0. Exit status 1: cannot listen; 2: wrong use
or configuration; 3: what is stored could not be loaded, and the log says why.

Where the command line says where to listen, that is done before the rest is imported, which is most of what a start
takes: whoever connects meanwhile is answered as soon as there is somebody to answer, and need not try again and again.
"""

import argparse
import gc
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from runtime.listening import EVERYWHERE, LOOPBACK, CannotListen, failed, inherited, listen


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal. Returns the exit status."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    options = _options(arguments)
    try:
        server = _listening(options)
    except CannotListen as exc:
        return failed(exc, 1)
    except OSError as exc:
        return failed(exc, 2)
    collects = gc.isenabled()
    gc.disable()  # what is imported stays: the server looks through it once, when it is up
    try:
        from runtime.program import run

        return run(options, server)
    finally:
        if collects:
            gc.enable()


def _listening(options: argparse.Namespace) -> socket.socket | None:
    """None where only the settings say where."""
    if options.listen_fd is not None:
        return inherited(options.listen_fd)
    return listen(options.host, options.port) if options.host else None


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.reload and (options.boot_key_fd is not None or options.boot_key_file is not None):
        parser.error("--reload starts the server several times, and an init key is good for one start")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runtime", description="Agent server for one runtime.")
    parser.add_argument(
        "--host", help=f"address to listen on (default {EVERYWHERE}, or {LOOPBACK} where no session key is configured)"
    )
    parser.add_argument(
        "--port", type=_port, default=8000, help="port to listen on, 0 for a free one (default %(default)s)"
    )
    parser.add_argument(
        "--listen-fd", type=int, metavar="N", help="inherited listening socket, instead of host and port"
    )
    parser.add_argument(
        "--reload", action="store_true", help="start anew when a file of the package changes; for development"
    )
    key = parser.add_mutually_exclusive_group()
    key.add_argument(
        "--boot-key-fd", type=int, metavar="N", help="start dormant; the init key comes as a line on this descriptor"
    )
    key.add_argument(
        "--boot-key-file", type=Path, metavar="PATH", help="start dormant; the init key is this file's first line"
    )
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    # uvicorn takes both signals while it serves and raises them again after a clean end, which then is a success.
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
