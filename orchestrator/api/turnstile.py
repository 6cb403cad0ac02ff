"""What one runtime may take of the listener that all runtimes share, before anything is read or looked up for it.

Each runtime has an allowance of posts and bytes, for who shows its key; those who show no key that was right before
share one for each address that they come from. Who is a little early waits, who is far too early waits and is refused:
a storm gets as many answers as its connections are patient for, and costs hardly more than that. The runtime-facing
listener is served by the loop that serves everybody else, so this is what keeps a storm from being everybody's.
"""

import hashlib
import hmac
import time
from dataclasses import dataclass

import anyio
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.problems import problem

_UNTOLD_BYTES = 1024 * 1024  # what a body without a length is counted as
_MOST_KNOWN = 20_000
_MOST_HELD = 500  # of one name; who comes beyond is not held, and its connection is closed
_LONGEST_NAME = 64
_BEYOND_SUCCESS, _UNAUTHENTICATED = 300, 401


@dataclass(frozen=True)
class Rates:
    """What may come in a second for long, and how many seconds' worth at once; `hold` is the longest wait."""

    posts: float = 20.0
    bytes: float = 4 * 1024 * 1024
    strangers: float = 60.0  #: posts with a key that was not right before, of one address
    burst_seconds: float = 2.0
    hold: float = 1.0
    largest: int = 16 * 1024 * 1024  #: bytes that a body is counted as at most: one that says more is refused unread


SHIPPED = Rates()


class Turnstile:
    """Middleware around the application of the runtime-facing listener."""

    def __init__(self, app: ASGIApp, rates: Rates = SHIPPED) -> None:
        self._app = app
        self._rates = rates
        self._known: dict[str, bytes] = {}  # runtime -> digest of the key that was right last
        self._spent: dict[str, float] = {}  # name -> when its allowance is whole again (`time.monotonic`)
        self._held: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        runtime, shown = _runtime(scope), _digest(headers.get("x-session-api-key", ""))
        known = hmac.compare_digest(self._known.get(runtime, b""), shown)
        name = f"runtime {runtime}" if known else f"address {(scope.get('client') or ('',))[0]}"
        if not await self._passes(name, self._cost(headers, known=known)):
            words = "more is told here than is taken: tell it later"
            refusal = problem(Request(scope), 429, "runtime_too_fast", words, retry_after=1)
            refusal.headers["connection"] = "close"
            await refusal(scope, receive, send)
            return

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._learn(runtime, shown, message["status"], known=known)
            await send(message)

        await self._app(scope, receive, noting)

    def _cost(self, headers: Headers, *, known: bool) -> float:
        """In seconds of the allowance."""
        length = headers.get("content-length", "")
        size = int(length) if length.isascii() and length.isdigit() and len(length) < 15 else _UNTOLD_BYTES
        post = 1 / (self._rates.posts if known else self._rates.strangers)
        return post + min(size, self._rates.largest) / self._rates.bytes

    async def _passes(self, name: str, cost: float) -> bool:
        """Take `cost` of the allowance of that name, waiting for it if need be. A single one that is larger than any
        burst passes when nothing came before it."""
        now = time.monotonic()
        if len(self._spent) >= _MOST_KNOWN:
            self._spent = {one: until for one, until in self._spent.items() if until > now}
        spent = max(now, self._spent.get(name, now))
        wait = spent - now - max(0.0, self._rates.burst_seconds - cost)
        if wait > self._rates.hold:
            await self._hold(name, self._rates.hold)
            return False
        self._spent[name] = spent + cost
        if wait > 0:
            await anyio.sleep(wait)
        return True

    async def _hold(self, name: str, seconds: float) -> None:
        held = self._held.get(name, 0)
        if held >= _MOST_HELD:
            return
        self._held[name] = held + 1
        try:
            await anyio.sleep(seconds)
        finally:
            self._held[name] -= 1
            if not self._held[name]:
                del self._held[name]

    def _learn(self, runtime: str, shown: bytes, status: int, *, known: bool) -> None:
        """Only what was served shows that the key is right: a path that is not there, a body that is too large, or a
        state server that is away is answered before the key is looked at."""
        if status < _BEYOND_SUCCESS:
            if len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[runtime] = shown
        elif known and status == _UNAUTHENTICATED:
            self._known.pop(runtime, None)


def _runtime(scope: Scope) -> str:
    """As the path names it; nothing is known of it yet."""
    return str(scope["path"]).removeprefix("/runtimes/").partition("/")[0][:_LONGEST_NAME]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
