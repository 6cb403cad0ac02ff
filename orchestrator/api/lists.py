"""How the lists of the native API are asked for: pages, batches by id, filters and counts (api-conventions.md 4)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeVar

from fastapi import Depends, Query, Request

from orchestrator.api.answers.records import Status
from orchestrator.api.paging import Paging
from orchestrator.domain.conversation import STATUS_OF, Phase
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.ids import parse_uuid
from orchestrator.services.conversation_lists import Filters
from orchestrator.state.base import Span

T = TypeVar("T")
MOST = 100
OLDEST_FIRST: Final = "CREATED_AT"

Limit = Annotated[int, Query(ge=1, le=MOST, description="How many at most")]
SortOrder = Annotated[
    Literal["CREATED_AT", "CREATED_AT_DESC"], Query(description="By the moment of creation; CREATED_AT: oldest first")
]
#: of lists that go by number: as many as every store can hold
Number = Annotated[int, Query(ge=0, lt=2**53)]
PageNumber = Annotated[int | None, Query(ge=0, lt=2**53, description="The `next_page_id` of the page before")]
Moment = Annotated[datetime | None, Query(description="A moment without a zone is meant in UTC")]


BatchOf = Annotated[
    list[str] | None,
    Query(max_length=MOST, description="These, in this order, with null for what is not there; no other filter"),
]


def asked_ids(request: Request, ids: BatchOf = None) -> Sequence[str] | None:
    """Those that are asked for one by one. Raises `InvalidRequest` where something else is asked for as well."""
    if ids is not None:
        alone(request, "ids", "deleted")
    return ids


def alone(request: Request, *names: str) -> None:
    """Raises `InvalidRequest` where anything else is asked for beside `names`."""
    if others := sorted(set(request.query_params).difference(names)):
        raise InvalidRequest(
            f"{names[0]} goes with no {others[0][:80]}", field=others[0][:80], hint="leave one of the two out"
        )


def place_of(request: Request, after: int, page_id: int | None) -> int:
    """Where a list that goes by number begins: a `next_page_id` is a number there, and good as either. Raises
    `InvalidRequest` for both at once."""
    if page_id is not None and "after" in request.query_params:
        raise InvalidRequest("page_id goes with no after", field="page_id", hint="leave one of the two out")
    return after if page_id is None else page_id


def span_of(created_at__gte: Moment = None, created_at__lt: Moment = None) -> Span:
    """When they were made."""
    return Span(moment(created_at__gte), moment(created_at__lt))


IdsOf = Annotated[Sequence[str] | None, Depends(asked_ids)]
SpanOf = Annotated[Span, Depends(span_of)]


def filters_of(
    span: SpanOf,
    updated_at__gte: Moment = None,
    updated_at__lt: Moment = None,
    phase__eq: Phase | None = None,
    phase__in: Annotated[list[Phase] | None, Query(description="One of these; repeat it")] = None,
    status__eq: Status | None = None,
    status__in: Annotated[list[Status] | None, Query(description="One of these; repeat it")] = None,
    label: Annotated[list[str] | None, Query(max_length=64, description="`name:value`; repeated: all of them")] = None,
    deleted: Annotated[bool, Query(description="With those that can still be brought back")] = False,
) -> Filters:
    """Of conversations and bare runtimes. Raises `InvalidRequest` for a label that is none."""
    chosen = [
        None if phase__eq is None else {phase__eq},
        None if phase__in is None else set(phase__in),
        None if status__eq is None else {phase for phase, status in STATUS_OF.items() if status == status__eq},
        None if status__in is None else {phase for phase, status in STATUS_OF.items() if status in status__in},
    ]
    phases = [one for one in chosen if one is not None]
    return Filters(
        span=span,
        updated=Span(moment(updated_at__gte), moment(updated_at__lt)),
        phases=frozenset.intersection(*map(frozenset, phases)) if phases else None,
        labels=_labels(label or ()),
        deleted=deleted,
    )


def titled_of(
    filters: Annotated[Filters, Depends(filters_of)],
    title__contains: Annotated[
        str | None, Query(min_length=1, max_length=200, description="Upper and lower case alike")
    ] = None,
) -> Filters:
    """Of conversations."""
    return replace(filters, title=title__contains)


RuntimeFilters = Annotated[Filters, Depends(filters_of)]
ConversationFilters = Annotated[Filters, Depends(titled_of)]


def moment(sent: datetime | None) -> datetime | None:
    """One without a zone is meant in UTC."""
    return sent if sent is None or sent.tzinfo is not None else sent.replace(tzinfo=UTC)


def whole(
    items: Collection[T],
    key: Callable[[T], str],
    *,
    by: Callable[[T], str] | None = None,
    ids: Sequence[str] | None,
    paging: Paging,
    limit: int,
    sort_order: str = OLDEST_FIRST,
) -> tuple[list[T | None], str | None]:
    """A page of a list that is read whole, in the order of `by` (else of `key`, its id or name), and the `page_id`
    behind it; or those of `ids`. A page begins right behind the last entry of the page before, whatever was added or
    removed meanwhile."""
    if ids is not None:
        there = {key(one): one for one in items}
        return [there.get(id) for id in ids], None
    place = by or key
    oldest_first = sort_order == OLDEST_FIRST
    ordered = sorted(items, key=place, reverse=not oldest_first)
    if (last := paging.after) is not None:
        ordered = [one for one in ordered if (place(one) > last if oldest_first else place(one) < last)]
    following = place(ordered[limit - 1]) if len(ordered) > limit else None
    return [*ordered[:limit]], paging.next(following)


def uuids(ids: Sequence[str] | None) -> list[str] | None:
    """`ids` in their canonical form. Raises `InvalidRequest` for one that is no UUID."""
    return None if ids is None else [parse_uuid(id, "ids") for id in ids]


def _labels(sent: Sequence[str]) -> Mapping[str, str]:
    labels: dict[str, str] = {}
    for text in sent:
        name, colon, value = text.partition(":")
        if not colon or not name:
            raise InvalidRequest("a label is asked for as name:value", field="label", hint="such as label=team:blue")
        if labels.setdefault(name, value) != value:
            raise InvalidRequest(f"a label has one value: {name[:80]}", field="label", hint="ask for one of them")
    return labels
