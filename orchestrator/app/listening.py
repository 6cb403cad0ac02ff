"""The listening socket, bound before anything else is started: a port that is taken is told first."""

import errno
import ipaddress
import socket

from orchestrator.domain.errors import Misconfigured
from orchestrator.settings import OrchestratorSettings

_BACKLOG = 2048


def bind(settings: OrchestratorSettings) -> socket.socket:
    """The socket of the one port. Raises `Misconfigured` for a taken port, a bad address, or an address that other
    machines reach although the driver gives weak isolation."""
    if settings.worker_socket is not None:
        return _inherited(settings.worker_socket)
    return _bound(settings, settings.port, together=False)


def bind_together(settings: OrchestratorSettings) -> list[socket.socket]:
    """One socket for each worker, all of the same port, which the kernel spreads connections over. Raises as `bind`."""
    # Alone first: a port that takes several sockets of one user would not say that another program has it.
    _bound(settings, settings.port, together=False).close()
    listeners = [_bound(settings, settings.port, together=True)]
    port = listeners[0].getsockname()[1]
    try:
        while len(listeners) < settings.workers:
            listeners.append(_bound(settings, port, together=True))
        for listener in listeners:
            listener.listen(_BACKLOG)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bound(settings: OrchestratorSettings, port: int, *, together: bool) -> socket.socket:
    if not is_loopback(settings.host) and not settings.allow_non_loopback:
        raise Misconfigured(
            f"refusing to listen on {settings.host}: the {settings.driver} driver is for one trusted machine",
            hint="listen on 127.0.0.1, or set NESTOR_ALLOW_NON_LOOPBACK=1 behind a firewall of your own",
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if together:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, port))
        if not together:
            listener.listen(_BACKLOG)  # two programs may bind one port; the second one that listens is told
    except OSError as exc:
        listener.close()
        raise _refusal(settings, exc) from None
    return listener


def _inherited(number: int) -> socket.socket:
    """The socket that the process which keeps the workers has bound for this one."""
    try:
        return socket.socket(fileno=number)
    except OSError as exc:
        raise Misconfigured(
            f"NESTOR_WORKER_SOCKET: {number} is no open socket ({exc.strerror})",
            hint="leave it out: `nestor up --workers` sets it for the processes that it starts",
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refusal(settings: OrchestratorSettings, exc: OSError) -> Misconfigured:
    place = f"{settings.host}:{settings.port}"
    if exc.errno == errno.EADDRINUSE:
        return Misconfigured(f"{place} is taken by another program", hint="choose another with --port or NESTOR_PORT")
    if exc.errno == errno.EACCES:
        return Misconfigured(f"{place} needs more rights", hint="choose a port above 1023")
    return Misconfigured(f"cannot listen on {place} ({exc.strerror})", hint="check --host and NESTOR_HOST")
