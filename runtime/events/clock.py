"""Event times: naive UTC text with microseconds, as the contract has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)


def utc_now() -> datetime:
    """Now, naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def micros_of(moment: datetime) -> int:
    """Microseconds since 1970; a time with a zone is converted, one without is taken as UTC."""
    try:
        naive = moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:  # a zone that leads out of the years that there are
        naive = datetime.min if moment.year == datetime.min.year else datetime.max
    return (naive - _EPOCH) // timedelta(microseconds=1)


def text_of_micros(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds")


def zulu(moment: datetime) -> str:
    """The other form of the contract, for records that are not events: UTC ending in Z."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
