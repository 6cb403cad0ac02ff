"""Connections to the runtime-facing listener: runtimes could open any number, and this process needs its descriptors.

There are so many at most, of one address a quarter of them (all of loopback's, which is every runtime that is a process
here), and one on which no request has begun for longer than any takes is closed. Who is turned away gets no answer: a
runtime keeps what it has to tell and comes again, and its log is read now and then in any case.
"""

import asyncio
import ipaddress
from collections import Counter
from typing import Any

import anyio
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from orchestrator.api.turnstile import CALLER, Caller
from orchestrator.app.descriptors import shares

_MOST_DROPPED = 1024 * 1024  # bytes of one connection that are read for nothing
SILENT_SECONDS = 45.0  # a runtime gives an exchange thirty


class Seats:
    """Of one listener. `most` connections at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._of: Counter[str] = Counter()

    def take(self, address: str) -> bool:
        """Count a connection; False, and nothing is counted, where there is no room for it."""
        each = self._most if _is_loopback(address) else max(1, self._most // 4)
        if self._taken >= self._most or self._of[address] >= each:
            return False
        self._taken += 1
        self._of[address] += 1
        return True

    def leave(self, address: str) -> None:
        """A counted one is over."""
        self._taken -= 1
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]


def seats() -> Seats:
    """As many as are the runtimes' share of the descriptors of this process."""
    return Seats(shares().runtimes)


class FacingConnection(HttpToolsProtocol):
    """uvicorn's protocol, counted. Use `counted` to get a class that knows its seats."""

    seats: Seats

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._address: str | None = None  # None: it has no seat
        self._begun = self._seen = 0  # requests, in all and at the last look
        self._timer: asyncio.TimerHandle | None = None
        self._over = anyio.Event()
        self._dropped: int | None = None  # bytes of bodies, since they are of no use

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not self.seats.take(address):
            transport.abort()
            return
        self._address = address
        self._timer = self.loop.call_later(SILENT_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._address is not None:
            self.seats.leave(self._address)
            self._address = None
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        self._begun += 1
        self.scope[CALLER] = Caller(self._over, self._unread)  # type: ignore[literal-required]  # a word of our own
        super().on_headers_complete()

    def shutdown(self) -> None:
        super().shutdown()
        self._over.set()

    def on_body(self, body: bytes) -> None:
        if self._dropped is None:
            super().on_body(body)
            return
        self._dropped += len(body)
        if self._dropped > _MOST_DROPPED:
            self.flow.pause_reading()

    def _unread(self) -> None:
        """What is refused is closed after its answer, and what it told is nobody's. It is read on for a while, as the
        end of a connection shows only to who reads it."""
        self.cycle.body.clear()
        self._dropped = 0
        self.flow.resume_reading()

    def _look(self) -> None:
        if self._begun == self._seen:
            self.transport.abort()
            return
        self._seen = self._begun
        self._timer = self.loop.call_later(SILENT_SECONDS, self._look)


def counted(places: Seats) -> type[FacingConnection]:
    """The protocol of a listener that has these."""

    class Counted(FacingConnection):
        seats = places

    return Counted


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
