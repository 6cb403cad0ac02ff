"""Which runtime a request is for: a pure function of the raw target, the Host header and the listener.

The protocol calls `Routing.destination` once per request. Nothing is ever unquoted on the way to a runtime: what the
client wrote is what the runtime reads. Only the refusal of `/api/init` looks at a decoded copy, because the runtime
will decode it too.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.ids import RuntimeId, parse_uuid
from orchestrator.domain.links import HOST_PREFIX, token_read
from orchestrator.proxy.head import Head
from orchestrator.proxy.single_origin import (
    Place,
    is_agent_servers,
    is_for_any_runtime,
    keys_in,
    place_of,
    runtime_by_key,
)
from orchestrator.security.session_keys import runtime_of

PREFIX = b"/runtimes/"
LINK_PREFIX = b"/links/"
_LINK_HOST = HOST_PREFIX.encode()
#: Paths that every client polls before it has a key (outer-api.md 6). Exact, so that no encoding opens another one.
OPEN_PATHS = frozenset({b"/health", b"/alive", b"/ready", b"/server_info"})
#: Answers of pure functions are kept for targets and hosts of this size: clients repeat them, and who sends others all
#: the time fills no memory by it. A host of a runtime is shorter.
REMEMBERED_BYTES = 512
_REMEMBERED = 2048
_ID_BYTES = 36
_SLASHES = re.compile(rb"/+")


class Destination(NamedTuple):
    """A runtime and the target that it will see. `runtime` None: the id is malformed, so it is nobody's."""

    runtime: RuntimeId | None
    target: bytes
    prefix: bytes = b""  #: what path routing cut off, to be put back into redirects
    place: Place | None = None  #: of a socket whose key is still to come: what of the key's owner's it is for
    link: bytes | None = None  #: the secret of the link by which it comes: then `target` is what stands behind the link

    @property
    def path(self) -> bytes:
        """The target without its query, still encoded."""
        return self.target.partition(b"?")[0]

    def opened_by(self, key: bytes, head: Head) -> "Destination":
        """The same once the key is known."""
        if self.place is None:
            return self
        return self._replace(runtime=runtime_by_key(key, self.place, head.get(b"x-act-as-user")), place=None)


@dataclass(frozen=True)
class Routing:
    """The rules of one listener: `fixed` belongs to a port, `domain` to the installation."""

    domain: str | None = None
    fixed: RuntimeId | None = None

    def destination(self, target: bytes, host: bytes, head: Head | None = None) -> Destination | None:
        """Where a request goes, None for the API. An origin of a runtime (its port or its host) is wholly its own. With
        its `head`, what an agent server's client sends to the API's own origin finds its runtime as well."""
        if self.fixed is not None:
            return Destination(self.fixed, target)
        if self.domain is not None:
            by_host = _runtime_of_host(host, self.domain) if len(host) <= REMEMBERED_BYTES else None
            if by_host is not None:
                return Destination(by_host, target)
            if host[:2].lower() == _LINK_HOST and (by_link := _link_of_host(host, self.domain)) is not None:
                return Destination(by_link[0], target, link=by_link[1])
        if target.startswith(PREFIX):
            return _known_by_path(target) if len(target) <= REMEMBERED_BYTES else _by_path(target)
        if target.startswith(LINK_PREFIX):
            return _by_link(target)
        return _by_key(target, head) if head is not None and is_agent_servers(head) else None


def leads_to_init(target: bytes) -> bool:
    """Whether a server could read `target` as `/api/init`, the door that only provisioning may use."""
    return _known_to_lead(target) if len(target) <= REMEMBERED_BYTES else _leads_to_init(target)


def _leads_to_init(target: bytes) -> bool:
    if target.find(b"%") < 0 and target.lower().find(b"init") < 0:  # `in` would try bytes as a number first
        return False
    plain = _SLASHES.sub(b"/", unquote_to_bytes(target).partition(b"?")[0].partition(b"#")[0])
    parts: list[bytes] = []
    for part in plain.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part.lower().strip())  # some servers pass over a line end
    return parts[:2] == [b"api", b"init"]


def without_session_key(target: bytes) -> tuple[bytes, list[bytes]]:
    """`target` without its `session_api_key` parameters, every other byte kept, and the values that they had."""
    path, mark, query = target.partition(b"?")
    kept: list[bytes] = []
    keys: list[bytes] = []
    for parameter in query.split(b"&"):
        name, _, value = parameter.partition(b"=")
        if unquote_to_bytes(name) == b"session_api_key":
            keys.append(unquote_to_bytes(value.replace(b"+", b" ")))
        else:
            kept.append(parameter)
    if not keys:
        return target, keys
    return path + (mark + b"&".join(kept) if kept else b""), keys


def _by_key(target: bytes, head: Head) -> Destination | None:
    path, _, query = target.partition(b"?")
    key = head.session_key
    if key is None and query:  # of a socket
        key = next(iter(keys_in(query)), None)
    named = runtime_of(key.decode("latin-1")) if key is not None and is_for_any_runtime(path) else None
    if named is not None:
        return Destination(named, target)
    place = place_of(head, path)
    if place is None:
        return None
    there = Destination(None, target, place=place)
    return there if key is None else there.opened_by(key, head)


def _by_path(target: bytes) -> Destination:
    at = target.find(b"/", len(PREFIX))
    if at >= 0 and (runtime := runtime_id(target[len(PREFIX) : at])) is not None:  # so there is no `?` before it
        return Destination(runtime, target[at:], target[:at])
    path, mark, query = target.partition(b"?")
    name, slash, rest = path[len(PREFIX) :].partition(b"/")
    inner = (slash + rest) or b"/"
    return Destination(runtime_id(name), inner + mark + query, PREFIX + name)


def _by_link(target: bytes) -> Destination:
    path, mark, query = target.partition(b"?")
    token, slash, rest = path[len(LINK_PREFIX) :].partition(b"/")
    inner = (slash + rest) or b"/"
    runtime, secret = token_read(token.decode("latin-1")) or (None, b"")
    return Destination(runtime, inner + mark + query, LINK_PREFIX + token, link=secret)


def _link_of_host(host: bytes, domain: str) -> tuple[RuntimeId, bytes] | None:
    """The token that is the one label before the domain, behind its prefix."""
    name = host.decode("latin-1").lower().partition(":")[0].rstrip(".")
    label, dot, rest = name.partition(".")
    return token_read(label[len(HOST_PREFIX) :]) if dot and rest == domain.lower() else None


@lru_cache(maxsize=1024)
def _runtime_of_host(host: bytes, domain: str) -> RuntimeId | None:
    """The runtime whose id is the one label before the domain; port cut, case folded."""
    name = host.decode("latin-1").lower().partition(":")[0].rstrip(".")
    label, dot, rest = name.partition(".")
    return runtime_id(label.encode("latin-1")) if dot and rest == domain.lower() else None


def runtime_id(name: bytes) -> RuntimeId | None:
    """The id in its canonical form, None if it is none."""
    return _runtime_id(name) if len(name) <= _ID_BYTES else None


@lru_cache(maxsize=4096)
def _runtime_id(name: bytes) -> RuntimeId | None:
    try:
        return RuntimeId(parse_uuid(name.decode("latin-1")))
    except InvalidRequest:
        return None


_known_to_lead = lru_cache(maxsize=_REMEMBERED)(_leads_to_init)
_known_by_path = lru_cache(maxsize=_REMEMBERED)(_by_path)
