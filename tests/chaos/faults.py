"""What a fault proxy does and when: a plan that a seed and the name of a place decide, draw by draw.

Pure: no clock, no socket. `relay.py` asks a plan at every connection and at every request, and does what it says.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from random import Random


class Kind(enum.StrEnum):
    LATENCY = "latency"  #: the request arrives later
    CUT = "cut"  #: no byte moves for a while, either way; then all goes on, or the connection ends
    RESET = "reset"  #: the connection ends by RST, the request has not arrived
    LOST_REPLY = "lost reply"  #: the request arrives; its answer does not, the connection ends instead
    REFUSED = "refused"  #: the connection ends as it is made, and for a while nobody listens


@dataclass(frozen=True)
class Fault:
    """`seconds` of what lasts; `ends`: whether the connection is over after a cut."""

    kind: Kind
    seconds: float = 0.0
    ends: bool = False


@dataclass(frozen=True)
class Rates:
    """How probable each fault is: `refused` at a connection, the others at a request, so that their sum is at most 1.
    `slowest` bounds a latency and `longest` a cut and a refusal, in seconds."""

    latency: float = 0.0
    cut: float = 0.0
    reset: float = 0.0
    lost_reply: float = 0.0
    refused: float = 0.0
    slowest: float = 0.3
    longest: float = 2.0


class Plan:
    """The faults of one place. The n-th connection and the n-th request meet the same under the same seed, whatever
    comes between them and however long it takes."""

    def __init__(self, seed: int, place: str, rates: Rates) -> None:
        self.rates = rates
        self._connections = Random(f"{seed}/{place}/connections")
        self._requests = Random(f"{seed}/{place}/requests")

    def at_connection(self) -> Fault | None:
        """What the next connection meets."""
        chance, share = self._connections.random(), self._connections.random()
        if chance >= self.rates.refused:
            return None
        return Fault(Kind.REFUSED, seconds=share * self.rates.longest)

    def at_request(self) -> Fault | None:
        """What the next request meets."""
        # The same number of draws for every fault: another rate leaves the rest of the sequence where it was.
        chance, share, toss = (self._requests.random() for _ in range(3))
        rates = self.rates
        for kind, rate in (
            (Kind.LATENCY, rates.latency),
            (Kind.CUT, rates.cut),
            (Kind.RESET, rates.reset),
            (Kind.LOST_REPLY, rates.lost_reply),
        ):
            if chance < rate:
                longest = {Kind.LATENCY: rates.slowest, Kind.CUT: rates.longest}.get(kind, 0.0)
                return Fault(kind, seconds=share * longest, ends=kind is Kind.CUT and toss < 0.5)
            chance -= rate
        return None
