"""Drift: a runtime no longer holds what was pushed, because somebody changed it there. Pure rules.

It is repaired at once the first time. Where somebody changes it again and again, each repair in a row waits twice as
long as the one before, so that the two never race.
"""

import enum
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

_FIRST_REST, _LONGEST_REST = timedelta(minutes=1), timedelta(hours=1)


class Part(enum.StrEnum):
    """What of a configuration can drift by itself."""

    SETTINGS = "settings"
    PROVIDERS = "git_providers"
    SECRETS = "secrets"


@dataclass(frozen=True)
class Seen:
    """What a runtime said of each part just after a push: digests under a key of its own."""

    settings: str
    git_providers: str
    secrets: str
    values: bool = True  #: False: values that are not shown are not in it (a stock agent server)

    def differs(self, later: "Seen") -> tuple[Part, ...]:
        """The parts that are another in `later`."""
        return tuple(part for part in Part if getattr(self, part) != getattr(later, part))


@dataclass(frozen=True)
class Drift:
    """The last one that was seen."""

    parts: tuple[Part, ...]
    seen_at: datetime
    repair_at: datetime  #: not before; of the next one, when this one is repaired
    repaired_at: datetime | None = None  #: None: it is still there
    repairs: int = 0  #: since the start
    in_a_row: int = 0


def seen(last: Drift | None, parts: tuple[Part, ...], *, now: datetime) -> Drift:
    """As `last`, with what is seen at `now`. One that is there already keeps the time at which it came."""
    if last is None:
        return Drift(parts, seen_at=now, repair_at=now)
    if last.repaired_at is None:
        return replace(last, parts=parts)
    calm = now >= last.repair_at + _rest(last.in_a_row)
    row, repair_at = (0, now) if calm else (last.in_a_row, last.repair_at)
    return replace(last, parts=parts, seen_at=now, repaired_at=None, in_a_row=row, repair_at=repair_at)


def repaired(drift: Drift, *, now: datetime) -> Drift:
    """It is there no longer, by a push of ours."""
    row = drift.in_a_row + 1
    return replace(drift, repaired_at=now, repairs=drift.repairs + 1, in_a_row=row, repair_at=now + _rest(row))


def is_due(drift: Drift | None, *, now: datetime) -> bool:
    """Whether it is there and may be repaired now."""
    return drift is not None and drift.repaired_at is None and drift.repair_at <= now


def _rest(in_a_row: int) -> timedelta:
    return min(_LONGEST_REST, _FIRST_REST * (1 << min(max(in_a_row - 1, 0), 10)))
