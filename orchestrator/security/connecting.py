"""How the orchestrator connects: whether anybody listens, and for httpx a `ConnectError` on every loop where a
connection ends as it is made.

Under uvloop a socket that the other side has reset is None already when httpx's lower layers ask it for its peer, and
they let the `AttributeError` of that through. Taken for what it says, it ended a loop or told a user nonsense.
"""

import ipaddress
import select
import socket
import time
from functools import lru_cache
from typing import Final

import httpx

_KNOCK_SECONDS: Final = 0.5  #: a packet that was lost on a bridge that is being made is sent again after one


class Transport(httpx.AsyncHTTPTransport):
    """As its base, which takes the arguments. Raises `httpx.ConnectError` where the base raises `AttributeError`."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except AttributeError as exc:
            if not is_lost_connection(exc):
                raise
            raise httpx.ConnectError("the connection ended as it was made", request=request) from exc


def is_lost_connection(exc: AttributeError) -> bool:
    """Whether that is a socket that is gone, and no mistake in the code."""
    return exc.obj is None and exc.name in ("getpeername", "getsockname", "family")


@lru_cache(maxsize=4096)
def is_ipv4(host: str) -> bool:
    """Whether that is an IPv4 address as it is written, and no name."""
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


class Door:
    """Whether anybody listens at an address, for one who asks again and again until somebody does: a tenth of what a
    request costs that finds nobody."""

    def __init__(self, host: str, port: int) -> None:
        """`host` is an IPv4 address; of anything else it is said that somebody listens, and a request finds out."""
        self._place = (host, port) if is_ipv4(host) else None
        self._knock: socket.socket | None = None
        self._knocked = 0.0

    def is_open(self) -> bool:
        """Whether a connection is known to be taken. Never waits: what has no answer yet may have one the next time."""
        if self._place is None:
            return True
        try:
            if self._knock is None:
                self._knock, self._knocked = socket.socket(), time.monotonic()
                self._knock.setblocking(False)
                self._knock.connect_ex(self._place)
            answered = select.poll()
            answered.register(self._knock, select.POLLOUT)
            if not answered.poll(0) and time.monotonic() - self._knocked < _KNOCK_SECONDS:
                return False
            taken = self._knock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and _has_peer(self._knock)
        except OSError:  # no descriptor is left: the next time, perhaps
            taken = False
        self.close()
        return taken

    def close(self) -> None:
        """Leave. May be repeated."""
        if self._knock is not None:
            self._knock.close()
            self._knock = None


def _has_peer(knock: socket.socket) -> bool:
    try:
        knock.getpeername()
    except OSError:
        return False
    return True
