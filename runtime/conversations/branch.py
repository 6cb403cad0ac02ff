"""The way from the first event of a conversation to its present one, where somebody has gone back (contract 4.5).

Each event names the one before it. Going back adds nothing to the log and takes nothing away: what follows hangs on
another event. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.events.actions import TaskItem, TaskTrackerObservation
from runtime.events.models import ConversationStateUpdateEvent, ObservationEvent, StoredEvent


def branch(events: Sequence[StoredEvent], leaf: str | None) -> list[StoredEvent]:
    """The events on the way to `leaf`, oldest first; none when the conversation was taken back to its beginning.

    State updates belong to no branch and are left out.
    """
    by_id = {event.id: event for event in events}
    found: list[StoredEvent] = []
    place = leaf
    while place is not None and (event := by_id.pop(place, None)) is not None:
        if not isinstance(event, ConversationStateUpdateEvent):
            found.append(event)
        place = event.parent_id
    return found[::-1]


def tasks_of(events: Sequence[StoredEvent]) -> list[TaskItem] | None:
    """The agent's list of tasks as it stands after these events; None when there never was one."""
    for event in reversed(events):
        if isinstance(event, ObservationEvent) and isinstance(event.observation, TaskTrackerObservation):
            return event.observation.task_list
    return None
