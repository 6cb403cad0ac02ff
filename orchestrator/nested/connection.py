"""One HTTP/1.1 connection to a runtime, for requests of ours whose answers are small: one at a time, none sent twice.

`exchange.py` keeps two of them for as long as somebody asks, `binding.py` proves on one whom it has there. A client
library's connection, with its pools, hooks and its second parser, took four times the processor time; of redirects,
cookies, environment and encodings a runtime knows nothing. Answers are parsed by httptools, as everywhere here.
"""

import asyncio
import re
import select
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Self, cast

import httptools

Content = bytes | AsyncIterator[bytes]
_LONGEST_HEAD: Final = 64 * 1024  #: of an answer, and of what comes between and after the pieces of its body
_SHORT: Final = 1024
_NO_LINE: Final = re.compile(r"[\r\n\0]")


class Unanswered(Exception):
    """There is no answer, or no whole one."""


class NotConnected(Unanswered):
    """Nobody took the connection: nothing was sent."""


class Lost(Unanswered):
    """The connection ended before its answer did."""


class Garbled(Unanswered):
    """What came is no answer."""


class TooLarge(Unanswered):
    """The answer is larger than its reader takes."""


class Connection(asyncio.Protocol):
    """Made by `to`. After any `Unanswered`, and where an ask was cancelled, it is closed."""

    def __init__(self, host: bytes) -> None:
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._is_lost = False
        self._begin(0, reads=True)

    @classmethod
    async def to(cls, host: str, port: int) -> Self:
        """Raises `NotConnected`."""
        loop = asyncio.get_running_loop()
        named = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            _, connection = await loop.create_connection(lambda: cls(named.encode()), host, port)
        except OSError as exc:
            raise NotConnected(type(exc).__name__) from exc
        return connection

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent on it: all of the last one was, nothing has come unasked, and no end, as
        far as this machine knows."""
        transport = self._transport
        return self._is_open and transport is not None and _is_at_rest(transport)

    @property
    def _is_open(self) -> bool:
        return not self._is_lost and self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """At once. May be repeated."""
        self._is_lost = True
        if self._transport is None:
            return
        if self._answer is None and not self._transport.get_write_buffer_size():
            self._transport.close()
        else:  # what is not sent yet would be waited for
            self._transport.abort()

    async def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        content: Content | None = None,
        *,
        longest: int,
        reads: bool = True,
    ) -> tuple[int, bytes]:
        """Status and body of the answer; without `reads` the body only where it is known to be short, and the
        connection is closed otherwise. Raises `Unanswered`, what `content` raises, and ValueError, with nothing sent,
        for a target or header that would be more than one line."""
        head = _head(method, target, self._host, headers)
        if not self.is_usable:
            raise Lost("the connection had ended")
        self._begin(longest, reads=reads)
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._answer = answer
        try:
            if content is None or isinstance(content, bytes):
                length = b"Content-Length: %d\r\n" % len(content or b"") if content or method != "GET" else b""
                self._write(b"%b%b\r\n%b" % (head, length, content or b""))
            else:
                self._write(head + b"Transfer-Encoding: chunked\r\n\r\n")
                await self._send_pieces(content, answer)
            return await answer
        except BaseException:
            self.close()
            raise
        finally:
            self._answer = None

    async def _send_pieces(self, content: AsyncIterator[bytes], answer: "asyncio.Future[tuple[int, bytes]]") -> None:
        async for piece in content:
            if piece and not answer.done():
                self._write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await self._writable.wait()
            if answer.done():  # it is answered early: the rest is not wanted
                self.close()
                return
        self._write(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        if self._is_open:
            cast(asyncio.Transport, self._transport).write(data)

    def _begin(self, longest: int, *, reads: bool) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._longest, self._reads = longest, reads
        self._idle_bytes = 0  #: that came since the body has grown
        self._in_body = self._is_framed = self._short = False
        self._body = bytearray()

    def _end(self, told: tuple[int, bytes] | Unanswered) -> None:
        answer, self._answer = self._answer, None
        self._writable.set()
        if answer is None or answer.done():
            return
        if isinstance(told, Unanswered):
            answer.set_exception(told)
            answer.exception()  # whoever waits for it may be cancelled in this very moment
        else:
            answer.set_result(told)

    # of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody asked for it
            self.close()
            return
        before = len(self._body)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._fail(Garbled(type(exc).__name__))
            return
        self._idle_bytes = 0 if len(self._body) > before else self._idle_bytes + len(data)
        if self._idle_bytes > _LONGEST_HEAD:
            self._fail(Garbled("what surrounds the body is too long"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._writable.set()
        if self._in_body and not self._is_framed and exc is None:  # then its end is the connection's
            self._end((self._parser.get_status_code(), bytes(self._body)))
        self._end(Lost("the connection ended"))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # of the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            self._is_framed = True
            self._short = value.isdigit() and len(value) <= len(str(_SHORT)) and int(value) <= _SHORT
        elif name == b"transfer-encoding":
            self._is_framed = True

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            self._is_framed = self._short = False
            return
        self._in_body = True
        if not self._reads and not self._short:
            self._end((self._parser.get_status_code(), b""))
            self.close()

    def on_body(self, data: bytes) -> None:
        if self._answer is None:
            return
        self._body += data
        if len(self._body) > self._longest:
            self._fail(TooLarge("the answer is too large"))

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._answer is None:
            return
        if not self._parser.should_keep_alive():
            self.close()
        self._end((status, bytes(self._body)))

    def on_message_begin(self) -> None:
        if self._in_body:  # a second answer
            self.close()

    def _fail(self, why: Unanswered) -> None:
        self._end(why)
        self.close()


def _head(method: str, target: str, host: bytes, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if any(_NO_LINE.search(line) for line in lines):
        raise ValueError("a target or header of a request is more than one line")
    first, *rest = lines
    return b"\r\n".join([first.encode(), b"Host: " + host, *(line.encode() for line in rest), b""])


def _is_at_rest(transport: asyncio.Transport) -> bool:
    """Whether nothing is to be sent, and nothing has come that the loop has not looked at yet."""
    looked = select.poll()
    looked.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return not transport.get_write_buffer_size() and not looked.poll(0)
