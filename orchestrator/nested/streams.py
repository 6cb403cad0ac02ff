"""Bodies of any size to and from one runtime, for routes of the API that pass them on; never a client's data path.

Beside `client.py`, whose answers are small and read whole. Nothing is collected here but the words of a refusal.
"""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx

from orchestrator.domain import tracing
from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.domain.secrets import SecretText
from orchestrator.nested.refusals import refusal
from orchestrator.security.connecting import Transport

#: Runtimes are reached over plain http on addresses of our own. httpx would read every certificate of the machine for
#: each client, which took longer than all calls of a start together.
TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
#: seconds for a connection, and without a byte in either direction
_TIMES = httpx.Timeout(60.0, connect=5.0)
_REFUSAL_BYTES = 16 * 1024
_PIECE_BYTES = 64 * 1024
_ANSWERS = frozenset({304, 416})  #: statuses beside success that mean what they say to the caller


@dataclass
class Answer:
    """What the runtime answers: `pieces` come as they are read. To be closed, once."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes]
    _stack: AsyncExitStack

    async def close(self) -> None:
        await self._stack.aclose()


class Streams:
    """A connection of its own for every call: one may last for hours."""

    def __init__(self, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport

    async def ask(
        self,
        method: str,
        origin: str,
        target: str,
        *,
        inner_key: SecretText,
        generation: int,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes] | None = None,
    ) -> Answer:
        """`target` is a path, percent-encoded and without dot segments, with its query. Raises `Refused`,
        `RuntimeUnreachable`, and what `body` raises."""
        call = f"{method} {target.partition('?')[0].rpartition('/files')[1] or target}"
        guards = {"X-Session-API-Key": inner_key.open(), "X-Generation": str(generation), **tracing.headers()}
        async with AsyncExitStack() as stack:
            own = self._transport or Transport(verify=TRUSTS_NOBODY)
            client = httpx.AsyncClient(transport=own, trust_env=False, follow_redirects=False, timeout=_TIMES)
            http = await stack.enter_async_context(client)
            sent = {"Accept-Encoding": "identity", **headers, **guards}
            request = http.build_request(
                method,
                origin + target,
                headers=[
                    (name.encode(), value.encode("latin-1")) for name, value in sent.items()
                ],  # as a head may have them
                content=body,
            )
            try:
                response = await http.send(request, stream=True)
                stack.push_async_callback(response.aclose)
                if not response.is_success and response.status_code not in _ANSWERS:
                    raise refusal(call, response.status_code, await _beginning(response))
            except httpx.HTTPError as exc:
                raise RuntimeUnreachable(f"{call}: the runtime did not answer ({type(exc).__name__})") from exc
            return Answer(response.status_code, response.headers, _pieces(response, call), stack.pop_all())


async def _beginning(response: httpx.Response) -> bytes:
    found = b""
    async for piece in response.aiter_raw():
        found += piece
        if len(found) > _REFUSAL_BYTES:
            break
    return found[:_REFUSAL_BYTES]


async def _pieces(response: httpx.Response, call: str) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_raw(_PIECE_BYTES):
            yield piece
    except httpx.HTTPError as exc:
        raise RuntimeUnreachable(f"{call}: the runtime broke off ({type(exc).__name__})") from exc
