"""Requests to one runtime whose answers are small: two connections, kept for as long as somebody asks."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.nested.connection import Connection, Content, TooLarge, Unanswered

MAXIMUM_ANSWER_BYTES: Final = 16 * 1024 * 1024
_CONNECTIONS: Final = 2
#: a connection that was idle for longer is not used again: the runtime ends it after five seconds
_KEPT_SECONDS: Final = 2.0


class Exchange:
    """With `origin` (http://host:port). Nothing is sent a second time."""

    def __init__(self, origin: str) -> None:
        at = urlsplit(origin)
        self._host, self._port = at.hostname or "", at.port or 80
        self._idle: list[tuple[Connection, float]] = []
        self._free = asyncio.Semaphore(_CONNECTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._idle:
            self._idle.pop()[0].close()

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
        try:
            async with asyncio.timeout(seconds), self._free:
                connection = self._kept() or await Connection.to(self._host, self._port)
                answer = await connection.ask(
                    method, target, headers, content, longest=MAXIMUM_ANSWER_BYTES, reads=reads
                )
        except TooLarge as exc:
            raise RuntimeUnreachable(f"{call}: the runtime's answer is larger than 16 MiB") from exc
        except (Unanswered, TimeoutError) as exc:
            raise RuntimeUnreachable(f"{call}: the runtime did not answer ({type(exc).__name__})") from exc
        if connection.is_usable:
            self._idle.append((connection, asyncio.get_running_loop().time()))
        else:
            connection.close()
        return answer

    def _kept(self) -> Connection | None:
        while self._idle:
            connection, since = self._idle.pop()
            if connection.is_usable and asyncio.get_running_loop().time() - since <= _KEPT_SECONDS:
                return connection
            connection.close()
        return None
