"""One HTTP post to one receiver: bounded in time and in what is read of the answer, never redirected.

The client library is imported when the first thing is to be sent, in a thread, so that a runtime without webhooks never
pays for it; a spare and a zygote `load` it ahead of time. It is httpcore, which does all that is needed here: httpx
above it takes two megabytes more, in every runtime that has an orchestrator. Knows nothing of events.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from runtime.webhooks.configuration import Webhook
from runtime.webhooks.outcome import DELIVERED, Outcome, Verdict, of_answer

if TYPE_CHECKING:
    import httpcore

#: for the whole exchange, as the contract has it
TIMEOUT_SECONDS = 30.0
#: to one receiver at once; and how long one that is idle is kept
_CONNECTIONS, _IDLE_SECONDS = 20, 5.0
#: of an answer that nobody reads; more ends the connection
_ANSWER_BYTES = 64 << 10


@dataclass(frozen=True)
class Parcel:
    """One post. `path` is appended to the receiver's base URL."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def load() -> None:
    """Import all that a post needs. Blocks for a tenth of a second, the first time."""
    import_module("httpcore")


class Sender:
    """Posts to one receiver, with what only it may know in the headers."""

    def __init__(self, webhook: Webhook, *, session_key: SecretStr | None, seconds: float = TIMEOUT_SECONDS) -> None:
        self._webhook = webhook
        self._session_key = session_key if webhook.send_session_key else None
        self._seconds = seconds
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._opening = asyncio.Lock()

    async def post(self, parcel: Parcel) -> Outcome:
        """Send it once. Raises nothing but CancelledError; then it may have arrived."""
        if self._pool is None:
            await asyncio.to_thread(load)
        import httpcore

        lost = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.UnsupportedProtocol)
        try:
            pool = await self._open()
            async with (
                asyncio.timeout(self._seconds),
                pool.stream(
                    self._webhook.method,
                    self._webhook.base_url + parcel.path,
                    headers=list(self._headers(parcel).items()),
                    content=parcel.body,
                    extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), self._seconds)},
                ) as answer,
            ):
                with contextlib.suppress(*lost):  # the status has said already what counts
                    await _read(answer)
        except (*lost, TimeoutError, OSError) as error:
            return Outcome(Verdict.UNREACHABLE, type(error).__name__)
        except AttributeError as error:
            # Under uvloop a connection's socket that was reset as it was made is None when the library looks at it.
            if error.obj is not None:
                raise
            return Outcome(Verdict.UNREACHABLE, "ConnectError")
        told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
        return of_answer(answer.status, told)

    async def close(self) -> None:
        """Close what connections are open. Idempotent."""
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None

    def _headers(self, parcel: Parcel) -> dict[str, str]:
        """The receiver's own, then ours: a key of the runtime's is no matter of configuration."""
        host = urlsplit(self._webhook.base_url).netloc  # as it was given, with the brackets of an address
        found = {"host": host, "content-type": "application/json", "user-agent": "nestor-runtime"}
        for name, value in self._webhook.headers.items():
            found[name.lower()] = value.get_secret_value()
        if self._session_key is not None:
            found["x-session-api-key"] = self._session_key.get_secret_value()
        return {**found, **parcel.headers}

    async def _open(self) -> httpcore.AsyncConnectionPool:
        """The connections to the receiver, made once. Raises OSError when certificates cannot be read."""
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncio.to_thread(_pool, secure=self._webhook.base_url.startswith("https"))
            return self._pool


class Dropping(Sender):
    """Sends nothing to anybody, and says that all of it arrived: for a rehearsal."""

    async def post(self, parcel: Parcel) -> Outcome:
        self._headers(parcel)
        return DELIVERED


def _pool(*, secure: bool) -> httpcore.AsyncConnectionPool:
    import httpcore

    context = None
    if secure:  # to read certificates takes its time, and http is never redirected to https
        import httpx

        context = httpx.create_ssl_context()
    return httpcore.AsyncConnectionPool(context, max_connections=_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS)


async def _read(answer: httpcore.Response) -> None:
    """To the end, so that the connection can be used again; not further than what an answer may need."""
    size = 0
    async for part in answer.aiter_stream():
        size += len(part)
        if size > _ANSWER_BYTES:
            return
