"""Heads on their way through: what a runtime may learn of the caller, and what a caller may learn of a runtime.

Pure functions over bytes. A head is always built anew from parsed parts, never passed through, so that a trick in one
head cannot reach the other side. Hop-by-hop headers go by RFC 9110, those nominated in `Connection` included.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from orchestrator.proxy.head import Head, Headers
from orchestrator.proxy.route import Route

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
#: The caller's credentials, what only the orchestrator may say to a runtime, and where the request claims to come from.
_NOT_FOR_RUNTIME = _HOP_BY_HOP | frozenset(
    {
        b"authorization", b"cookie", b"cookie2", b"x-session-api-key", b"x-api-key", b"x-access-token",
        b"x-generation", b"x-fence", b"forwarded", b"x-real-ip", b"via", b"content-length", b"expect",
    }
)  # fmt: skip
_PREFIXES_NOT_FOR_RUNTIME = (b"x-forwarded-", b"proxy-", b"x-init-")
#: A runtime is run by an agent that may be hostile: it sets no cookie, and nothing that outlives its answer.
_NOT_FOR_CALLER = _HOP_BY_HOP | frozenset(
    {
        b"set-cookie", b"set-cookie2", b"server", b"x-session-api-key", b"x-generation", b"x-fence",
        b"alt-svc", b"clear-site-data", b"strict-transport-security",
        b"proxy-authenticate", b"proxy-authentication-info",
    }
)  # fmt: skip
#: Which pages may read an answer, the orchestrator says (`cross_origin.py`).
_CROSS_ORIGIN = frozenset(
    {
        b"access-control-allow-origin", b"access-control-allow-credentials", b"access-control-allow-methods",
        b"access-control-allow-headers", b"access-control-allow-private-network", b"access-control-expose-headers",
        b"access-control-max-age",
    }
)  # fmt: skip
_REPLACED_BY_PATH = frozenset(
    {
        b"content-security-policy", b"content-security-policy-report-only", b"x-content-type-options",
        b"service-worker-allowed",
    }
)  # fmt: skip
#: The page of an agent shares its origin with the console when it is reached by path: it gets an origin of its own.
_CONFINED = (b"content-security-policy: sandbox", b"x-content-type-options: nosniff")
_NOT_BY_LINK = (b"referrer-policy:", b"refresh:", b"cache-control:", b"cdn-cache-control:", b"surrogate-control:")
_FOR_SHARED_CACHES = (b"public", b"private", b"s-maxage", b"proxy-revalidate")
_ANSWER = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\0]*)?(?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\r\n\0]*)*", re.DOTALL
)
_DIGITS = re.compile(rb"[0-9]{1,18}")
_ORDINARY_TOKENS = frozenset({b"close", b"keep-alive", b"upgrade", b""})


class BadAnswer(Exception):
    """The runtime's head cannot be trusted to mean one thing; the text is for the log."""


def for_runtime(headers: Headers, nominated: frozenset[bytes] = frozenset()) -> list[bytes]:
    """The lines that a runtime gets to see, without framing and keys. Names are expected in lower case."""
    if nominated:
        headers = [line for line in headers if line[0].replace(b"_", b"-") not in nominated]
    return [name + b": " + value for name, value in headers if _may_arrive(name)]


@lru_cache(maxsize=1024)
def _may_arrive(name: bytes) -> bool:
    # Some servers read `_` as `-`: what is dropped under one spelling is dropped under the other.
    key = name.replace(b"_", b"-")
    return key not in _NOT_FOR_RUNTIME and not key.startswith(_PREFIXES_NOT_FOR_RUNTIME)


def request_lines(head: Head, target: bytes, route: Route, *, with_key: bool) -> list[bytes]:
    """The request line and the headers for a runtime, without framing: the caller's key is gone, the inner one is there
    if the caller's was right."""
    said = route.said if with_key else route.said_without_key
    return [head.method + b" " + target + b" HTTP/1.1", *_lines(head), *said]


def _lines(head: Head) -> list[bytes]:
    nominated = head.connection and head.connection - _ORDINARY_TOKENS - {b"host"}
    lines = for_runtime(head.headers, nominated)
    if not head.host:
        lines.append(b"host: runtime")
    return lines


def request_head(head: Head, target: bytes, route: Route, *, with_key: bool) -> bytes:
    """The whole head of an ordinary request: as `request_lines`, and the body travels as it was announced, by length or
    in chunks of ours."""
    passed = head.passed
    if passed is None:
        passed = head.passed = passed_lines(head)
    said = route.said_block if with_key else route.said_block_without_key
    return b"".join((head.method, b" ", target, b" HTTP/1.1\r\n", passed, said))


