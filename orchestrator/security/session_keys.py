"""The text of API keys, and the hashes under which keys are found.

`api/auth.py` parses and compares, the services that make keys mint them. An API key is `nst_<kind>_<id>_<secret>`: the
id finds the stored record, the secret is compared by its hash. A runtime's session key is `nst_session_<id>_<secret>`
with the id of the runtime: it leads to the record, whose hash is that of the whole key. Keys of before are plain random
text; they are good at their runtime's own address, and lead nowhere by themselves. Nothing here knows a store.
"""

import hashlib
import hmac
import re
from typing import NamedTuple

from orchestrator.domain.errors import Misconfigured
from orchestrator.domain.ids import KeyId, RuntimeId, parse_uuid
from orchestrator.domain.secrets import SecretText, new_secret
from orchestrator.domain.tenancy import KeyKind

_SHAPE = re.compile(r"nst_(op|tenant|user)_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")
_SESSION_SHAPE = re.compile(r"nst_session_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")
OPERATOR_KEY_LENGTH = 32


class ParsedKey(NamedTuple):
    """What an API key says about itself. Nothing of it is proved until `matches` says so."""

    kind: KeyKind
    id: KeyId
    secret: SecretText


def hash_key(text: str) -> str:
    """SHA-256 in hexadecimal. The keys hashed here have 256 random bits, so a slow hash would add nothing."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def mint(kind: KeyKind, id: KeyId) -> SecretText:
    """A fresh API key; store `hash_secret(parse(key).secret)` and show the text once."""
    return SecretText(f"nst_{kind}_{id.replace('-', '')}_{new_secret().open()}")


def parse(text: str) -> ParsedKey | None:
    """The parts of an API key, None when `text` has not exactly that form."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        return None
    return ParsedKey(KeyKind(found[1]), KeyId(parse_uuid(found[2])), SecretText(found[3]))


def mint_session(runtime: RuntimeId) -> SecretText:
    """A fresh session key of this runtime; store `hash_key` of its text."""
    return SecretText(f"nst_session_{runtime.replace('-', '')}_{new_secret().open()}")


def runtime_of(session_key: str) -> RuntimeId | None:
    """The runtime that a session key names; nothing of it is proved. None for text of another form."""
    found = _SESSION_SHAPE.fullmatch(session_key)
    return RuntimeId(parse_uuid(found[1])) if found is not None else None


def hash_secret(secret: SecretText) -> str:
    """The form in which the secret part of an API key is stored."""
    return hash_key(secret.open())


def matches(secret: SecretText, stored_hash: str) -> bool:
    """Whether `secret` is the one whose hash is stored, in time that does not depend on where they differ."""
    return hmac.compare_digest(hash_secret(secret).encode(), stored_hash.encode())


def check_operator_key(text: str) -> SecretText:
    """NESTOR_OPERATOR_KEY as given. Raises `Misconfigured` when it is too short or could not travel in a header."""
    if len(text) < OPERATOR_KEY_LENGTH or not text.isascii() or not text.isprintable() or text != text.strip():
        raise Misconfigured(
            "NESTOR_OPERATOR_KEY has to be 32 or more printable ASCII characters, without spaces around them",
            hint="leave it unset to have one made, or take the output of: openssl rand -hex 32",
        )
    return SecretText(text)
