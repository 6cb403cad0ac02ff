"""The API's own origin as one big agent server: which requests there go to a runtime, and by whose key. Pure.

Told by the credential and the path (DESIGN.md 3, "Dialects on shared paths"): a key in `X-Session-API-Key` alone is the
agent server's way. The session key of a runtime leads to that runtime. An API key leads to the conversation that the
path names, or to the caller's `home`, a bare runtime; that is a `Claim`, of which nothing is proved until it is looked
up (`claims.py`).
"""

import hashlib
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.ids import ConversationId, RuntimeId, parse_uuid
from orchestrator.domain.secrets import SecretText
from orchestrator.proxy.head import Head
from orchestrator.security.session_keys import runtime_of

_ID = rb"([0-9A-Fa-f]{32}|[0-9A-Fa-f-]{36})"
_CONVERSATION = re.compile(rb"/api/conversations/" + _ID + rb"(?:/([^/]*).*)?", re.DOTALL)
_SOCKET = re.compile(rb"/sockets/(?:events|session)/" + _ID)
_HOME = re.compile(rb"/api/(bash|file|git|skills|tools|hooks|llm|mcp|profiles|agent-profiles|vscode|settings)(?:/.*)?")
#: Below a conversation, what only V0 has: the application serves it, whichever header brings the key.
_OF_V0 = frozenset(
    {
        b"start", b"stop", b"message", b"trajectory", b"config", b"vscode-url", b"web-hosts", b"microagents",
        b"list-files", b"select-file", b"upload-files", b"zip-directory", b"remember-prompt", b"exp-config",
        b"submit-feedback", b"security",
    }
)  # fmt: skip
_NATIVE = (b"/api/v1/", b"/api/v2/")


class Place(NamedTuple):
    """What of its caller's a request is for. `conversation` None: the caller's home."""

    conversation: ConversationId | None


class Claim(str):
    """In the place of a runtime's id: whoever has this key says that this is theirs. Its text holds no key, only its
    digest, so that it can be a key of a cache and stand in a log."""

    digest: str  #: SHA-256 hex of the key
    place: Place
    key: SecretText
    acts_for: str | None  #: `X-Act-As-User`

    def __new__(cls, key: bytes, place: Place, acts_for: bytes | None = None) -> "Claim":
        digest = hashlib.sha256(key).hexdigest()
        user = acts_for.decode("latin-1") if acts_for is not None else ""
        self = super().__new__(cls, f"{place.conversation or 'home'} as {user} by {digest}")
        self.digest, self.place, self.acts_for = digest, place, user or None
        self.key = SecretText(key.decode("latin-1"))
        return self


def runtime_by_key(key: bytes, place: Place, acts_for: bytes | None = None) -> RuntimeId:
    """The runtime that a session key names, else the claim of an API key."""
    return runtime_of(key.decode("latin-1")) or RuntimeId(Claim(key, place, acts_for))


def is_agent_servers(head: Head) -> bool:
    """Whether the credential is sent as an agent server's clients do. A socket's may come later."""
    if head.session_key is None:
        return head.websocket
    bearer = (head.get(b"authorization") or b"").lower().startswith(b"bearer ")
    return not bearer and head.get(b"x-access-token") is None


def place_of(head: Head, path: bytes) -> Place | None:
    """The place that a path names; None for what the application answers."""
    if head.websocket:
        if path == b"/sockets/bash-events":
            return Place(None)
        found = _SOCKET.fullmatch(path)
        return _of_conversation(found[1]) if found is not None else None
    found = _CONVERSATION.fullmatch(path)
    if found is not None:
        answered_here = head.method == b"DELETE" if found[2] is None else found[2] in _OF_V0
        return None if answered_here else _of_conversation(found[1])
    found = _HOME.fullmatch(path)
    if found is None or (found[1] == b"settings" and head.method not in (b"GET", b"HEAD")):
        return None  # a change of settings is one of the caller's layers, which the application has
    return Place(None)


def is_for_any_runtime(path: bytes) -> bool:
    """Whether the holder of a session key means its runtime by it: all of the agent server's API."""
    return path.startswith((b"/api/", b"/sockets/")) and not path.startswith(_NATIVE)


def keys_in(query: bytes) -> list[bytes]:
    """The values of `session_api_key` parameters."""
    found = (parameter.partition(b"=") for parameter in query.split(b"&"))
    return [unquote_to_bytes(value.replace(b"+", b" ")) for name, _, value in found if name == b"session_api_key"]


def _of_conversation(id: bytes) -> Place | None:
    try:
        return Place(ConversationId(parse_uuid(id.decode("ascii"))))
    except InvalidRequest:
        return None
