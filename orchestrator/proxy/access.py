"""Who may reach a runtime: the session key, the few open paths, and the origins of browser sockets."""

import enum
import hashlib
import hmac
from collections.abc import Iterable
from urllib.parse import urlsplit

from orchestrator.proxy.head import Head
from orchestrator.proxy.target import OPEN_PATHS

#: where a runtime answers clients that can say a key as a bearer token only
_COMPATIBLE_PATHS = b"/v1/"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Access(enum.Enum):
    """What a request may do with the runtime that it names."""

    WITH_KEY = enum.auto()  #: the key is right: the inner key goes with it, and it counts as use
    OPEN = enum.auto()  #: no key is needed: it goes without one, and neither counts nor wakes
    REFUSED = enum.auto()


WITH_KEY = Access.WITH_KEY  # looking a member up in its class costs as much as the rest of a request's check


def opens(key: bytes, session_key_hash: str) -> bool:
    """Whether `key` is the session key with that SHA-256, in time that does not depend on where they differ."""
    return hmac.compare_digest(hashlib.sha256(key).hexdigest(), session_key_hash)


def access(head: Head, path: bytes, session_key_hash: str) -> Access:
    """What `head` may do. A wrong key on an open path is not worth a refusal: no key is needed there."""
    if head.session_key is not None and opens(head.session_key, session_key_hash):
        head.proved = session_key_hash
        return WITH_KEY
    if path.startswith(_COMPATIBLE_PATHS):
        scheme, _, token = (head.get(b"authorization") or b"").partition(b" ")
        if scheme.lower() == b"bearer" and opens(token.strip(), session_key_hash):
            return WITH_KEY
    if path in OPEN_PATHS and head.method in (b"GET", b"HEAD"):
        return Access.OPEN
    return Access.REFUSED


def origin_allowed(origin: bytes | None, host: bytes, allowed: Iterable[str], *, local: bool = True) -> bool:
    """Whether a browser page of `origin` may open a socket: one of `allowed`, one of the same host, and with `local`
    one that loopback serves. Programs send none, and `null` is nobody."""
    if origin is None:
        return True
    text = origin.decode("latin-1")
    if text in allowed:
        return True
    try:
        parts = urlsplit(text)
        hostname = parts.hostname
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or hostname is None:
        return False
    return (local and hostname in _LOOPBACK) or parts.netloc.lower() == host.decode("latin-1").lower()
