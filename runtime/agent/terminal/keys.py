"""Names of keys, and the bytes a terminal gets when they are pressed. Pure."""

from __future__ import annotations

import re

_NAMED = {
    "ENTER": b"\n",
    "TAB": b"\t",
    "ESC": b"\x1b",
    "BS": b"\x7f",
    "UP": b"\x1b[A",
    "DOWN": b"\x1b[B",
    "RIGHT": b"\x1b[C",
    "LEFT": b"\x1b[D",
    "HOME": b"\x1b[H",
    "END": b"\x1b[F",
    "PGUP": b"\x1b[5~",
    "PGDN": b"\x1b[6~",
}
_CONTROL = re.compile(r"C-([a-zA-Z\[\]\\^_])")


def keys_for(text: str) -> bytes:
    """The bytes of a named key (ENTER, UP, C-c ...), or the text and Enter; nothing for an empty text."""
    stripped = text.strip()
    if stripped in _NAMED:
        return _NAMED[stripped]
    control = _CONTROL.fullmatch(stripped)
    if control is not None:
        return bytes([ord(control[1].upper()) & 0x1F])
    return f"{text}\n".encode() if text else b""
