"""The event log by V0's numbers: a page from either end, and all of it as the trajectory.

`services/transcript.py` reads, `vocabulary.py` translates. Number 0 is the beginning: it is in no log, and is there as
soon as the agent is.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.api.auth import Owner
from orchestrator.api.context import Services
from orchestrator.domain.conversation import Conversation
from orchestrator.facades.v0.vocabulary import beginning, spoken
from orchestrator.state.base import StoredEvent

_BEFORE = 8  #: events before a page in which the action may be that an observation on it answers


@dataclass(frozen=True)
class Span:
    """Numbers from `low` to `high`, both of them in it; none when `high` is below `low`."""

    low: int
    high: int


async def page(
    services: Services, owner: Owner, conversation: Conversation, wanted: Span, *, limit: int, reverse: bool
) -> tuple[list[dict[str, Any]], bool]:
    """Up to `limit` events of `wanted`, and whether there are more of them. Raises `StoreUnavailable`."""
    last = await services.transcript.length(conversation)
    there = Span(max(wanted.low, 0), min(wanted.high, last if _begun(conversation, last) else -1))
    size = there.high - there.low + 1
    if size <= 0:
        return [], False
    if reverse:
        span = Span(max(there.low, there.high - limit + 1), there.high)
    else:
        span = Span(there.low, min(there.high, there.low + limit - 1))
    events = await _events(services, owner, conversation, span)
    return (events[::-1] if reverse else events), size > limit


async def everything(services: Services, owner: Owner, conversation: Conversation) -> AsyncIterator[dict[str, Any]]:
    """The whole log, in order, read as it is asked for. A gap is one event here."""
    if not _begun(conversation, await services.transcript.length(conversation)):
        return
    yield await _beginning(services, owner, conversation)
    known: dict[str, int] = {}
    async for stored in services.transcript.forward(conversation, after=0):
        known[stored.id] = stored.sequence
        if len(known) > 2 * _BEFORE:
            known.pop(next(iter(known)))
        for event in spoken(stored, known, low=stored.sequence, high=stored.sequence):
            yield event


def _begun(conversation: Conversation, last: int) -> bool:
    return conversation.was_ready or last > 0


async def _events(services: Services, owner: Owner, conversation: Conversation, span: Span) -> list[dict[str, Any]]:
    if span.high < span.low:
        return []
    first = [await _beginning(services, owner, conversation)] if span.low == 0 else []
    after = max(0, span.low - 1 - _BEFORE)
    stored: list[StoredEvent] = []
    while span.high and (not stored or stored[-1].sequence < span.high):
        more = await services.transcript.read(conversation, after=after, limit=span.high - after)
        if not more:
            break
        stored += more
        after = more[-1].sequence
    return first + _translated(stored, span)


def _translated(stored: Sequence[StoredEvent], span: Span) -> list[dict[str, Any]]:
    known = {event.id: event.sequence for event in stored}
    return [
        event
        for one in stored
        if one.sequence >= span.low and one.first <= span.high
        for event in spoken(one, known, low=max(span.low, 1), high=span.high)
    ]


async def _beginning(services: Services, owner: Owner, conversation: Conversation) -> dict[str, Any]:
    working = conversation.request.initial_message is not None or bool(
        await services.messages.page(owner.tenant, owner.user, conversation.id, after=0, limit=1)
    )
    return beginning(timestamp=_as_events_tell(conversation.created_at), working=working)


def _as_events_tell(at: datetime) -> str:
    """A local time without a zone, so that all events of a log compare."""
    return at.astimezone().replace(tzinfo=None).isoformat()
