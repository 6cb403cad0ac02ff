"""The front behind nginx: the same protocol, on a socket that only nginx reaches.

nginx says whose request it passes on, since every connection is nginx's own. A client cannot say it: nginx puts its own
line in place of the client's. How many connections an address may have is nginx's to count; the context here has no
limit for it. Unused connections are nginx's to close: closed from here, one could be just when nginx sends a request on
it, which could not be sent again.
"""

import asyncio
from dataclasses import replace

from orchestrator.proxy.context import FrontContext
from orchestrator.proxy.familiar import FamiliarHeads
from orchestrator.proxy.head import Head
from orchestrator.proxy.limits import FrontLimits
from orchestrator.proxy.protocol import FrontProtocol

ADDRESS = b"x-nestor-address"
_IDLE_SECONDS = 24 * 3600.0  #: nginx closes them long before


class _Unfamiliar(FamiliarHeads):
    """A connection of nginx carries many clients' requests, and each head says whose: all are read."""

    __slots__ = ()

    def learn(self, raw: bytes, head: Head) -> None:
        """Nothing."""


class BehindProtocol(FrontProtocol):
    """One connection of nginx, which carries requests of many clients one after another."""

    limits: FrontLimits  #: those of the context, without the one of idle connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._limits, self.timeout_keep_alive = self.limits, int(_IDLE_SECONDS)
        self._familiar = _Unfamiliar()
        self._uncount()  # before it has an address

    def on_headers_complete(self) -> None:
        for number, (name, value) in enumerate(self.headers):
            if name == ADDRESS:
                self.address = value.decode("latin-1")
                self.client = (self.address, 0)  # what the application hears of who asks
                del self.headers[number]
                break
        super().on_headers_complete()

    def detach(self) -> set[object]:
        """To a tunnel, which will say that a connection of this address is over."""
        self.context.enter(self.address)
        return super().detach()


def behind_protocol(context: FrontContext) -> type[BehindProtocol]:
    """The class to give to `uvicorn.Config(http=...)` of a server that listens where only nginx connects."""
    limits = replace(context.limits, idle_seconds=_IDLE_SECONDS)
    return type("ContextualBehindProtocol", (BehindProtocol,), {"context": context, "limits": limits})
