"""What the front accepts from a stranger, and how long it waits, in one value.

Every number is there because a client, a runtime or an attacker can push on it; nothing here is read from the
environment (`orchestrator/settings.py` does that and passes what it wants to change).
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class FrontLimits:
    """Sizes in bytes, times in seconds."""

    target_bytes: int = 8 * 1024
    head_bytes: int = 16 * 1024  #: names and values of all header lines together
    header_count: int = 100
    head_seconds: float = 10.0  #: from the first byte of a request to the end of its head, then 408
    idle_seconds: float = 30.0  #: keep-alive connection without a request
    body_idle_seconds: float = 30.0  #: a body of which nothing more arrives, then 408
    buffer_bytes: int = 256 * 1024  #: high-water mark of each direction of a proxied exchange
    connect_seconds: float = 3.0  #: to a runtime; it is near, so more than this means that it is not there
    answer_idle_seconds: float = 900.0  #: a runtime may think this long before its next byte
    answer_head_bytes: int = 64 * 1024
    upstream_idle_seconds: float = 30.0  #: an unused connection to a runtime is closed after this
    #: A request with a body cannot be sent again, so it takes a used connection only if the runtime has hardly had time
    #: to give it up (servers commonly close after five seconds).
    upstream_fresh_seconds: float = 2.0
    connections_per_runtime: int = 1000
    connections_per_tenant: int = 0  #: to all of its runtimes together, at once; 0 for any number
    resolve_seconds: float = 10.0
    wake_seconds: float = 60.0
    first_frame_seconds: float = 5.0  #: an open socket without a key may wait this long with its auth frame
    first_frame_bytes: int = 8 * 1024
    unauthenticated_sockets: int = 1000  #: per client address, at once
    unknown_per_second: int = 100  #: requests for runtimes that do not exist, per client address
    wrong_keys_per_second: int = 100  #: requests whose key opens nothing, per client address; then 429 instead of 401
    connections_per_address: int = 0  #: at once, those of sockets included; 0 for any number
    connections: int = 0  #: of all addresses together, so that other descriptors are left; 0 for any number
    allowed_origins: frozenset[str] = field(default_factory=frozenset)  #: of browser sockets, besides the same host
    local_origins: bool = True  #: pages of this machine's loopback may open sockets too
