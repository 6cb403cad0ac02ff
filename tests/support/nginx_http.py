"""What nginx and its look at heads (`deploy/nginx/head.lua`) understand by the bytes of a client: the reference for the
front behind nginx.

As `strict_http`, and by a look at what nginx 1.22 does: a line may end by more than one CR, names that are no plain
names are dropped, only spaces are trimmed, and lines of chunks may end by LF alone. So may a field, where one space is
before the LF: nginx has overwritten it by the time that the head can be looked at, as it has the CR of others. What it
passes on it writes anew; so this says which requests may arrive, and each has to be well-formed where it does.
"""

import re

from support.strict_http import Malformed, Message

_LINE = re.compile(rb"([^\x00-\x08\x0a-\x1f\x7f]*)\r+\n")
_TEXT = rb"[^\x00-\x08\x0a-\x1f\x7f]"
_FIELD = re.compile(rb"(%b*)\r+\n|(%b*:%b*(?! )%b) \n" % ((_TEXT,) * 4))
_EMPTY = re.compile(rb"\r\n")
_REQUEST_LINE = re.compile(rb"([A-Z]+) (/[^ ]*) HTTP/(1\.[01])")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PLAIN = re.compile(rb"[a-z0-9-]+")
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t;][^\r\n]*)?\r?\n")
_CHUNK_END = re.compile(rb"\r?\n")
_TRAILER = re.compile(rb"[^\r\n]+\r?\n")


def read_request(data: bytes) -> Message | None:
    """The first request of `data`; None while its head is not all there. Raises `Malformed`."""
    position = len(data) - len(data.lstrip(b"\r\n"))
    line = _LINE.match(data, position)
    if line is None:
        _check_line(data[position:])
        return None
    shape = _REQUEST_LINE.fullmatch(line[1])
    if shape is None:
        raise Malformed("request line")
    headers, position = [], line.end()
    while (empty := _EMPTY.match(data, position)) is None:
        line = _FIELD.match(data, position)
        if line is None:
            _check_line(data[position:])
            return None
        name, colon, value = line[line.lastindex or 1].partition(b":")
        if not colon or not _NAME.fullmatch(name):
            raise Malformed("name")
        if _PLAIN.fullmatch(name.lower()):
            headers.append((name.lower(), value.strip(b" ").strip(b" \t")))
        position = line.end()
    message = Message((shape[1], shape[2], shape[3]), headers)
    _take_body(message, data, empty.end())
    return message


def _check_line(rest: bytes) -> None:
    """Raises `Malformed` for the beginning of a line that can come to no good end."""
    if b"\0" in rest or b"\n" in rest or b"\r" in rest.rstrip(b"\r"):
        raise Malformed("a line")


def _take_body(message: Message, data: bytes, position: int) -> None:
    lengths, encodings = message.values(b"content-length"), message.values(b"transfer-encoding")
    if len(lengths) > 1 or len(encodings) > 1 or (lengths and encodings):
        raise Malformed("framing")
    if encodings:
        if encodings[0].lower() != b"chunked" or message.start[2] == b"1.0":
            raise Malformed("transfer-encoding")
        message.chunked = True
        try:
            _take_chunks(message, data, position)
        except Malformed as bad:
            message.fault = str(bad)
        return
    if lengths and not re.fullmatch(rb"0*[0-9]{1,18}", lengths[0]):
        raise Malformed("content-length")
    size = int(lengths[0]) if lengths else 0
    message.body = data[position : position + size]
    message.size = position + size
    message.complete = len(data) >= message.size


def _take_chunks(message: Message, data: bytes, position: int) -> None:
    while True:
        line = _CHUNK.match(data, position)
        if line is None:
            if b"\n" in data[position:] or not re.match(rb"[0-9A-Fa-f]|$", data[position:]):
                raise Malformed("chunk")
            return
        size, position = int(line[1], 16), line.end()
        if size == 0:
            break
        message.body += data[position : position + size]
        position += size
        if len(data) <= position:
            return
        end = _CHUNK_END.match(data, position)
        if end is None:
            if data[position:] == b"\r":
                return
            raise Malformed("chunk end")
        position = end.end()
    while (end := _CHUNK_END.match(data, position)) is None:
        trailer = _TRAILER.match(data, position)
        if trailer is None:
            return
        position = trailer.end()
    message.size, message.complete = end.end(), True
