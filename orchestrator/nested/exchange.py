"""Requests to one runtime whose answers are small: two connections, kept for as long as somebody asks.

httpcore without httpx on it, as for binding (`binding.py`): of redirects, cookies, environment and encodings a runtime
knows nothing, and a start makes seven requests, each of which cost three times as much with them.
"""

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Final, Self

import anyio
import httpcore

from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.security.connecting import NO_ANSWER, is_lost_connection

MAXIMUM_ANSWER_BYTES: Final = 16 * 1024 * 1024
_CONNECTIONS: Final = 2
#: a connection that was idle for longer is not used again: the runtime ends it after five seconds
_KEPT_SECONDS: Final = 2.0
_SHORT: Final = 1024
Content = bytes | AsyncIterator[bytes]


class Exchange:
    """With `origin` (http://host:port). Nothing is sent a second time."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._pool = httpcore.AsyncConnectionPool(max_connections=_CONNECTIONS, keepalive_expiry=_KEPT_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.aclose()

    async def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        content: Content | None = None,
        *,
        seconds: float,
        reads: bool = True,
    ) -> tuple[int, bytes]:
        """Status and body of the answer, all of it within `seconds`; without `reads` the body is left where it is not
        known to be short. Raises `RuntimeUnreachable` for no answer and one of more than 16 MiB, and what `content`
        raises."""
        call = f"{method} {target.partition('?')[0]}"
        named = [(name.encode(), value.encode()) for name, value in headers.items()]
        times = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), seconds)}
        try:
            with anyio.fail_after(seconds):  # httpcore's own limits begin anew with each piece
                stream = self._pool.stream(
                    method, self._origin + target, headers=named, content=content, extensions=times
                )
                async with stream as response:
                    return response.status, await _read(response, call) if reads or _is_short(response) else b""
        except (*NO_ANSWER, TimeoutError) as exc:
            raise RuntimeUnreachable(f"{call}: the runtime did not answer ({type(exc).__name__})") from exc
        except AttributeError as exc:
            if not is_lost_connection(exc):
                raise
            raise RuntimeUnreachable(f"{call}: the connection to the runtime ended as it was made") from exc


async def _read(response: httpcore.Response, call: str) -> bytes:
    body = b""
    async for piece in response.aiter_stream():
        body += piece
        if len(body) > MAXIMUM_ANSWER_BYTES:
            raise RuntimeUnreachable(f"{call}: the runtime's answer is larger than 16 MiB")
    return body


def _is_short(response: httpcore.Response) -> bool:
    """Then it is read, and its connection can be used again."""
    lengths = [value for name, value in response.headers if name.lower() == b"content-length"]
    return len(lengths) == 1 and len(lengths[0]) <= 4 and lengths[0].isdigit() and int(lengths[0]) <= _SHORT
