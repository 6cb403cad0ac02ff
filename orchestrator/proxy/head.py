"""A request head as the front understood it, or the reason why it refuses it.

Read once for every request, also for those of the API, because the rules against request smuggling hold for both: two
readers of one head must not be able to disagree. The parser refuses most of it; what it lets through is refused here.
"""

import re
from dataclasses import dataclass

Headers = list[tuple[bytes, bytes]]

_TARGET = re.compile(rb"/[\x21\x22\x24-\x7e]*")  # no fragment: one reader would cut it off and another would not
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_LENGTH_DIGITS = 18
_ONCE = {b"host", b"content-length", b"transfer-encoding", b"origin", b"expect", b"sec-websocket-key"}
#: The same kind of credential twice has two readings, and two servers choose differently.
CREDENTIALS = frozenset({b"authorization", b"x-session-api-key", b"x-api-key", b"x-access-token", b"x-init-api-key"})
_SINGLE = frozenset(_ONCE | CREDENTIALS)
READ = _SINGLE | {b"connection", b"upgrade", b"expect"}  #: what `read_head` looks at


class BadHead(Exception):
    """The head is refused; the text says why and goes to the client."""


@dataclass(slots=True)
class Head:
    """What the front needs of a head. Names are lower case; values are as they came."""

    method: bytes
    target: bytes
    version: str
    headers: Headers
    host: bytes = b""
    origin: bytes | None = None
    session_key: bytes | None = None
    length: bytes | None = None
    chunked: bool = False
    connection: frozenset[bytes] = frozenset()
    websocket: bool = False
    expects: bool = False  #: `Expect: 100-continue`
    upgrade: bool = False  #: it asks for another protocol, whichever
    has_body: bool = False
    keep_alive: bool = True
    proved: str | None = None  #: the SHA-256 that the session key was found to have by `access`
    passed: bytes | None = None  #: the lines that a runtime gets to see, once they were made

    def framing(self) -> bytes:
        """A head that says of the body, and of the connection's end, what this one says, and nothing else."""
        lines = [b"POST / HTTP/" + self.version.encode(), b"host: h"]
        if self.chunked:
            lines.append(b"transfer-encoding: chunked")
        elif self.length is not None:
            lines.append(b"content-length: " + self.length)
        if b"close" in self.connection:
            lines.append(b"connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def get(self, name: bytes) -> bytes | None:
        """The first value of the header `name` (lower case)."""
        return next((value for key, value in self.headers if key == name), None)


def read_head(method: bytes, target: bytes, version: str, headers: Headers) -> Head:
    """The head, checked. Raises `BadHead`."""
    if version not in ("1.1", "1.0"):
        raise BadHead("only HTTP/1.1 and HTTP/1.0 are spoken here")
    if method == b"CONNECT":
        raise BadHead("tunnels are not on offer")
    if not _TARGET.fullmatch(target):
        raise BadHead("the request target has to be a path that begins with '/', without control characters and '#'")
    head = Head(method, target, version, headers)
    seen: set[bytes] = set()
    for name, value in headers:
        if name in READ:
            if name in _SINGLE:
                if name in seen:
                    raise BadHead(f"the header {name.decode()} is there twice")
                seen.add(name)
            _take(head, name, value)
    if not head.host and (version == "1.1" or b"host" in seen):
        raise BadHead("the header host is missing")
    head.has_body = head.chunked or head.length not in (None, b"0")
    head.keep_alive = version == "1.1" and b"close" not in head.connection
    if head.websocket:
        _check_upgrade(head)
    return head


def _take(head: Head, name: bytes, value: bytes) -> None:
    match name:
        case b"host":
            if not _HOST.fullmatch(value):
                raise BadHead("the header host is not a host name with an optional port")
            head.host = value
        case b"transfer-encoding":
            if head.version == "1.0" or value.strip().lower() != b"chunked":
                raise BadHead("the only transfer-encoding is chunked, in HTTP/1.1")
            head.chunked = True
        case b"content-length":
            head.length = value.strip()
            if len(head.length) > _LENGTH_DIGITS:  # the parser takes what fits 64 bits; not every reader has so many
                raise BadHead("the content-length is too large")
        case b"connection":
            head.connection |= {token.strip().lower() for token in value.split(b",")}
        case b"upgrade":
            head.upgrade = True
            head.websocket = value.strip().lower() == b"websocket"
        case b"expect":
            head.expects = value.strip().lower() == b"100-continue" and head.version == "1.1"
        case b"origin":
            head.origin = value
        case b"x-session-api-key":
            head.session_key = value.strip()


def _check_upgrade(head: Head) -> None:
    """A WebSocket handshake is exactly this; anything near it is refused rather than guessed at."""
    head.websocket = b"upgrade" in head.connection
    if head.websocket and (head.method != b"GET" or head.version != "1.1" or head.has_body):
        raise BadHead("a WebSocket handshake is a GET in HTTP/1.1 without a body")
