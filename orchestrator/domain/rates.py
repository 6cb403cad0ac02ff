"""How many calls of the API a key, and a tenant with all of its keys, may send: a bucket of tokens each. Pure values.

A bucket holds `burst` tokens when it is full and gets `per_second` of them back each second; a call takes one.
"""

from dataclasses import dataclass

BURST_SECONDS = 10  #: of calls that a bucket holds: a script may begin with as many at once


@dataclass(frozen=True)
class Rate:
    """Of one bucket. `rule` is what is told of it."""

    rule: str
    per_second: int

    @property
    def burst(self) -> int:
        return self.per_second * BURST_SECONDS


@dataclass(frozen=True)
class Taken:
    """`granted` tokens, 0 for none: then `rule` is the bucket that is empty, and `wait_ms` until it has one again."""

    granted: int
    rule: str = ""
    wait_ms: int = 0
