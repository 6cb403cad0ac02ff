"""The text of API keys, and the hashes under which keys are found.

`api/auth.py` parses and compares, the services that make keys mint them. An API key is `nst_<kind>_<id>_<secret>`: the
id finds the stored record, the secret is compared by its hash. A runtime's session key is plain random text and is
found by its hash alone. Nothing here knows a store.
"""

import hashlib
import hmac
import re
from typing import NamedTuple

from orchestrator.domain.errors import Misconfigured
from orchestrator.domain.ids import KeyId, parse_uuid
from orchestrator.domain.secrets import SecretText, new_secret
from orchestrator.domain.tenancy import KeyKind

_SHAPE = re.compile(r"nst_(op|tenant|user)_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")
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
