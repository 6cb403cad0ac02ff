"""Query parameters and conditions of the native API: one that a route does not know is a mistake of the caller's, and
is named.

Passed over, a `dry_run` of a call that has none would do what it was only to tell, and an `If-Match` of a call that has
no versions would change what it was to protect.
"""

from collections.abc import Iterator

from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection, Request

from orchestrator.api.auth import caller_of
from orchestrator.domain.errors import InvalidRequest

_CONDITIONS = frozenset({"if-match", "if-none-match", "if-unmodified-since"})
_READS = frozenset({"GET", "HEAD"})


async def refuse_unknown(connection: HTTPConnection) -> None:
    """Of every request that reached a route. Raises `InvalidRequest`; before it `Unauthenticated`."""
    if connection.scope["type"] != "http":
        return
    conditions = _CONDITIONS.intersection(connection.headers) if connection.scope["method"] not in _READS else ()
    if not connection.query_params and not conditions:
        return
    await caller_of(Request(connection.scope))
    route = connection.scope["route"].dependant
    for name in conditions:
        if name not in _headers(route):
            raise InvalidRequest(
                "this call cannot be made conditional; nothing was done", field=name, hint="leave the header out"
            )
    known = set(_names(route))
    for name in connection.query_params:
        if name not in known:
            allowed = ", ".join(sorted(known))
            raise InvalidRequest(
                "this call has no such query parameter; nothing was done",
                field=name[:80],
                hint=f"known here: {allowed}" if allowed else "this call has none",
            )


def _headers(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.header_params}
    return own.union(*(_headers(inner) for inner in dependant.dependencies))


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _names(inner)
