"""Pages over the conversations of this runtime, for the search route. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
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
