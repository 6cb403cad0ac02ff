"""What the server remembers of one accepted connection: here, the challenge that was given on it.

`runtime.serving` makes one for each connection, TCP or unix, and puts it into the state of all its requests. It is no
address: a client that connects again from the same port gets another one.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from starlette.types import Scope

#: its name in the scope's `state`
CONNECTION = "nestor.connection"


@dataclass(frozen=True)
class Challenge:
    """What a caller is to answer: its own nonce, and ours."""

    nonce: str
    text: str


class Connection:
    """Holds one challenge, which is answered on this connection or never."""

    __slots__ = ("_challenge",)

    def __init__(self) -> None:
        self._challenge: Challenge | None = None

    def challenge(self, nonce: str) -> Challenge:
        """A new one, which takes the place of the one before."""
        self._challenge = Challenge(nonce, secrets.token_urlsafe(24))
        return self._challenge

    def take(self) -> Challenge | None:
        """The one that is open, which is used up by that; None when there is none."""
        taken, self._challenge = self._challenge, None
        return taken


def connection_of(scope: Scope) -> Connection:
    """The connection that brought this request. Raises LookupError under a server that does not tell them apart."""
    found = scope.get("state", {}).get(CONNECTION)
    if not isinstance(found, Connection):
        raise LookupError("this server does not tell connections apart: serve through runtime.serving")
    return found
