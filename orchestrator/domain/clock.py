"""Time as an argument. Services take a `Clock`, so that tests choose what time it is."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where the wall time and the monotonic time come from."""

    def now(self) -> datetime:
        """The present moment, in UTC with a zone."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def rfc3339(moment: datetime) -> str:
    """`2026-01-02T03:04:05.678Z`: how every surface of the native API writes a moment."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str) -> datetime:
    """The inverse of `rfc3339`; raises ValueError."""
    return datetime.fromisoformat(text)
