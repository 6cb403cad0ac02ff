"""Marks of places in lists: a place, signed for the one list that it is of.

The key is derived from the master key, so every replica has it, a restart keeps it, and there is none more to rotate: a
mark of an older master key is good for as long as that key is loaded. A mark hides nothing: it says what was answered
by whom, for which list. What makes a list the same one is for others to say (`api/paging.py`).
"""

import hashlib
import hmac
import struct
from collections.abc import Sequence

from orchestrator.security.master_keys import MasterKeys, decode, encode

_PURPOSE = "page marks 1"
_SIGNATURE_BYTES = 16


class PageMarks:
    def __init__(self, master: MasterKeys) -> None:
        self._keys = master.derived(_PURPOSE)

    def sign(self, place: str, of: Sequence[str]) -> str:
        """The mark of `place` in the list that `of` describes: base64url, the same for the same."""
        raw = place.encode("utf-8", "surrogatepass")
        return encode(_signature(self._keys[0], raw, of) + raw)

    def read(self, mark: str, of: Sequence[str]) -> str | None:
        """The place that was signed for this list; None for everything else."""
        try:
            sent = decode(mark)
            signature, raw = sent[:_SIGNATURE_BYTES], sent[_SIGNATURE_BYTES:]
            place = raw.decode("utf-8", "surrogatepass")
        except ValueError:
            return None
        good = [hmac.compare_digest(signature, _signature(key, raw, of)) for key in self._keys]
        return place if any(good) else None


def _signature(key: bytes, place: bytes, of: Sequence[str]) -> bytes:
    """Each part has its length in front, so that no two lists are described alike."""
    parts = [place, *(part.encode("utf-8", "surrogatepass") for part in of)]
    text = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return hmac.new(key, text, hashlib.sha256).digest()[:_SIGNATURE_BYTES]
