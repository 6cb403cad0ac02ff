"""How httpx connects for the orchestrator: a connection that ends as it is made is a `ConnectError`, on every loop.

Under uvloop a socket that the other side has reset is None already when httpx's lower layers ask it for its peer, and
they let the `AttributeError` of that through. Taken for what it says, it ended a loop or told a user nonsense.
"""

import httpx


class Transport(httpx.AsyncHTTPTransport):
    """As its base, which takes the arguments. Raises `httpx.ConnectError` where the base raises `AttributeError`."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except AttributeError as exc:
            if not is_lost_connection(exc):
                raise
            raise httpx.ConnectError("the connection ended as it was made", request=request) from exc


def is_lost_connection(exc: AttributeError) -> bool:
    """Whether that is a socket that is gone, and no mistake in the code."""
    return exc.obj is None and exc.name in ("getpeername", "getsockname", "family")
