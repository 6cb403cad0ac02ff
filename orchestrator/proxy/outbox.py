"""Small writes of one turn of the loop, done together at its end.

A write to a socket of this machine wakes whoever waits at its other end, and that costs more than the write. Requests
and answers that were read in one turn go out one right behind the other: who was woken by the first is still awake when
the last one comes. Nothing waits for more to come: the loop flushes before it looks for the next bytes.

Who posts for a transport sees to it that nothing is written to it, nor its end, before what was posted: it keeps the
number of the turn in which it posted, and flushes if that is not over.
"""

import asyncio

import structlog

log = structlog.get_logger(__name__)

POSTED_BYTES = 16 * 1024  #: more is worth a write of its own
_MOST = 64  #: letters; a turn of thousands of connections is no time that an answer should wait


class Outbox:
    """Of one loop. What was posted for a transport that closes meanwhile is dropped."""

    __slots__ = ("_letters", "turn")

    def __init__(self) -> None:
        self.turn = 0  #: of the letters that are not yet written
        self._letters: list[tuple[asyncio.Transport, bytes]] = []

    def post(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write `data` to `transport` at the end of this turn, or sooner."""
        letters = self._letters
        if not letters:
            asyncio.get_running_loop().call_soon(self.flush)
        letters.append((transport, data))
        if len(letters) >= _MOST:
            self.flush()

    def add(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write `data` behind what was posted to `transport` in this turn; in one with it if that was the last, and is
        short: of a body in very many chunks each one would copy all that came before it."""
        last, before = self._letters[-1]
        if last is transport and len(before) < POSTED_BYTES:
            self._letters[-1] = transport, before + data
        else:
            self._letters.append((transport, data))

    def flush(self) -> None:
        """Write what was posted, in that order."""
        letters, self._letters = self._letters, []
        self.turn += 1
        for transport, data in letters:
            try:
                if not transport.is_closing():
                    transport.write(data)
            except Exception as exc:  # noqa: BLE001 - the others' letters are none of its business
                log.error("proxy.not_written", error=type(exc).__name__)
                transport.abort()
