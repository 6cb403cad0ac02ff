"""What pages of other origins may read of a runtime (CORS): the orchestrator's word, since the runtime may be hostile.

A runtime's own lines about it are dropped and ours put in their place, by the same list of origins as for sockets;
preflights, which browsers send without a key, are answered here and reach no runtime. Not behind a link: what is
served there is a web application of the agent's, on an origin of its own, and whoever reads it, it says itself.
"""

import re

from orchestrator.proxy import answers
from orchestrator.proxy.access import origin_allowed
from orchestrator.proxy.answers import Refusal
from orchestrator.proxy.head import Head
from orchestrator.proxy.limits import FrontLimits

_METHOD = re.compile(rb"[A-Z]{1,20}")
_NAMES = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z, \t]{0,2048}")
_MAX_AGE = b"access-control-max-age: 600"
#: The words of an agent server (agent-server.md 1.1).
REFUSED = answers.problem(400, "Disallowed CORS origin", "origin_not_allowed")


def is_preflight(head: Head) -> bool:
    """Whether a browser asks by it if a page may ask something."""
    return (
        head.method == b"OPTIONS" and head.origin is not None and head.get(b"access-control-request-method") is not None
    )


def lines_for(head: Head, limits: FrontLimits) -> list[bytes]:
    """The lines of an answer to a page; none to whoever is no page."""
    if head.origin is None:
        return []
    lines = [b"vary: origin"]
    if origin_allowed(head.origin, head.host, limits.allowed_origins, local=limits.local_origins):
        lines += [b"access-control-allow-origin: " + head.origin, b"access-control-allow-credentials: true"]
    return lines


def preflight(head: Head, limits: FrontLimits) -> bytes | Refusal:
    """The whole answer to a preflight, or the refusal of it."""
    lines = lines_for(head, limits)
    method, names = head.get(b"access-control-request-method"), head.get(b"access-control-request-headers") or b""
    if len(lines) == 1 or method is None or not _METHOD.fullmatch(method) or not _NAMES.fullmatch(names):
        return REFUSED
    lines += [b"access-control-allow-methods: " + method, _MAX_AGE]
    if names:
        lines.append(b"access-control-allow-headers: " + names)
    return b"\r\n".join([b"HTTP/1.1 204 No Content", *lines])
