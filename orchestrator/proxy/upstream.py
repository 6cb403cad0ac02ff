"""One HTTP/1.1 connection to a runtime.

It carries one exchange at a time; a byte that nobody asked for poisons it. Framing is read strictly here: by length, in
chunks (the only part left to a parser), or until the end. Whoever waits for an answer is told through `Asker`; which
connection a request gets is the pool's business.
"""

import asyncio
from typing import Protocol, cast

import httptools

from orchestrator.proxy.familiar import FamiliarAnswer, FamiliarAnswers
from orchestrator.proxy.headers import Answer, BadAnswer, read_answer
from orchestrator.proxy.limits import FrontLimits
from orchestrator.proxy.long_body import LONG, LongBody, Memory
from orchestrator.proxy.outbox import POSTED_BYTES, Outbox
from orchestrator.proxy.route import Route

_CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_INTERIM_LIMIT = 16
Data = bytes | memoryview


class Asker(Protocol):
    """Who waits for an answer on a connection. Nothing is called after `on_answer_end` or `on_lost`."""

    bodiless: bool  #: the answer has no body whatever its head says (HEAD)

    def on_interim(self, status: int) -> None: ...
    def on_answer(self, answer: Answer, *, until_close: bool) -> None: ...
    def on_whole_answer(self, answer: FamiliarAnswer, body: bytes) -> bool: ...  # False: rather piece by piece
    def on_answer_body(self, data: Data) -> None: ...
    def on_long_body(self, data: memoryview) -> bool: ...  # False: what it is a view of is still to be written from
    def on_answer_end(self) -> None: ...
    def on_pause_in_answer(self) -> None: ...  # all that has come so far was told
    def on_switch(self, answer: Answer, early: bytes) -> None: ...
    def on_lost(self, *, garbled: bool) -> None: ...
    def on_drain(self, *, paused: bool) -> None: ...
    def revoke(self) -> None: ...


