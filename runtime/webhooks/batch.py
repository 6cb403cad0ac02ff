"""Events as receivers get them: nulls present, live secrets masked, in an array no larger than was asked for. Pure.

The log has agents' events masked already. What a user wrote it has as it was written, because the model must read it;
to others it goes masked as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

from runtime.events.log import EventLog
from runtime.events.models import ConversationStateUpdateEvent, Event, parse
from runtime.secrets.masking import Mask
from runtime.webhooks.sender import Parcel

log = structlog.get_logger()

#: what joins events to others and must stay, even where a secret is spelt like a part of it
_JOINTS = ("id", "timestamp", "parent_id", "key", "tool_name", "tool_call_id", "action_id", "llm_response_id")
#: the same in the value of a whole state
_STATE_JOINTS = ("id", "execution_status", "last_user_message_id", "leaf_event_id")
_FULL_STATE = "full_state"


@dataclass(frozen=True)
class Batch:
    """The events after `after` up to `last`, in wire form. Numbers count from 1, as sequences do."""

    after: int
    events: Sequence[bytes]
    #: nothing is sent of these, because it was not kept
    lost_through: int | None = None

    @property
    def last(self) -> int:
        return self.lost_through if self.lost_through is not None else self.after + len(self.events)


def wire_form(event: Event, mask: Mask | None = None) -> bytes:
    """One event as JSON with its nulls."""
    return (event if mask is None else _masked(event, mask)).model_dump_json().encode()


def _masked(event: Event, mask: Mask) -> Event:
    kept = {name: getattr(event, name) for name in _JOINTS if name in type(event).model_fields}
    if isinstance(event, ConversationStateUpdateEvent):
        kept["value"] = event.value  # words of the runtime itself, but for the whole state
        if event.key == _FULL_STATE and isinstance(event.value, dict):
            joints = {name: event.value[name] for name in _STATE_JOINTS if name in event.value}
            kept["value"] = {**mask.tree(event.value), **joints}
    return mask.model(event).model_copy(update=kept)


def wire_forms(lines: Iterable[bytes], mask: Mask | None, *, most_bytes: int) -> list[bytes]:
    """As many of these log lines as fit into a body of that size, at least one. Takes its time: call it in a thread."""
    found: list[bytes] = []
    size = 2
    for line in lines:
        try:
            form = wire_form(parse(line), mask)
        except ValidationError:  # of another version of this runtime: a valid event all the same
            form = line if mask is None else mask.text(line.decode(errors="replace")).encode()
        size += len(form) + 1
        if found and size > most_bytes:
            break
        found.append(form)
    return found


def lines_after(events: EventLog, after: int, through: int, *, most_events: int, most_bytes: int) -> list[bytes]:
    """Log lines after the event of that number, at least one when there is one, about as many bytes as asked for."""
    last = min(through, len(events), after + most_events)
    return events.reading(lambda: events.lines(after, _last_that_fits(events, after, last, most_bytes)))


def _last_that_fits(events: EventLog, after: int, last: int, most_bytes: int) -> int:
    start = events.index.end_at(after - 1)
    low, high = min(after + 1, last), last
    while low < high:
        middle = (low + high + 1) // 2
        if events.index.end_at(middle - 1) - start <= most_bytes:
            low = middle
        else:
            high = middle - 1
    return low


def events_parcel(
    conversation: str, batch: Batch, live: Sequence[tuple[int, bytes]], headers: Mapping[str, str]
) -> Parcel:
    """The post of a batch, with the events that are not stored where they belong: each after so many of the log."""
    told = dict(headers)
    if batch.lost_through is not None:
        told |= {"x-nestor-gap-first": str(batch.after + 1), "x-nestor-gap-last": str(batch.lost_through)}
    elif batch.events:
        told |= {"x-nestor-sequence-first": str(batch.after + 1), "x-nestor-sequence-last": str(batch.last)}
    numbered = [(number, 0, event) for number, event in enumerate(batch.events, batch.after + 1)]
    all_of_them = sorted([*numbered, *((max(after, batch.after), 1, event) for after, event in live)], key=_place)
    return Parcel(f"/events/{conversation}", b"[" + b",".join(event for _, _, event in all_of_them) + b"]", told)


def _place(item: tuple[int, int, bytes]) -> tuple[int, int]:
    return item[:2]
