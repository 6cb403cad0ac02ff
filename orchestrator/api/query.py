"""Query parameters, conditions and types of bodies of the native API: one that a route does not know is a mistake of
the caller's, and is named.

Passed over, a `dry_run` of a call that has none would do what it was only to tell, and an `If-Match` of a call that has
no versions would change what it was to protect.
"""

from collections.abc import Iterator

from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection, Request

from orchestrator.api.auth import caller_of
from orchestrator.api.middleware import STREAMED_PATHS
from orchestrator.domain.errors import InvalidRequest, UnsupportedType

_CONDITIONS = frozenset({"if-match", "if-none-match", "if-unmodified-since"})
_READS = frozenset({"GET", "HEAD"})


async def refuse_unknown(connection: HTTPConnection) -> None:
    """Of every request that reached a route. Raises `InvalidRequest`; before it `Unauthenticated`."""
    if connection.scope["type"] != "http":
        return
    # Files look at theirs themselves (`files.py`).
    bound = connection.scope["method"] not in _READS and not STREAMED_PATHS.fullmatch(connection.scope["path"])
    conditions = _CONDITIONS.intersection(connection.headers) if bound else ()
    foreign = _has_other_body(connection)
    if not connection.query_params and not conditions and not foreign:
        return
    await caller_of(Request(connection.scope))
    if foreign:
        raise UnsupportedType("this call takes application/json", hint="send `Content-Type: application/json`")
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


def _has_other_body(connection: HTTPConnection) -> bool:
    """Whether a body was sent that is not JSON, to a route that reads JSON."""
    headers = connection.headers
    if connection.scope["route"].body_field is None or (
        headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    ):
        return False
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json"))


def _headers(dependant: Dependant) -> set[str]:
    own = {field.alias.lower() for field in dependant.header_params}
    return own.union(*(_headers(inner) for inner in dependant.dependencies))


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _names(inner)
