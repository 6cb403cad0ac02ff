"""What one runtime may take of the listener that all runtimes share, before anything is read or looked up for it.

Each runtime has an allowance of posts, bytes and events, for who shows its key; those who show no key that was right
before share one for each address that they come from. Who is a little early waits. Who is far too early is refused, and
waits for that the longer the more do: a storm gets as many answers as its connections are patient for, however many
they are, and costs hardly more than that. The runtime-facing listener is served by the loop that serves everybody else,
so this is what keeps a storm from being everybody's (`bench/storm.py`).
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.problems import problem

_UNTOLD_BYTES = 1024 * 1024  # what a body without a length is counted as
_MOST_KNOWN = 20_000
_MOST_HELD = 2_000  # of one name, each 15 kB; who comes beyond is not held, and its connection is closed
_LONGEST_NAME = 64
_BEYOND_SUCCESS, _UNAUTHENTICATED = 300, 401
CALLER = "nestor.caller"  #: in a scope, where the server tells more of who asks: a `Caller`
_CHARGE = "nestor.charge"


@dataclass(frozen=True)
class Rates:
    """What may come in a second for long, and how many seconds' worth at once. Times are in seconds."""

    posts: float = 4.0  #: a runtime whose agent works without a break makes hardly more, with all that came meanwhile
    bytes: float = 2 * 1024 * 1024
    events: float = 1000.0
    strangers: float = 60.0  #: posts with a key that was not right before, of one address
    wrong: float = 15.0  #: those of them whose key turns out to be wrong: they cost so much more
    burst_seconds: float = 7.5
    hold: float = 1.0  #: the longest wait for being served, and the shortest for being refused
    refusals: float = 2.0  #: of one name: with many that wait to be refused, each waits longer
    longest_hold: float = 20.0  #: a runtime waits thirty for an answer
    largest: int = 16 * 1024 * 1024  #: bytes that a body is counted as at most: one that says more is refused unread


SHIPPED = Rates()


@dataclass(frozen=True)
class Caller:
    """What the turnstile is to know of a connection, and may ask of it. `over` is set when nobody waits for the answer
    any more, or the listener ends; `unread` forgets the body, and reads no more of it."""

    over: anyio.Event
    unread: Callable[[], None]


@dataclass
class _Held:
    """Those of one name that wait to be refused, and when the last of them is (`time.monotonic`)."""

    count: int = 0
    until: float = float("-inf")


class Turnstile:
    """Middleware around the application of the runtime-facing listener."""

    def __init__(self, app: ASGIApp, rates: Rates = SHIPPED) -> None:
        self._app = app
        self._rates = rates
        self._known: dict[str, bytes] = {}  # runtime -> digest of the key that was right last
        self._spent: dict[str, float] = {}  # name -> when its allowance is whole again (`time.monotonic`)
        self._held: dict[str, _Held] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        runtime, shown = _runtime(scope), _digest(headers.get("x-session-api-key", ""))
        known = hmac.compare_digest(self._known.get(runtime, b""), shown)
        name = f"runtime {runtime}" if known else f"address {(scope.get('client') or ('',))[0]}"
        caller: Caller = scope.get(CALLER) or Caller(anyio.Event(), lambda: None)
        if not await self._passes(name, self._cost(headers, known=known), caller):
            words = "more is told here than is taken: tell it later"
            refusal = problem(Request(scope), 429, "runtime_too_fast", words, retry_after=1)
            refusal.headers["connection"] = "close"
            await refusal(scope, receive, send)
            return

        def charge(seconds: float) -> None:
            self._spent[name] = max(time.monotonic(), self._spent.get(name, 0.0)) + seconds

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._learn(runtime, shown, message["status"], known=known)
                if not known and message["status"] == _UNAUTHENTICATED:
                    charge(1 / self._rates.wrong - 1 / self._rates.strangers)
            await send(message)

        scope[_CHARGE] = lambda events: charge(events / self._rates.events)
        await self._app(scope, receive, noting)

    def _cost(self, headers: Headers, *, known: bool) -> float:
        """In seconds of the allowance."""
        length = headers.get("content-length", "")
        size = int(length) if length.isascii() and length.isdigit() and len(length) < 15 else _UNTOLD_BYTES
        post = 1 / (self._rates.posts if known else self._rates.strangers)
        return post + min(size, self._rates.largest) / self._rates.bytes

    async def _passes(self, name: str, cost: float, caller: Caller) -> bool:
        """Take `cost` of the allowance of that name, waiting for it if need be. A single one that is larger than any
        burst passes when nothing came before it."""
        now = time.monotonic()
        if len(self._spent) >= _MOST_KNOWN:
            self._spent = {one: until for one, until in self._spent.items() if until > now}
        spent = max(now, self._spent.get(name, now))
        wait = spent - now - max(0.0, self._rates.burst_seconds - cost)
        if wait > self._rates.hold:
            await self._hold(name, caller)
            return False
        self._spent[name] = spent + cost
        if wait > 0:
            await anyio.sleep(wait)
        return True

    async def _hold(self, name: str, caller: Caller) -> None:
        """Until it is its turn to be refused: so many of a name are in a second, or each after the longest hold. At
        once when that is of no use any more."""
        now, rates = time.monotonic(), self._rates
        held = self._held.setdefault(name, _Held())
        if held.count >= _MOST_HELD:
            return
        caller.unread()
        held.count += 1
        held.until = min(max(now + rates.hold, held.until + 1 / rates.refusals), now + rates.longest_hold)
        try:
            with anyio.move_on_after(held.until - now):
                await caller.over.wait()
        finally:
            held.count -= 1
            if not held.count:
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


def charge_events(scope: Scope, events: int) -> None:
    """Take so many events out of the allowance of who made this request, which is known of them only when its body was
    read: who sends many passes, and the next one waits for it. Nothing where there is no turnstile."""
    charge: Callable[[int], None] | None = scope.get(_CHARGE)
    if charge is not None:
        charge(events)


def _runtime(scope: Scope) -> str:
    """As the path names it; nothing is known of it yet."""
    return str(scope["path"]).removeprefix("/runtimes/").partition("/")[0][:_LONGEST_NAME]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
