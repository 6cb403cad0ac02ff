"""One HTTP post to one receiver: bounded in time and in what is read of the answer, never redirected.

The client library is imported when the first thing is to be sent, in a thread, so that a runtime without webhooks never
pays for it; a spare and a zygote `load` it ahead of time. Knows nothing of events.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from pydantic import SecretStr

from runtime.webhooks.configuration import Webhook
from runtime.webhooks.outcome import DELIVERED, Outcome, Verdict, of_answer

if TYPE_CHECKING:
    import httpx

#: the library, and what it imports by itself only when it makes its first connection
_LIBRARY = ("httpx", "httpcore")
#: for the whole exchange, as the contract has it
TIMEOUT_SECONDS = 30.0
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
    for name in _LIBRARY:
        import_module(name)


class Sender:
    """Posts to one receiver, with what only it may know in the headers."""

    def __init__(self, webhook: Webhook, *, session_key: SecretStr | None, seconds: float = TIMEOUT_SECONDS) -> None:
        self._webhook = webhook
        self._session_key = session_key if webhook.send_session_key else None
        self._seconds = seconds
        self._transport: httpx.AsyncHTTPTransport | None = None
        self._opening = asyncio.Lock()

    async def post(self, parcel: Parcel) -> Outcome:
        """Send it once. Raises nothing but CancelledError; then it may have arrived."""
        if self._transport is None:
            await asyncio.to_thread(load)
        import httpx

        try:
            transport = await self._open()
            request = httpx.Request(
                self._webhook.method,
                self._webhook.base_url + parcel.path,
                headers=self._headers(parcel),
                content=parcel.body,
                extensions={"timeout": httpx.Timeout(self._seconds).as_dict()},
            )
            async with asyncio.timeout(self._seconds):
                answer = await transport.handle_async_request(request)
                with contextlib.suppress(httpx.HTTPError):  # the status has said already what counts
                    await _read(answer)
                await answer.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            return Outcome(Verdict.UNREACHABLE, type(error).__name__)
        except AttributeError as error:
            # Under uvloop the socket of a connection that was reset as it was made is None when httpx looks at it.
            if error.obj is not None:
                raise
            return Outcome(Verdict.UNREACHABLE, "ConnectError")
        return of_answer(answer.status_code, answer.headers)

    async def close(self) -> None:
        """Close what connections are open. Idempotent."""
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None

    def _headers(self, parcel: Parcel) -> dict[str, str]:
        """The receiver's own, then ours: a key of the runtime's is no matter of configuration."""
        found = {"content-type": "application/json", "user-agent": "nestor-runtime"}
        for name, value in self._webhook.headers.items():
            found[name.lower()] = value.get_secret_value()
        if self._session_key is not None:
            found["x-session-api-key"] = self._session_key.get_secret_value()
        return {**found, **parcel.headers}

    async def _open(self) -> httpx.AsyncHTTPTransport:
        """The connections to the receiver, made once. Raises OSError when certificates cannot be read."""
        async with self._opening:
            if self._transport is None:
                self._transport = await asyncio.to_thread(_transport, secure=self._webhook.base_url.startswith("https"))
            return self._transport


class Dropping(Sender):
    """Sends nothing to anybody, and says that all of it arrived: for a rehearsal."""

    async def post(self, parcel: Parcel) -> Outcome:
        self._headers(parcel)
        return DELIVERED


def _transport(*, secure: bool) -> httpx.AsyncHTTPTransport:
    import httpx

    # To load certificates takes its time, so they are not where nothing is verified: http is never redirected to https.
    context = httpx.create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncHTTPTransport(verify=context)


async def _read(answer: httpx.Response) -> None:
    """To the end, so that the connection can be used again; not further than what an answer may need."""
    size = 0
    async for part in answer.aiter_raw():
        size += len(part)
        if size > _ANSWER_BYTES:
            return
