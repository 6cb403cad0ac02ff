"""The socket that the server listens on, and whether that address may be served without a key.

`python -m runtime` makes the socket itself, so that a port in use is one clear line before anything is started.
"""

import ipaddress
import socket
import sys
from collections.abc import Sequence

BACKLOG = 2048
EVERYWHERE, LOOPBACK = "0.0.0.0", "127.0.0.1"


class CannotListen(Exception):
    """The address cannot be listened on; the text says why in one line."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on the first address of the host; port 0 takes a free one. Raises CannotListen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as exc:
        raise CannotListen(f"cannot listen on {host}:{port}: {exc}") from exc
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(address)
        server.listen(BACKLOG)
    except OSError as exc:
        server.close()
        raise CannotListen(f"cannot listen on {host}:{port}: {exc.strerror}; choose another with --port") from exc
    return server


def inherited(descriptor: int) -> socket.socket:
    """The listening socket that the parent process opened. Raises CannotListen when the descriptor is not one."""
    try:
        server = socket.socket(fileno=descriptor)
        listening = server.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        raise CannotListen(f"--listen-fd {descriptor} is not a socket: {exc.strerror}") from exc
    if not listening:
        raise CannotListen(f"--listen-fd {descriptor} is a socket that does not listen")
    server.set_inheritable(False)
    return server


def is_private(server: socket.socket) -> bool:
    """Whether only this machine can connect: a unix socket or a loopback address."""
    if server.family == socket.AF_UNIX:
        return True
    address: Sequence[str] = server.getsockname()
    return ipaddress.ip_address(address[0]).is_loopback


def port_of(server: socket.socket) -> int | None:
    """The TCP port, None for a unix socket."""
    if server.family == socket.AF_UNIX:
        return None
    port: int = server.getsockname()[1]
    return port


def failed(exc: Exception, status: int) -> int:
    print(f"python -m runtime: {exc}", file=sys.stderr)  # noqa: T201 # a person started this at a terminal
    return status
