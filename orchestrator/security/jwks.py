"""A JSON Web Key Set (RFC 7517), read for the public keys that may have signed a token. Pure.

What a key may verify follows from the key, never from the token: an RSA key is no HMAC secret, and a curve has one
algorithm (RFC 8725 3.1, 3.2). Keys of other kinds, for other uses, too small ones, and ones whose private half is in
the set as well are passed over: sets are shared with other programs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {("EC", "P-256"): "ES256", ("EC", "P-384"): "ES384", ("EC", "P-521"): "ES512", ("OKP", "Ed25519"): "EdDSA"}
ALGORITHMS = _RSA | frozenset(_CURVES.values())
MOST_KEYS = 100
_RSA_BITS = range(2048, 8193)


@dataclass(frozen=True)
class PublicKey:
    """`key` is the library's own object for it."""

    id: str | None  #: `kid`
    algorithms: frozenset[str]  #: what it may verify
    key: Any


@dataclass(frozen=True)
class KeySet:
    keys: tuple[PublicKey, ...] = ()
    passed_over: int = 0

    def knows(self, id: str | None) -> bool:
        """Whether a token that names this key, or none, is about a key of this set."""
        return id is None or any(key.id in (id, None) for key in self.keys)

    def find(self, id: str | None, algorithm: str) -> PublicKey | None:
        """The one key that is meant. A token that names none means the only one that there is; a key without a name is
        meant only where it is the only one."""
        if len(self.keys) == 1 and (id is None or self.keys[0].id is None):
            meant = list(self.keys)
        else:
            meant = [key for key in self.keys if key.id is not None and key.id == id]
        fitting = [key for key in meant if algorithm in key.algorithms]
        return fitting[0] if len(fitting) == 1 else None


def read(body: bytes) -> KeySet:
    """Raises `ValueError`, in words of ours, for what is no key set. One without keys is a set: nothing is signed."""
    try:
        listed = json.loads(body)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("it is no JSON object with a list of `keys`") from None
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise ValueError(f"its `keys` are no list of at most {MOST_KEYS}")
    found = [key for item in listed if (key := _key(item)) is not None]
    return KeySet(tuple(found), len(listed) - len(found))


def _key(item: Any) -> PublicKey | None:
    """None for one that verifies nothing here."""
    if not isinstance(item, dict) or "d" in item or not _is_for_verifying(item):
        return None
    algorithms = _RSA if item.get("kty") == "RSA" else _of_curve(item)
    if (named := item.get("alg")) is not None:
        algorithms &= {named} if isinstance(named, str) else set()
    id = item.get("kid")
    if not algorithms or not isinstance(id, str | None):
        return None
    try:
        key = jwt.PyJWK(item, algorithm=min(algorithms)).key
    except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError):
        return None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size not in _RSA_BITS:
        return None
    return PublicKey(id, algorithms, key)


def _of_curve(item: Mapping[str, Any]) -> frozenset[str]:
    kind, curve = item.get("kty"), item.get("crv")
    if not isinstance(kind, str) or not isinstance(curve, str):
        return frozenset()
    algorithm = _CURVES.get((kind, curve))
    return frozenset() if algorithm is None else frozenset({algorithm})


def _is_for_verifying(item: Mapping[str, Any]) -> bool:
    operations = item.get("key_ops", ["verify"])
    return item.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
