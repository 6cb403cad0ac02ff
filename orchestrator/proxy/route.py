"""Where the bytes of one runtime go: the value that `resolve` answers, and the callables that the proxy is given."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import SecretText


@dataclass(frozen=True)
class LinkRoute:
    """What one link opens. `expires_at` in seconds since 1970; `files`: where in the runtime those are that `path` is
    one of."""

    digest: str
    generation: int
    expires_at: float
    port: int | None
    path: str | None
    files: str


@dataclass(frozen=True)
class Route:
    """One live runtime of one generation."""

    runtime: RuntimeId
    tenant: TenantId
    conversation: ConversationId
    generation: int
    host: str
    port: int
    session_key_hash: str  #: SHA-256 hex of the key that clients hold
    inner_key: SecretText  #: what the runtime accepts; put in place of the client's
    own_key_hash: str = ""  #: of a route that another key opens: that of the runtime's session key
    claim: str = ""  #: by which it was opened so (`single_origin.Claim`)
    links: tuple[LinkRoute, ...] = ()
    link: str | None = None  #: the digest of the link by which an exchange or a socket came, None for a key
    version: int = field(default=0, compare=False)  #: of the record that it was read from

    @cached_property
    def place(self) -> tuple[RuntimeId, int, str, int]:
        """What a connection belongs to: never used for another generation, nor for another container there."""
        return self.runtime, self.generation, self.host, self.port

    @cached_property
    def said(self) -> tuple[bytes, ...]:
        """The lines that each request with a right key gets."""
        return *self.said_without_key, b"x-session-api-key: " + self.inner_key.open().encode()

    @cached_property
    def said_without_key(self) -> tuple[bytes, ...]:
        """The lines that a request to an open path gets."""
        return (b"x-generation: %d" % self.generation,)

    @cached_property
    def said_block(self) -> bytes:
        """`said` as the end of a head."""
        return b"\r\n".join([*self.said, b"\r\n"])

    @cached_property
    def said_block_without_key(self) -> bytes:
        """`said_without_key` as the end of a head."""
        return b"\r\n".join([*self.said_without_key, b"\r\n"])

    def leads_to(self, other: "Route") -> bool:
        """Whether both mean the same runtime of the same generation at the same place, with the same session key; and
        where a link opened the other, whether that is still there."""
        own, others = (route.own_key_hash or route.session_key_hash for route in (self, other))
        if self.place != other.place or own != others:
            return False
        return other.link is None or any(link.digest == other.link for link in self.links)


@dataclass(frozen=True)
class Unavailable:
    """The runtime exists and cannot be reached now: 503 with `Retry-After`."""

    message: str
    retry_after: int = 2
    session_key_hash: str | None = None  #: set when a request that carries this key may wake it (`Wake`)
    links: tuple[LinkRoute, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)  #: what a program may want to know: members of the body


Found = Route | Unavailable | None  #: None: unknown, 404
Resolve = Callable[[RuntimeId], Awaitable[Found]]
#: Called only for a request whose key was right, with the seconds that it waits at most; then it says for what.
Wake = Callable[[RuntimeId, float], Awaitable[Found]]
Known = Callable[[RuntimeId], Route | None]  #: a look at the cache that never waits; None: ask `Resolve`
Touch = Callable[[Route], None]  #: cheap, synchronous; batched by its owner
Invalidate = Callable[[RuntimeId], None]  #: the runtime refused the inner key: forget the cached route
