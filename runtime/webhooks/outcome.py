"""What an answer of a receiver means for what is still to be sent, and when to try again. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: between two tries at the longest, when nobody asked for more
LONGEST_DELAY = 300.0
#: the longest that a receiver may ask for
LONGEST_WISH = 3600.0
#: where growth begins when the configured delay is shorter
_SHORTEST_GROWTH = 1.0
#: the receiver as a whole cannot take anything now
_BUSY = frozenset((408, 425, 429, 502, 503, 504))


class Verdict(enum.Enum):
    """What becomes of a parcel."""

    DELIVERED = "delivered"  #: acknowledged: it need not be kept
    UNREACHABLE = "unreachable"  #: nobody took it, and nobody would take another one now
    FAILED = "failed"  #: this one was not taken; others may be
    REFUSED = "refused"  #: it will not be taken as long as neither side changes
    TOO_LARGE = "too large"  #: fewer events might be taken
    GONE = "gone"  #: the receiver wants nothing any more


@dataclass(frozen=True)
class Outcome:
    """One try to deliver. `told` is for the log: a status or the name of an error."""

    verdict: Verdict
    told: str = ""
    wish: float | None = None  #: seconds that the receiver asked to wait


DELIVERED = Outcome(Verdict.DELIVERED)


def of_answer(status: int, headers: Mapping[str, str], *, now: datetime | None = None) -> Outcome:
    """What the receiver said. A redirect is a refusal: what is sent is meant for the configured address alone."""
    told = f"status {status}"
    if 200 <= status < 300:
        return DELIVERED
    if status == 410:
        return Outcome(Verdict.GONE, told)
    wish = _wish(headers.get("retry-after"), now or datetime.now(UTC))
    if status in _BUSY:
        return Outcome(Verdict.UNREACHABLE, told, wish)
    if status >= 500:
        return Outcome(Verdict.FAILED, told, wish)
    return Outcome(Verdict.TOO_LARGE if status == 413 else Verdict.REFUSED, told, wish)


def delay(failures: int, *, retries: int, first: float, chance: float) -> float:
    """Seconds until the next try after so many failures in a row. `chance` is between 0 and 1.

    The first `retries` come at the configured distance and a little more; then the distance doubles up to some minutes.
    """
    if failures <= retries:
        return first * (1 + chance / 4)
    growth = max(first, _SHORTEST_GROWTH) * 2.0 ** min(failures - retries, 32)
    return max(first, min(LONGEST_DELAY, growth) * (1 - chance / 2))


def _wish(text: str | None, now: datetime) -> float | None:
    if text is None:
        return None
    text = text.strip()
    try:
        seconds = float(text) if text.isascii() and text.isdigit() else _until(text, now)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_WISH)


def _until(text: str, now: datetime) -> float:
    moment = parsedate_to_datetime(text)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() - now.timestamp()
