"""A client's connection without what is read on it: its place among those of its address, what is written, how it ends.

What exchanges and sockets see of it is `front.py`. `protocol.py` reads on it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from orchestrator.proxy import answers
from orchestrator.proxy.context import FrontContext

_LINGER_SECONDS = 1.0  #: a client that still sends gets this long to read why it is being closed


class ClientConnection(HttpToolsProtocol, ABC):
    """uvicorn's protocol of one connection, counted, and closed so that its last answer arrives."""

    context: FrontContext  #: an attribute of the class that is made for it

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.address = ""
        self._counted = False  # among the connections of its address
        self._limits = self.context.limits
        self._outbox = self.context.upstreams.outbox
        self._posted = -1  # the turn in which something was posted last
        self._deaf = False  # nothing more of this client is read
        self._last_data = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=self._limits.buffer_bytes)
        self.address = self.client[0] if self.client else ""
        self._last_data = self.loop.time()
        self._counted = self.context.enter(self.address)
        if self._counted:
            self._arm()
        else:
            self._deaf = True
            transport.write(answers.render(answers.CROWDED, close=True))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._uncount()
        super().connection_lost(exc)

    def own(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """A task that the server's shutdown waits for, and that whoever asked for it cancels with the connection."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def hold_request(self, held: bool) -> None:
        """Stop or go on reading. Through `flow`, which knows whether it is paused already."""
        if self.transport.is_closing():
            return
        if held:
            self.flow.pause_reading()
        else:
            self.flow.resume_reading()

    def post(self, data: bytes) -> None:
        """Write `data` at the end of this turn of the loop."""
        self._posted = self._outbox.turn
        self._outbox.post(self.transport, data)

    def write_posted(self) -> None:
        """Write now what was posted in this turn: something else is to be done to the transport."""
        if self._posted == self._outbox.turn:
            self._outbox.flush()

    def detach(self) -> set[object]:
        """Give the transport away to a tunnel, which goes on counting the connection."""
        self._disarm()
        self._counted = False
        self.connections.discard(self)
        return cast(set[object], self.connections)

    def count_with(self, protocol: asyncio.BaseProtocol) -> None:
        """`protocol` may have the transport from here on: then the connection counts until that one has lost it."""
        if protocol is self or not self._counted:
            return
        self._counted = False
        context, address, lost = self.context, self.address, protocol.connection_lost

        def ended(exc: Exception | None) -> None:
            vars(protocol).pop("connection_lost")  # nothing holds the two together any more
            context.leave(address)
            lost(exc)

        protocol.connection_lost = ended  # type: ignore[method-assign]  # it is uvicorn's

    def refuse(self, refusal: answers.Refusal) -> None:
        """Answer and close."""
        if not self.transport.is_closing():
            self.write_posted()
            self.transport.write(answers.render(refusal, close=True))
            self.hang_up()

    def hang_up(self) -> None:
        """Close once everything is written.

        Bytes that still come are read and dropped for a moment: closing over unread bytes would make the kernel reset
        the connection, and the answer be lost with it.
        """
        self._deaf = True
        self._disarm()
        self.write_posted()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _uncount(self) -> None:
        if self._counted:
            self._counted = False
            self.context.leave(self.address)

    def _arm(self) -> None:
        period = min(self._limits.head_seconds, self._limits.idle_seconds) / 2
        self._timer = self.loop.call_later(period, self._check)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @abstractmethod
    def _check(self) -> None:
        """Called now and then while the timer is armed: what takes too long is ended. Arms it again."""
