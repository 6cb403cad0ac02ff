"""Events of an app-conversation: as the agent server wrote them, read from the orchestrator's own log, so also while it
is paused and after its sandbox is gone. Note the singular `conversation` in the path.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from orchestrator.api.auth import Owner, OwnerOf, ServicesOf
from orchestrator.api.context import Services
from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import CallerError, InvalidRequest
from orchestrator.facades.answers import V1Route
from orchestrator.facades.app_conversations.bodies import app_id
from orchestrator.services.transcript import Transcript
from orchestrator.state.base import StoredEvent

router = APIRouter(prefix="/api/v1", tags=["V1 app-conversations"], route_class=V1Route)
_MOST_LOOKED_AT = 5_000  # events that one page of a search looks at; it may be short, and then says where to go on
_MOST_IDS = 100
Limit = Annotated[int, Query(ge=1, le=100)]


class Order(StrEnum):
    TIMESTAMP = "TIMESTAMP"
    TIMESTAMP_DESC = "TIMESTAMP_DESC"


@dataclass(frozen=True)
class Filter:
    """Which events are asked for."""

    kind: str | None
    since: datetime | None
    before: datetime | None

    @property
    def takes_all(self) -> bool:
        return self.kind is None and self.since is None and self.before is None

    def keeps(self, stored: StoredEvent) -> bool:
        """The kind is looked for in the text first: most events are not parsed."""
        if self.takes_all:
            return True
        if self.kind is not None and self.kind not in stored.payload:
            return False
        event = json.loads(stored.payload)
        if self.kind is not None and event.get("kind") != self.kind:
            return False
        at = _moment(event.get("timestamp"))
        late = self.since is None or (at is not None and at >= self.since)
        return late and (self.before is None or (at is not None and at < self.before))


def _filter(
    kind__eq: str | None = None, timestamp__gte: datetime | None = None, timestamp__lt: datetime | None = None
) -> Filter:
    """A dotted class name means its last part, as with the agent server."""
    kind = None if kind__eq is None else kind__eq.rpartition(".")[2]
    return Filter(kind, _local(timestamp__gte), _local(timestamp__lt))


FilterOf = Annotated[Filter, Depends(_filter)]


@router.get("/conversation/{conversation}/events/search")
async def search(
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    wanted: FilterOf,
    sort_order: Order = Order.TIMESTAMP,
    page_id: str | None = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """A page of events, from either end."""
    return await _search(services, owner, conversation, wanted, sort_order, page_id, limit)


@router.get("/conversation/{conversation}/events/count")
async def count(conversation: str, owner: OwnerOf, services: ServicesOf, wanted: FilterOf) -> int:
    """How many there are."""
    found = await services.conversations.get(owner.tenant, owner.user, app_id(conversation))
    length = await services.transcript.length(found)
    if wanted.takes_all:
        return length
    total = 0
    async for stored in services.transcript.forward(found, after=0):
        total += wanted.keeps(stored)
    return total


@router.get("/conversation/{conversation}/events")
async def batch(
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    id: Annotated[list[str], Query(min_length=1)],
) -> list[dict[str, Any] | None]:
    """Those with these ids, in this order; null for one that is not there."""
    if len(id) > _MOST_IDS:
        raise CallerError(f"at most {_MOST_IDS} ids at once", hint="ask in several requests")
    found = await services.conversations.get(owner.tenant, owner.user, app_id(conversation))
    await services.transcript.length(found)  # what is new in the runtime is read first
    missing, known = set(id), {}
    async for stored in services.transcript.forward(found, after=0):
        if stored.id in missing:
            known[stored.id] = json.loads(stored.payload)
            missing.discard(stored.id)
            if not missing:
                break
    return [known.get(one) for one in id]


@router.get("/events/search")
async def older_search(
    conversation_id__eq: str,
    owner: OwnerOf,
    services: ServicesOf,
    wanted: FilterOf,
    sort_order: Order = Order.TIMESTAMP,
    page_id: str | None = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """The same by the address of earlier servers."""
    return await _search(services, owner, conversation_id__eq, wanted, sort_order, page_id, limit)


async def _search(
    services: Services, owner: Owner, conversation: str, wanted: Filter, order: Order, page_id: str | None, limit: int
) -> dict[str, Any]:
    found = await services.conversations.get(owner.tenant, owner.user, app_id(conversation))
    start = _page(page_id)
    last = await services.transcript.length(found)
    down = order is Order.TIMESTAMP_DESC
    start = min(start or last, last) if down else start or 1  # above the last one there is nothing to look for
    events = _from(services.transcript, found, start, down=down)
    items: list[dict[str, Any]] = []
    looked_at = 0
    async for stored in events:
        if len(items) == limit or looked_at == _MOST_LOOKED_AT:
            return {"items": items, "next_page_id": str(stored.sequence)}
        looked_at += 1
        if wanted.keeps(stored):
            items.append(json.loads(stored.payload))
    return {"items": items, "next_page_id": None}


def _from(transcript: Transcript, found: Conversation, start: int, *, down: bool) -> AsyncIterator[StoredEvent]:
    if down:
        return transcript.backward(found, before=start + 1)
    return transcript.forward(found, after=start - 1)


def _page(page_id: str | None) -> int | None:
    """The sequence where a page begins. Raises `InvalidRequest`."""
    if not page_id:
        return None
    if not (page_id.isascii() and page_id.isdigit() and len(page_id) <= 15 and int(page_id) > 0):
        raise InvalidRequest("page_id is not one of this log", field="page_id", hint="send the next_page_id of a page")
    return int(page_id)


def _moment(text: Any) -> datetime | None:
    try:
        return _local(datetime.fromisoformat(text))
    except (TypeError, ValueError):
        return None


def _local(at: datetime | None) -> datetime | None:
    """Events bear local times without a zone; a time with one is made such a time."""
    if at is None or at.tzinfo is None:
        return at
    try:
        return at.astimezone().replace(tzinfo=None)
    except (OverflowError, ValueError):  # at the end of time there is no other zone
        return at.replace(tzinfo=None)
