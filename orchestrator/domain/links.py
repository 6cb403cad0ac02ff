"""Links: addresses that open one port or one path of one runtime to whoever has them, for a while.

A link's token says which runtime it is of and holds 160 random bits, of which only the SHA-256 is kept, in the
conversation's record. It is written in lower-case letters and digits, so that it can be a label of a host name.
"""

import base64
import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import NewType

from orchestrator.domain.ids import RuntimeId, UserId

LinkId = NewType("LinkId", str)
SECRET_BYTES = 20
_ID_BYTES = 16
TOKEN_CHARACTERS = 58
#: beside which no label of a host name is a runtime's
HOST_PREFIX = "l-"
MOST_LINKS = 50


@dataclass(frozen=True)
class Link:
    """`port` or `path`, which is relative to the workspace. `user`: who made it, None for the tenant."""

    id: LinkId
    digest: str
    generation: int
    created_at: datetime
    expires_at: datetime
    user: UserId | None = None
    port: int | None = None
    path: str | None = None


def token_of(runtime: RuntimeId, secret: bytes) -> str:
    """What is put into an address. `secret` has `SECRET_BYTES`."""
    return _text(uuid.UUID(runtime).bytes) + _text(secret)


def token_read(token: str) -> tuple[RuntimeId, bytes] | None:
    """The inverse, in either case; None for what is no token."""
    if len(token) != TOKEN_CHARACTERS or not token.isascii():
        return None
    try:
        runtime = base64.b32decode(token[:26].upper() + "======")
        secret = base64.b32decode(token[26:].upper())
    except ValueError:
        return None
    if _text(runtime) + _text(secret) != token.lower():
        return None  # the last letter of each part has bits to spare: one link, one spelling
    return RuntimeId(str(uuid.UUID(bytes=runtime))), secret


def digest_of(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def _text(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()