def passed_lines(head: Head) -> bytes:
    """What a runtime gets to see of the client's own lines, each with its end."""
    lines = _lines(head)
    if head.chunked:
        lines.append(b"transfer-encoding: chunked")
    elif head.length is not None:
        lines.append(b"content-length: " + head.length)
    if head.expects:
        lines.append(b"expect: 100-continue")
    return b"".join([line + b"\r\n" for line in lines])


@dataclass(slots=True)
class Answer:
    """A runtime's answer head: framing by our own strict reading, and the lines that may go on."""

    status_line: bytes
    status: int
    lines: list[bytes]
    cross_origin: list[bytes] = field(default_factory=list)  #: what it says of other origins, for links alone
    length: int | None = None
    chunked: bool = False
    reusable: bool = True  #: the connection may carry another request
    redirects: bool = False  #: there is a `Location`
    rendered: tuple[bytes, bytes] | None = None  #: what a client gets of it, and one who came by path; `familiar.py`

    def header(self, name: bytes) -> bytes | None:
        """The first value of the header `name` (lower case) among the lines that may go on."""
        for line in self.lines:
            key, _, value = line.partition(b":")
            if key.lower() == name:
                return value.strip()
        return None


def read_answer(block: bytes) -> Answer:
    """The head of an answer, given without its last empty line. Raises `BadAnswer`."""
    shape = _ANSWER.fullmatch(block)
    if shape is None:
        raise BadAnswer("not an HTTP/1 head")
    status_line, *lines = block.split(b"\r\n")
    answer = Answer(b"HTTP/1.1" + status_line[8:], int(shape[2]), [], reusable=shape[1] == b"1")
    nominated: set[bytes] = set()
    for line in lines:
        name, _, value = line.partition(b":")
        key = name.lower()
        if key == b"content-length":
            _take_length(answer, value.strip())
        elif key == b"transfer-encoding":
            _take_encoding(answer, value.strip().lower())
        elif key == b"connection":
            tokens = {token.strip() for token in value.lower().split(b",")}
            answer.reusable = answer.reusable and b"close" not in tokens
            nominated |= tokens - _ORDINARY_TOKENS
        elif key in _CROSS_ORIGIN:
            answer.cross_origin.append(line)
        elif key not in _NOT_FOR_CALLER:
            answer.lines.append(line)
            if key == b"location":
                answer.redirects = True
    if answer.chunked and answer.length is not None:
        raise BadAnswer("both a length and chunks")
    if nominated:
        answer.lines = [line for line in answer.lines if line.partition(b":")[0].lower() not in nominated]
    return answer


def unreferred(lines: list[bytes]) -> list[bytes]:
    """The lines of an answer that was reached by a link: the address, which is the credential, is told to nobody, and
    no cache that others share answers at it after the link has ended."""
    kept = [line for line in lines if not line.lower().startswith(_NOT_BY_LINK)]
    said = b",".join(line.partition(b":")[2] for line in lines if line.lower().startswith(b"cache-control:"))
    directives = [one.strip() for one in said.split(b",")]
    own = [one for one in directives if one and not one.lower().startswith(_FOR_SHARED_CACHES)]
    return [*kept, b"cache-control: " + b", ".join([b"private", *own]), b"referrer-policy: no-referrer"]


def confine(lines: list[bytes], prefix: bytes, confined: Sequence[bytes] = _CONFINED) -> list[bytes]:
    """The lines of an answer that was reached by path: a sandboxed origin, and redirects that stay under the prefix."""
    kept: list[bytes] = []
    for line in lines:
        name, _, value = line.partition(b":")
        key = name.lower()
        if key == b"location":
            kept.append(b"location: " + _inside(value.strip(), prefix))
        elif key not in _REPLACED_BY_PATH:
            kept.append(line)
    return [*kept, *confined]


def localise(lines: list[bytes], host: bytes) -> list[bytes]:
    """Redirects to the runtime's own origin made relative: it knows neither scheme nor path of its clients."""
    own = (b"http://" + host + b"/", b"https://" + host + b"/")
    return [_relative(line, own) if line[:9].lower() == b"location:" else line for line in lines]


def _relative(line: bytes, own: tuple[bytes, ...]) -> bytes:
    value = line[9:].strip()
    for origin in own:
        if value.lower().startswith(origin.lower()):
            path = value[len(origin) - 1 :]
            # `//host` would be another origin
            return b"location: " + (path if not path.startswith(b"//") else value)
    return line


def _inside(location: bytes, prefix: bytes) -> bytes:
    return prefix + location if location.startswith(b"/") and not location.startswith(b"//") else location


def _take_length(answer: Answer, value: bytes) -> None:
    if answer.length is not None or not _DIGITS.fullmatch(value):
        raise BadAnswer("content-length twice or not a number")
    answer.length = int(value)


def _take_encoding(answer: Answer, value: bytes) -> None:
    if answer.chunked or value != b"chunked":
        raise BadAnswer("a transfer-encoding other than chunked")
    answer.chunked = True
