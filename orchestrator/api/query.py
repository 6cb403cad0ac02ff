"""Query parameters of the native API: one that a route does not know is a mistake of the caller's, and is named.

Passed over, a `dry_run` of a call that has none would do what it was only to tell.
"""

from collections.abc import Iterator

from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection, Request

from orchestrator.api.auth import caller_of
from orchestrator.domain.errors import InvalidRequest


async def refuse_unknown(connection: HTTPConnection) -> None:
    """Of every request that reached a route. Raises `InvalidRequest`; before it `Unauthenticated`."""
    if connection.scope["type"] != "http" or not connection.query_params:
        return
    await caller_of(Request(connection.scope))
    known = set(_names(connection.scope["route"].dependant))
    for name in connection.query_params:
        if name not in known:
            allowed = ", ".join(sorted(known))
            raise InvalidRequest(
                "this call has no such query parameter; nothing was done",
                field=name[:80],
                hint=f"known here: {allowed}" if allowed else "this call has none",
            )


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _names(inner)
