"""What goes over the sockets: WebSocket frames as bytes, and the envelopes of the session protocol (contract 6.3).

Pure. A frame of a server carries no mask, so the same bytes are right for every listener: each is made once. An event
line inside an envelope stays as the log has it.
"""

from __future__ import annotations

import json
import struct
from typing import Any

#: a client of the contract takes messages of up to 1 MiB and breaks the connection on a larger one
LARGEST_EVENT = 1_000_000
#: and of up to 4 MiB on a session socket
LARGEST_SESSION = 4_000_000


def text_frame(payload: bytes) -> bytes:
    """One whole, unmasked text message (RFC 6455 5.2)."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x81, size) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", 0x81, 126, size) + payload
    return struct.pack("!BBQ", 0x81, 127, size) + payload


def sync(*, from_seq: int | None, through_seq: int | None) -> bytes:
    """First on every session socket: what is about to be sent again, and how far the log goes. Nulls left out."""
    return envelope("sync", from_seq=from_seq, through_seq=through_seq)


def durable(seq: int, line: bytes) -> bytes:
    """A stored event; `seq` is its place in the log, from 0."""
    return b'{"type":"durable","seq":%d,"event":%b}' % (seq, line)


def transient(line: bytes) -> bytes:
    """An event that is not stored and so has no place."""
    return b'{"type":"transient","event":%b}' % line


def error(code: str, detail: str) -> bytes:
    return envelope("error", code=code, detail=detail)


def envelope(name: str, /, **fields: Any) -> bytes:
    """A frame of the session protocol, its nulls left out."""
    kept = {key: value for key, value in fields.items() if value is not None}
    return json.dumps({"type": name, **kept}, ensure_ascii=False, separators=(",", ":")).encode()
