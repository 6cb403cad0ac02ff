"""The listening socket, bound before anything else is started: a port that is taken is told first."""

import errno
import ipaddress
import socket

from orchestrator.domain.errors import Misconfigured
from orchestrator.settings import OrchestratorSettings


def bind(settings: OrchestratorSettings) -> socket.socket:
    """The socket of the one port. Raises `Misconfigured` for a taken port, a bad address, or an address that other
    machines reach although the driver gives weak isolation."""
    if not is_loopback(settings.host) and not settings.allow_non_loopback:
        raise Misconfigured(
            f"refusing to listen on {settings.host}: the {settings.driver} driver is for one trusted machine",
            hint="listen on 127.0.0.1, or set NESTOR_ALLOW_NON_LOOPBACK=1 behind a firewall of your own",
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except OSError as exc:
        listener.close()
        raise _refusal(settings, exc) from None
    return listener


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
