"""Cursors of lists: opaque text that says after which entry to go on.

A list is kept as a sorted set of `<creation ms, 13 digits>:<id>` with equal scores, so that its order is that of the
text. A page begins right after the last entry of the page before, whatever was added or removed meanwhile.
"""

import base64
import binascii
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from orchestrator.domain.errors import InvalidRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST = 9_999_999_999_999  # of 13 digits


def member(created_at: datetime, id: str) -> str:
    """The entry of a list."""
    return f"{milliseconds(created_at):013d}:{id}"


def member_id(entry: str) -> str:
    """The id in an entry."""
    return entry.partition(":")[2]


def milliseconds(moment: datetime) -> int:
    """Since the epoch, rounded down."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def bounds(
    cursor: str | None, since: datetime | None, until: datetime | None, *, oldest_first: bool = False
) -> tuple[str, str]:
    """The lowest and the highest entry of a page, as Redis takes them: made at `since` or later and before `until`, and
    behind `cursor` in the order of the list. Raises `InvalidRequest` as `decode`."""
    low = "-" if since is None else f"[{_first(since)}"
    high = "+" if until is None else f"({_first(until)}"
    if cursor is None:
        return low, high
    last = decode(cursor)
    if oldest_first:
        return f"({last}" if low == "-" or last >= low[1:] else low, high
    return low, f"({last}" if high == "+" or last < high[1:] else high


def _first(moment: datetime) -> str:
    """What no entry of an earlier millisecond reaches, and every one of this or a later one does."""
    return f"{min(max(0, milliseconds(moment)), _MOST):013d}"


def encode(entry: str) -> str:
    """The cursor behind `entry`."""
    return base64.urlsafe_b64encode(entry.encode()).rstrip(b"=").decode()


def decode(cursor: str) -> str:
    """The entry of a cursor that a caller sent. Raises `InvalidRequest`."""
    try:
        entry = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        entry = ""
    if entry[13:14] != ":" or not entry[:13].isdigit():
        raise InvalidRequest("page_id is not one that a list answered", field="page_id", hint="start without it")
    return entry


def page(
    entries: Iterable[str], bounds: tuple[str, str], limit: int, *, oldest_first: bool
) -> tuple[list[str], str | None]:
    """The page of `entries` within `bounds`, and the cursor behind that page, None when it is the last.

    The memory store's way; Redis does the same with its own order.
    """
    ordered = sorted((entry for entry in entries if _within(entry, *bounds)), reverse=not oldest_first)
    return ordered[:limit], encode(ordered[limit - 1]) if len(ordered) > limit else None


def _within(entry: str, low: str, high: str) -> bool:
    """Whether `bounds` have the entry between them."""
    above = low == "-" or entry > low[1:] or (low[0] == "[" and entry == low[1:])
    return above and (high == "+" or entry < high[1:])