class Pool(Protocol):
    """Where a connection comes from and goes back to."""

    limits: FrontLimits
    answers: FamiliarAnswers
    memory: Memory
    outbox: Outbox

    def put(self, connection: "UpstreamConnection") -> None: ...
    def forget(self, user: "UpstreamConnection") -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """One connection to a runtime. Made by the pool; `asker` is set for the length of one exchange."""

    def __init__(self, pool: Pool, route: Route) -> None:
        self.pool = pool
        self.memory = pool.memory
        self._answers = pool.answers
        self._outbox = pool.outbox
        self.route = route
        self.asker: Asker | None = None
        self.used = False  #: carried a whole exchange before: its death may only mean that the runtime tidied up
        self.idle = False  #: in the pool
        self.idle_since = 0.0
        self.last_bytes = 0.0
        self.transport: asyncio.Transport
        self._open = False
        self._discarded = False
        self.now = asyncio.get_running_loop().time
        self._reading_paused = False
        self._posted = -1  # the turn in which something of it was posted last
        self._reset()

    def _reset(self) -> None:
        self._head: bytes | None = b""  #: None while a body is read
        self._interims = 0
        self.left: int | None = None  #: bytes of a body that has a length
        self._chunks: httptools.HttpResponseParser | None = None
        self._until_close = False
        self.reusable = True

    # What the owner of the exchange does

    def ask(self, asker: Asker, head: bytes) -> None:
        """Begin an exchange by sending its head."""
        self.asker = asker
        self.last_bytes = self.now()
        self._posted = self._outbox.turn
        self._outbox.post(self.transport, head)

    def write(self, *parts: bytes) -> None:
        """Send more of the request. Nothing happens on a connection that is closing: `on_lost` tells."""
        if self.transport.is_closing():
            return
        if self._posted == self._outbox.turn:
            if sum(map(len, parts)) <= POSTED_BYTES:
                self._outbox.add(self.transport, b"".join(parts))
                return
            self._outbox.flush()
        self.transport.writelines(parts)

    def pause_reading(self) -> None:
        """The client reads slowly."""
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """The client has caught up."""
        if self._reading_paused and not self.transport.is_closing():
            self._reading_paused = False
            self.last_bytes = self.now()
            self.transport.resume_reading()

    def done(self) -> None:
        """As `release`, after an answer that came whole and left nothing of itself here."""
        self.asker = None
        self.used = True
        if self._reading_paused or self.transport.is_closing():
            self.release()
        else:
            self.pool.put(self)

    def release(self) -> None:
        """The exchange is over: back to the pool if it may carry another one, else closed."""
        self.asker = None
        if self.reusable and not self.transport.is_closing():
            self._reset()
            self.used = True
            self.resume_reading()
            self.pool.put(self)
        else:
            self.discard()

    def discard(self) -> None:
        """Close at once; nobody is told."""
        self.asker = None
        self._discarded = True
        self.pool.forget(self)
        if self._open:
            self.transport.abort()

    def revoke(self) -> None:
        if self.asker is None:
            self.discard()
        else:
            self.asker.revoke()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self.pool.limits.buffer_bytes)
        self._open = True
        if self._discarded:  # revoked while it was being opened; `connection_lost` follows
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.forget(self)
        asker, self.asker = self.asker, None
        if asker is None:
            return
        if self._until_close and self._head is None and exc is None:
            asker.on_answer_end()
        else:
            asker.on_lost(garbled=False)

    def pause_writing(self) -> None:
        if self.asker is not None:
            self.asker.on_drain(paused=True)

    def resume_writing(self) -> None:
        if self.asker is not None:
            self.asker.on_drain(paused=False)

    def data_received(self, data: bytes) -> None:
        asker = self.asker
        if asker is None:
            self.discard()  # it speaks unasked: whose answer would that be
            return
        if self._head == b"" and not self._interims:
            end = data.find(b"\r\n\r\n")
            known = self._answers.get(data[:end]) if end > 0 else None
            if (
                known is not None
                and len(data) - end - 4 == known.length
                and not asker.bodiless
                and asker.on_whole_answer(known, data[end + 4 :])
            ):
                return
        self.last_bytes = self.now()
        try:
            if self._head is None:
                self._body(data)
            else:
                self._read_head(self._head + data)
        except (BadAnswer, httptools.HttpParserError):
            asker = self.asker
            self.discard()
            if asker is not None:
                asker.on_lost(garbled=True)
        else:
            if self.asker is not None:
                self.asker.on_pause_in_answer()

    # Reading

    def _read_head(self, block: bytes) -> None:
        while True:
            end = block.find(b"\r\n\r\n")
            if end < 0:
                if len(block) > self.pool.limits.answer_head_bytes:
                    raise BadAnswer("the head is too large")
                self._head = block
                return
            head = block[:end]
            known = self._answers.get(head)
            answer = known.answer if known is not None else self._answers.learn(head, read_answer(head))
            if answer.status >= 200 or answer.status == 101:
                break
            block = block[end + 4 :]
            self._interims += 1
            if self._interims > _INTERIM_LIMIT:
                raise BadAnswer("too many interim answers")
            self._asker().on_interim(answer.status)
        if answer.status == 101:
            self.pause_reading()  # what comes next is no HTTP: whoever takes the transport over reads it
            self._asker().on_switch(answer, block[end + 4 :])
        else:
            # Of a long body a quarter of a megabyte may have come along: no copy of that.
            few = len(block) - end <= POSTED_BYTES
            self._begin_body(answer, block[end + 4 :] if few else memoryview(block)[end + 4 :])

    def _begin_body(self, answer: Answer, rest: Data) -> None:
        asker = self._asker()
        self._head = None
        self.reusable = answer.reusable
        if asker.bodiless or answer.status in (204, 304):
            self.left = 0
        elif answer.chunked:
            self._chunks = httptools.HttpResponseParser(self)
            self._chunks.feed_data(_CHUNKED_HEAD)
        elif answer.length is not None:
            self.left = answer.length
        else:
            self._until_close = True
            self.reusable = False
        asker.on_answer(answer, until_close=self._until_close)
        if self.asker is asker and (rest or self.left == 0):
            self._body(rest)
        if self.asker is asker and self.left is not None and self.left >= LONG:
            self._read_by(LongBody(self))

    def _body(self, data: Data) -> None:
        if self._chunks is not None:
            self._chunks.feed_data(data)
            return
        if self.left is None:
            self._asker().on_answer_body(data)
            return
        if len(data) > self.left:
            self.reusable = False  # more than it announced: this connection is not in step
            data = data[: self.left]
        self.left -= len(data)
        if data:
            self._asker().on_answer_body(data)
        if self.left == 0 and self.asker is not None:
            self.asker.on_answer_end()

    def _read_by(self, protocol: asyncio.BaseProtocol) -> None:
        if self.transport.is_closing():
            return
        self.transport.set_protocol(protocol)
        if not self._reading_paused:  # a transport asks when it begins to read how its protocol wants it
            self.transport.pause_reading()
            self.transport.resume_reading()

    def on_long_read(self, size: int) -> None:
        """So much more of a long body is in `memory`."""
        asker, left = self.asker, self.left or 0
        if asker is None:
            self.discard()
            return
        self.last_bytes = self.now()
        if size > left:
            self.reusable = False
            size = left
        self.left = left - size
        if not asker.on_long_body(self.memory.part(size)):
            self.memory.give_away()
        if self.left == 0 and self.asker is not None:
            self._read_by(self)
            self.asker.on_answer_end()

    # httptools callbacks, for chunks only

    def on_body(self, data: bytes) -> None:
        if self.asker is not None:
            self.asker.on_answer_body(data)

    def on_message_begin(self) -> None:
        if self.asker is None:
            raise BadAnswer("bytes after the last chunk")

    def on_message_complete(self) -> None:
        if self.asker is not None:
            self.asker.on_answer_end()

    def _asker(self) -> Asker:
        if self.asker is None:
            raise BadAnswer("an answer without a question")
        return self.asker
