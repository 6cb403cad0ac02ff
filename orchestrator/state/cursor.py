"""Cursors of lists: opaque text that says after which entry to go on.

A list is kept as a sorted set of `<creation ms, 13 digits>:<id>` with equal scores, so that its order is that of the
text. A page begins right after the last entry of the page before, whatever was added or removed meanwhile.
"""

import base64
import binascii
from collections.abc import Iterable
from datetime import datetime

from orchestrator.domain.errors import InvalidRequest


def member(created_at: datetime, id: str) -> str:
    """The entry of a list."""
    return f"{milliseconds(created_at):013d}:{id}"


def member_id(entry: str) -> str:
    """The id in an entry."""
    return entry.partition(":")[2]


def milliseconds(moment: datetime) -> int:
    """Since the epoch, rounded down."""
    return int(moment.timestamp() * 1000)


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
    entries: Iterable[str], cursor: str | None, limit: int, *, newest_first: bool = False
) -> tuple[list[str], str | None]:
    """The page of `entries` behind `cursor`, and the cursor behind that page, None when it is the last.

    The memory store's way; Redis does the same with its own order. Raises `InvalidRequest` as `decode` does.
    """
    ordered = sorted(entries, reverse=newest_first)
    if cursor is not None:
        last = decode(cursor)
        ordered = [entry for entry in ordered if (entry < last if newest_first else entry > last)]
    return ordered[:limit], encode(ordered[limit - 1]) if len(ordered) > limit else None
