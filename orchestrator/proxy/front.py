"""The client's side of a connection, as those who serve a request on it see it. `protocol.py` is both."""

import asyncio
from collections.abc import Coroutine
from typing import Protocol

from orchestrator.proxy import answers
from orchestrator.proxy.context import FrontContext


class Front(Protocol):
    """The client's side of an exchange."""

    context: FrontContext
    transport: asyncio.Transport
    address: str

    def own(self, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
        """A task that shutdown waits for."""
        ...

    def hold_request(self, held: bool) -> None:
        """Stop or go on reading the client's body."""
        ...

    def post(self, data: bytes) -> None:
        """Write what is small at the end of this turn of the loop."""
        ...

    def write_posted(self) -> None:
        """Write it now: to be called before anything else is done to the transport."""
        ...

    def exchange_over(self, *, keep_alive: bool) -> None:
        """Called once, when the last byte of the answer is written."""
        ...


class SocketFront(Front, Protocol):
    """The client's side of a socket that is being opened."""

    def detach(self) -> set[object]:
        """Give the transport away; answers the set of connections that shutdown looks at."""
        ...

    def refuse(self, refusal: answers.Refusal) -> None:
        """Answer in HTTP and close."""
        ...

    def hang_up(self) -> None:
        """Close once everything is written."""
        ...
