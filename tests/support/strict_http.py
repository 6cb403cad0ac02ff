"""What the bytes of a client say, read by the letter of RFC 9112 and 9110: the reference that the front is held to.

Written without a look at the front's own reader, and without a parser library: one pass, no leniency. Where the RFCs
leave a choice, this takes the strict one; a proxy may refuse more than this, and may never understand anything else.
"""

import re
from dataclasses import dataclass, field

Headers = list[tuple[bytes, bytes]]

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/(1\.[01])")
_FIELD = re.compile(
    rb"(" + _TOKEN + rb"):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*"
)
#: Extensions of chunks are to be ignored, so their grammar is not looked at; a line end or NUL has no place in them.
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*")
_LARGEST_DIGITS = 16  #: of a chunk's size, in hex
_LONGEST_LENGTH = 18  #: decimal digits: what any reader of 64 bits can hold


class Malformed(Exception):
    """The bytes have no meaning, or more than one."""


@dataclass
class Message:
    """One message, or the beginning of one. `complete` is False where more has to come or none can be understood."""

    start: tuple[bytes, ...]  #: method, target and version, or the status
    headers: Headers
    body: bytes = b""
    complete: bool = False
    fault: str = ""  #: why what follows means nothing
    size: int = 0  #: how many bytes it took, when it is complete
    chunked: bool = False
    trailers: Headers = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


def read_request(data: bytes) -> Message | None:
    """The first request of `data`; None while its head is not all there. Raises `Malformed` for a bad head."""
    skipped = len(data) - len(
        data.lstrip(b"\r\n")
    )  # line ends before a request line carry nothing, and all servers skip them
    found = _head(data[skipped:])
    if found is None:
        return None
    lines, rest = found
    shape = _REQUEST_LINE.fullmatch(lines[0])
    if shape is None:
        raise Malformed("request line")
    message = Message((shape[1], shape[2], shape[3]), _fields(lines[1:]))
    if len(message.values(b"host")) != 1 and (shape[3] == b"1.1" or message.values(b"host")):
        raise Malformed("host")
    length, message.chunked = _framing(message, shape[3])
    _take_body(message, data[skipped + rest :], length or 0)
    message.size += skipped + rest
    return message


def read_answer(data: bytes, *, to_head: bool, ended: bool = False) -> Message | None:
    """The first answer of `data`, interim ones left out; None while its head is not all there. Raises `Malformed`."""
    found = _head(data)
    if found is None:
        return None
    lines, rest = found
    shape = _STATUS_LINE.fullmatch(lines[0])
    if shape is None:
        raise Malformed("status line")
    if shape[1].startswith(b"1") and shape[1] != b"101":
        after = read_answer(data[rest:], to_head=to_head, ended=ended)
        if after is not None:
            after.size += rest
        return after
    message = Message((shape[1],), _fields(lines[1:]))
    length, message.chunked = _framing(message, b"1.1")
    if to_head or shape[1] in (b"204", b"304"):
        message.complete = True
    elif length is None and not message.chunked:
        if b"close" not in message.values(b"connection"):
            raise Malformed("an answer without an end")
        message.body = data[rest:]  # until the connection ends: for clients of HTTP/1.0
        message.complete = ended
        message.size = len(data) - rest
    else:
        _take_body(message, data[rest:], length or 0)
    message.size += rest
    return message


def _head(data: bytes) -> tuple[list[bytes], int] | None:
    """The lines of the head and where it ends. A bare CR or LF in it is Malformed, as soon as it is there."""
    end = data.find(b"\r\n\r\n")
    block = data[: end + 2] if end >= 0 else data.removesuffix(b"\r")
    lines = block.split(b"\r\n")
    if any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines):
        raise Malformed("bare CR, LF or NUL")
    return (lines[:-1], end + 4) if end >= 0 else None


def _fields(lines: list[bytes]) -> Headers:
    headers: Headers = []
    for line in lines:
        shape = _FIELD.fullmatch(line)
        if shape is None:
            raise Malformed(f"field line {line!r}")
        headers.append((shape[1].lower(), shape[2]))
    return headers


def _framing(message: Message, version: bytes) -> tuple[int | None, bool]:
    lengths, encodings = message.values(b"content-length"), message.values(b"transfer-encoding")
    if encodings:
        if lengths or version != b"1.1" or [value.lower() for value in encodings] != [b"chunked"]:
            raise Malformed("transfer-encoding")
        return None, True
    if not lengths:
        return None, False
    if len(lengths) != 1 or not re.fullmatch(rb"[0-9]+", lengths[0]) or len(lengths[0].lstrip(b"0")) > _LONGEST_LENGTH:
        raise Malformed("content-length")
    return int(lengths[0]), False


def _take_body(message: Message, data: bytes, length: int) -> None:
    if not message.chunked:
        message.body = data[:length]
        message.complete = len(data) >= length
        message.size = length
        return
    try:
        _take_chunks(message, data)
    except Malformed as bad:
        message.fault = str(bad)


def _take_chunks(message: Message, data: bytes) -> None:
    position = 0
    while True:
        end = data.find(b"\r\n", position)
        line = data[position : end if end >= 0 else None]
        if end < 0:
            if b"\n" in line or b"\r" in line[:-1]:
                raise Malformed("chunk line")
            return
        shape = _CHUNK.fullmatch(line)
        if shape is None or len(shape[1].lstrip(b"0")) > _LARGEST_DIGITS:
            raise Malformed("chunk line")
        size, position = int(shape[1], 16), end + 2
        if size == 0:
            break
        message.body += data[position : position + size]
        after = data[position + size : position + size + 2]
        if not b"\r\n".startswith(after):
            raise Malformed("chunk end")
        if len(after) < 2:
            return
        position += size + 2
    if data.startswith(b"\r\n", position):
        message.complete, message.size = True, position + 2
        return
    found = _head(data[position:])
    if found is not None:
        message.trailers = _fields(found[0])
        message.complete, message.size = True, position + found[1]
