"""Pages of every list of the native API: where one begins, and the `page_id` of the next (api-conventions.md 4).

A `page_id` is a place in a list, signed, and good for nothing but the call that answered it: the same path, the same
filters and order, for the same tenant and user. `limit` may change from page to page. Facades have page ids of their
own.
"""

from typing import Annotated, NamedTuple

from fastapi import Depends, Query, Request

from orchestrator.api.auth import CallerOf, ServicesOf
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.ids import parse_uuid
from orchestrator.security.page_marks import PageMarks

_FREE = frozenset({"page_id", "limit"})  #: of a query: what may differ between two pages of one list


class Paging(NamedTuple):
    """Of one request."""

    marks: PageMarks
    of: tuple[str, ...]  #: what makes the list that is asked for this one
    after: str | None  #: the place behind which the page begins; None: the beginning

    def next(self, place: str | None) -> str | None:
        """The `page_id` of the page that begins behind `place`; None where there is none."""
        return None if place is None else self.marks.sign(place, self.of)


async def paging(
    request: Request,
    caller: CallerOf,
    services: ServicesOf,
    page_id: Annotated[
        str | None,
        Query(description="The `next_page_id` of the page before, with the same filters; else 422"),
    ] = None,
) -> Paging:
    """Raises `InvalidRequest` for a `page_id` that this list did not answer."""
    query = sorted((name, value) for name, value in request.query_params.multi_items() if name not in _FREE)
    inside = (_alike(str(value)) for value in request.path_params.values())
    acting = _alike(request.headers.get("x-act-as-user", ""))
    whose = (caller.tenant or "", caller.user or acting)
    of = (request.scope["route"].path, *inside, "", *whose, *(part for pair in query for part in pair))
    after = None if page_id is None else services.page_marks.read(page_id, of)
    if page_id is not None and after is None:
        raise InvalidRequest(
            "page_id is not one that this list answered under these filters",
            field="page_id",
            hint="repeat the call that answered it, changing page_id and limit alone; or start without it",
        )
    return Paging(services.page_marks, of, after)


PagingOf = Annotated[Paging, Depends(paging)]


def _alike(text: str) -> str:
    """An id in whichever form; other text as it is."""
    try:
        return parse_uuid(text)
    except InvalidRequest:
        return text
