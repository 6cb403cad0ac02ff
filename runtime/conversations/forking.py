"""A copy of a conversation up to an event, as a conversation of its own (contract 4.5, fork).

The log is copied line by line, ids included, so that what pointed to an event still does. The workspace is
shared: it is a folder of the machine. Blocking: call it in a thread.
"""

from __future__ import annotations

from uuid import UUID

from runtime.agent.stats import Stats
from runtime.conversations.folder import Folders
from runtime.conversations.record import ConversationRecord
from runtime.conversations.status import Status
from runtime.events.clock import utc_now
from runtime.events.log import EventLog
from runtime.events.models import parse

_BLOCK = 200


class UnknownEvent(Exception):
    """The conversation has no event with this id."""


def forked(
    source: ConversationRecord,
    new_id: UUID,
    *,
    title: str | None,
    tags: dict[str, str] | None,
    reset_metrics: bool,
    from_event_id: str | None,
) -> ConversationRecord:
    """The record of the copy, at rest. Nothing is written."""
    now = utc_now()
    return source.model_copy(
        deep=True,
        update={
            "id": new_id,
            "execution_status": Status.IDLE,
            "title": title if title is not None else source.title,
            "tags": source.tags if tags is None else tags,
            "stats": Stats() if reset_metrics else source.stats.model_copy(deep=True),
            "leaf_event_id": from_event_id if from_event_id is not None else source.leaf_event_id,
            "branched": source.branched or from_event_id is not None,
            "forked_from_conversation_id": source.id,
            "forked_from_event_id": from_event_id,
            "parent_conversation_id": None,
            "sub_conversation_ids": [],
            "session_begun": False,
            "goal": None,
            "created_at": now,
            "updated_at": now,
            "log_events": 0,
            "log_bytes": 0,
        },
    )


def copy_log(source: EventLog, count: int, folders: Folders, record: ConversationRecord) -> None:
    """Make the folder of the copy, with the first `count` events of the source, and its record. Raises OSError."""
    target = EventLog(folders.make(record.id))
    try:
        for start in range(0, count, _BLOCK):
            for line in source.lines(start, min(start + _BLOCK, count)):
                target.append(parse(line))
        target.sync()
        record.log_events, record.log_bytes = len(target), target.index.end
    finally:
        target.close()
    folders.write(record)
