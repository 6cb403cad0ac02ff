"""The words between the process driver and a zygote: one message there, one back, on a unix socket of whole messages.

`process_zygote.py` calls it. A message is a verb, a line's end and JSON; descriptors travel beside it. It knows the
socket and the bytes, and neither when a zygote is wanted nor what a runtime is.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LARGEST_ANSWER = 64 * 1024
_BACKLOG = 64


class ZygoteGone(Exception):
    """No zygote answers there, or not in time."""


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A path to the same place that is short enough for a socket's address, however deep the folder lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path) -> socket.socket:
    """A socket at `path` that its owner alone can connect to. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # The rights of the file come from the socket's own until it is bound: nobody may slip in between.
        os.fchmod(listener.fileno(), 0o600)
        with _short(path) as address:
            listener.bind(address)
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(path: Path, *, seconds: float) -> socket.socket:
    """A connection; it may still wait for a zygote that is just beginning. Raises ZygoteGone."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(seconds)
        with _short(path) as address:
            connection.connect(address)
    except OSError as exc:
        connection.close()
        raise ZygoteGone(f"no zygote listens at {path.name} ({type(exc).__name__})") from exc
    return connection


def tell(connection: socket.socket, verb: str, body: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send without waiting for the answer. Raises ZygoteGone."""
    try:
        socket.send_fds(connection, [verb.encode() + b"\n" + json.dumps(body).encode()], list(descriptors))
    except OSError as exc:
        raise ZygoteGone(f"the zygote took no message ({type(exc).__name__})") from exc


def heard(connection: socket.socket) -> Mapping[str, Any]:
    """The next answer, waited for as long as the connection's timeout says. Raises ZygoteGone."""
    try:
        content = connection.recv(_LARGEST_ANSWER)
    except OSError as exc:
        raise ZygoteGone(f"the zygote gave no answer ({type(exc).__name__})") from exc
    try:
        answer = json.loads(content)
    except ValueError:
        raise ZygoteGone("the zygote hung up" if not content else "the zygote said nothing that is known") from None
    if not isinstance(answer, dict):
        raise ZygoteGone("the zygote said nothing that is known")
    return answer


def ask(
    path: Path, verb: str, body: Mapping[str, Any], descriptors: Sequence[int] = (), *, seconds: float
) -> Mapping[str, Any]:
    """One question on a connection of its own. Raises ZygoteGone."""
    with connect(path, seconds=seconds) as connection:
        tell(connection, verb, body, descriptors)
        return heard(connection)
