"""Pages over the conversations of this runtime, for the search route. Knows the records alone."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter, is_
from uuid import UUID

from runtime.conversations.record import ConversationRecord
from runtime.conversations.status import Status


class SortOrder(enum.StrEnum):
    CREATED_AT = "CREATED_AT"
    UPDATED_AT = "UPDATED_AT"
    CREATED_AT_DESC = "CREATED_AT_DESC"
    UPDATED_AT_DESC = "UPDATED_AT_DESC"


class UnknownPage(ValueError):
    """The page id names no conversation of this search; start again without page_id."""


@dataclass(frozen=True)
class Page:
    """Records in the asked order, and the first conversation of the next page."""

    records: list[ConversationRecord]
    next_id: UUID | None


def page(
    records: Sequence[ConversationRecord], *, page_id: UUID | None, limit: int, status: Status | None, order: SortOrder
) -> Page:
    """Up to `limit` records, beginning with `page_id` when given. Raises UnknownPage."""
    wanted = [record for record in records if record.execution_status is status] if status else list(records)
    by_update = order in {SortOrder.UPDATED_AT, SortOrder.UPDATED_AT_DESC}
    wanted.sort(
        key=attrgetter("updated_at" if by_update else "created_at", "id"),
        reverse=order in {SortOrder.CREATED_AT_DESC, SortOrder.UPDATED_AT_DESC},
    )
    first = 0
    if page_id is not None:
        first = next((place for place, record in enumerate(wanted) if record.id == page_id), -1)
        if first < 0:
            raise UnknownPage("page_id names no conversation of this search; start again without it")
    following = wanted[first + limit].id if first + limit < len(wanted) else None
    return Page(wanted[first : first + limit], following)


class Newest:
    """First pages in the usual order, put in order anew only when a record came or went: `created_at` never changes."""

    def __init__(self) -> None:
        self._given: Sequence[ConversationRecord] = ()
        self._ordered: list[ConversationRecord] = []

    def page(self, records: Sequence[ConversationRecord], limit: int) -> Page:
        """The same as `page` without page_id and status."""
        if len(records) != len(self._given) or not all(map(is_, records, self._given)):
            whole = page(records, page_id=None, limit=len(records), status=None, order=SortOrder.CREATED_AT_DESC)
            self._given, self._ordered = records, whole.records
        following = self._ordered[limit].id if limit < len(self._ordered) else None
        return Page(self._ordered[:limit], following)
