"""JSON Web Tokens (RFC 7519) that another program signed: checked, and their claims taken (RFC 8725).

The algorithm has to be one that the key is for, so that neither `none` nor an HMAC by a public key is looked at. What
the header says of keys in other ways (`jku`, `jwk`, `x5u`, `x5c`) is never followed. What the claims mean is for others
(`services/token_callers.py`).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from orchestrator.domain.errors import Unauthenticated
from orchestrator.security.jwks import ALGORITHMS
from orchestrator.security.token_keys import TokenKeys

MAXIMUM_CHARACTERS = 8192
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})  #: not those of logouts and of proofs
_REQUIRED = ("exp", "iss", "aud", "sub")
#: The first that matches. Raised for a token whose signature was found good, but for the last.
_WHY: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.ExpiredSignatureError, "it has expired"),
    (jwt.ImmatureSignatureError, "it is not good yet (nbf or iat)"),
    (jwt.InvalidIssuerError, "it is of another issuer"),
    (jwt.InvalidAudienceError, "it is for another audience"),
    (jwt.MissingRequiredClaimError, f"it lacks one of {', '.join(_REQUIRED)}"),
)


@dataclass(frozen=True)
class Expected:
    """What a token has to say. Times in seconds."""

    issuer: str
    audience: str
    leeway: int  #: between two clocks
    longest: int  #: the life of a token, from its issue to its end


def is_token(text: str) -> bool:
    """Whether it looks like one; no API key does."""
    return text.count(".") == 2


def refused(why: str) -> Unauthenticated:
    return Unauthenticated(
        f"the token is not valid: {why}", hint="send a fresh token of the issuer that this orchestrator trusts"
    )


class Tokens:
    def __init__(self, keys: TokenKeys, expected: Expected) -> None:
        self._keys = keys
        self._expected = expected

    async def claims(self, text: str) -> Mapping[str, Any]:
        """Of a token that is good now; `exp` is a whole number, `iss` and `sub` are text. Raises `Unauthenticated`,
        `KeysUnavailable`."""
        if len(text) > MAXIMUM_CHARACTERS:
            raise refused(f"it is longer than {MAXIMUM_CHARACTERS} characters")
        id, algorithm = _head(text)
        key = await self._keys.find(id, algorithm)
        if key is None:
            raise refused("its key is not known")
        expected = self._expected
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                key.key,
                algorithms=[algorithm],
                audience=expected.audience,
                issuer=expected.issuer,
                leeway=expected.leeway,
                options={"require": list(_REQUIRED)},
            )
            return {**claims, "exp": _end(claims, expected)}
        except jwt.PyJWTError as exc:
            raise refused(next((why for kind, why in _WHY if isinstance(exc, kind)), "it cannot be verified")) from None
        except (ValueError, TypeError, ArithmeticError, RecursionError):
            raise refused("it cannot be read") from None


def _head(text: str) -> tuple[str | None, str]:
    """The key that it names, and its algorithm. Raises `Unauthenticated`."""
    try:
        head = jwt.get_unverified_header(text)
        if "crit" in head or "b64" in head:
            raise refused("its header asks for something that is not done here (crit)")
        id, algorithm, kind = head.get("kid"), head.get("alg"), head.get("typ", "JWT")
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise refused("it cannot be read") from None
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise refused(f"its algorithm is none of {', '.join(sorted(ALGORITHMS))}")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise refused("it is a token for something else (typ)")
    if not isinstance(id, str | None):
        raise refused("its key is not known")
    return id, algorithm


def _end(claims: Mapping[str, Any], expected: Expected) -> int:
    """When it ends. Raises `Unauthenticated` for one that lives longer than it may."""
    end = int(claims["exp"])
    began = int(claims["iat"]) if "iat" in claims else None
    if end - time.time() > expected.longest + expected.leeway or (began is not None and end - began > expected.longest):
        raise refused(f"it is good for longer than {expected.longest} seconds")
    return end
