"""The answers that the front gives itself, as bytes: refusals, and runtimes that cannot be reached.

401 and 404 are the runtime's own words (agent-server.md 1.5), so that a client cannot tell who refused it, and the same
for an unknown runtime as for somebody else's. The rest are problem documents whose `detail` is a string.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True)
class Refusal:
    """A status and a JSON body; the body of a problem has a `code`."""

    status: int
    body: Mapping[str, object]
    retry_after: int | None = None


def problem(
    status: int,
    detail: str,
    code: str,
    *,
    retryable: bool = False,
    retry_after: int | None = None,
    details: Mapping[str, object] | None = None,
) -> Refusal:
    """A problem document (RFC 9457) with `details` as further members."""
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
    return Refusal(status, {**(details or {}), **body, "retryable": retryable}, retry_after)


def bad_request(detail: str) -> Refusal:
    return problem(400, f"The request was refused: {detail}.", "bad_request")


def unavailable(message: str, retry_after: int = 2, details: Mapping[str, object] | None = None) -> Refusal:
    """The runtime exists and cannot serve now."""
    return problem(503, message, "runtime_unavailable", retryable=True, retry_after=retry_after, details=details)


def unreachable() -> Refusal:
    """The runtime should be there and did not answer, or not in HTTP."""
    return problem(502, "The runtime did not answer. Try again.", "runtime_unreachable", retryable=True, retry_after=1)


def socket_refused(status: int) -> Refusal:
    """The runtime answered a handshake with `status`, in our words: its own body stays with it."""
    if status not in (400, 403, 404, 409, 426, 429, 500, 503):
        return unreachable()
    return problem(status, "The runtime refused the socket.", "socket_refused", retryable=status in (429, 500, 503))


NOT_FOUND = Refusal(404, {"detail": "Not Found"})
UNAUTHORIZED = Refusal(401, {"detail": "Unauthorized"})
FORBIDDEN = Refusal(403, {"detail": "Forbidden"})
TARGET_TOO_LONG = problem(414, "The request target is too long.", "target_too_long")
HEAD_TOO_LARGE = problem(431, "The request head is too large or has too many headers.", "head_too_large")
TOO_SLOW = problem(408, "The request took too long to arrive.", "request_timeout", retryable=True)
SOCKET_REFUSED = problem(403, "Sockets from this origin are not allowed.", "origin_not_allowed")
TOO_MANY = problem(
    429, "Too many requests for runtimes that do not exist.", "rate_limited", retryable=True, retry_after=1
)
TOO_MANY_KEYS = problem(429, "Too many requests with a wrong key.", "rate_limited", retryable=True, retry_after=1)
CROWDED = problem(503, "Too many connections at once.", "too_many_connections", retryable=True, retry_after=1)
BUSY = unavailable("The runtime has too many connections. Try again.", 1)
TENANT_BUSY = unavailable("The runtimes of this tenant have too many connections together. Try again.", 1)
CHANGED = unavailable("The runtime has just been replaced. Try again.", 1)
TOO_LATE = problem(504, "The runtime took too long to answer.", "runtime_timeout", retryable=True)
FAILED = problem(500, "The request could not be passed on.", "internal")


def render(refusal: Refusal, *, close: bool, bodiless: bool = False, more: Sequence[bytes] = ()) -> bytes:
    """The whole answer as bytes, with the lines `more`. `bodiless` is for HEAD: the length is told, the body is not
    sent."""
    body = json.dumps(refusal.body, separators=(",", ":")).encode()
    kind = b"application/problem+json" if "code" in refusal.body else b"application/json"
    lines = [
        b"HTTP/1.1 %d %s" % (refusal.status, HTTPStatus(refusal.status).phrase.encode()),
        b"content-type: " + kind,
        b"content-length: %d" % len(body),
        *more,
    ]
    if refusal.retry_after is not None:
        lines.append(b"retry-after: %d" % refusal.retry_after)
    if close:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if bodiless else body)
