"""Reads that clients poll while they wait never fail for a moment (outer-api.md 0.2).

A client takes one 503 of such a read for the end and deletes what it waited for. So what a caller was last told at an
address is kept for some minutes; while the state server is away it is told again, with its age. A caller who was told
nothing yet waits here until the server is back, for as long as a client waits for an answer.

The memory of one replica, bounded in bytes. It is under a digest of the credential, so that nobody is told what another
was; it only speaks while the state server is silent, and a deletion by the same caller empties it.
"""

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.polled import OLDER

KEPT_SECONDS = 300.0  #: no client polls for longer
KEPT_BYTES = 32 * 1024 * 1024
LARGEST_BYTES = 256 * 1024  #: of one answer; what is larger is no status, and is not kept
HELD_SECONDS = 20.0
MOST_HELD = 1_000
_PAUSE_SECONDS = 0.5
_CREDENTIALS = ("authorization", "x-api-key", "x-access-token", "x-session-api-key", "x-act-as-user")
_AWAY = frozenset({"store_unavailable", "event_archive_unavailable"})


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    at: float


class LastKnown:
    """Pure ASGI, around everything that reads the state server. `seconds` is for how long a caller is held."""

    def __init__(self, app: ASGIApp, seconds: float = HELD_SECONDS) -> None:
        self._app = app
        self._seconds = seconds
        self._answers: OrderedDict[tuple[bytes, str], _Answer] = OrderedDict()
        self._bytes = 0
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "DELETE"):
            await self._app(scope, receive, send)
            return
        who = _who(scope)
        if scope["method"] == "DELETE":
            self._forget_all_of(who)
            await self._app(scope, receive, send)
        elif OLDER.fullmatch(scope["path"]) and Headers(scope=scope).get("content-length", "0") == "0":
            await self._serve(scope, receive, send, (who, f"{scope['path']}?{scope['query_string'].decode('latin-1')}"))
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, place: tuple[bytes, str]) -> None:
        state = dict(scope.get("state", {}))
        until = anyio.current_time() + self._seconds
        while True:
            capture = _Capture(send)
            await self._app({**scope, "state": dict(state)}, receive, capture)
            if capture.passed_on:
                return
            answer = capture.answer()
            if not _says_away(answer):
                self._keep(place, answer)
                await _tell(send, answer)
                return
            known = self._known(place)
            if known is not None:
                await _tell(send, known, age=anyio.current_time() - known.at)
                return
            if anyio.current_time() >= until or self._held >= MOST_HELD:
                await _tell(send, answer)
                return
            self._held += 1
            try:
                await anyio.sleep(_PAUSE_SECONDS)
            finally:
                self._held -= 1

    def _known(self, place: tuple[bytes, str]) -> _Answer | None:
        known = self._answers.get(place)
        return None if known is None or _is_old(known) else known

    def _keep(self, place: tuple[bytes, str], answer: _Answer) -> None:
        self._forget(place)
        if answer.status != 200:
            return
        self._answers[place] = answer
        self._bytes += len(answer.body)
        while self._bytes > KEPT_BYTES or _is_old(next(iter(self._answers.values()))):
            self._forget(next(iter(self._answers)))

    def _forget(self, place: tuple[bytes, str]) -> None:
        if (gone := self._answers.pop(place, None)) is not None:
            self._bytes -= len(gone.body)

    def _forget_all_of(self, who: bytes) -> None:
        for place in [place for place in self._answers if place[0] == who]:
            self._forget(place)


class _Capture:
    """An answer held back until it is known whole; a large one is passed on as it comes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}
        self._body = b""
        self.passed_on = False

    async def __call__(self, message: Message) -> None:
        if self.passed_on:
            await self._send(message)
        elif message["type"] == "http.response.start":
            self._start = message
        else:
            self._body += message.get("body", b"")
            if len(self._body) > LARGEST_BYTES:
                self.passed_on = True
                await self._send(self._start)
                await self._send({**message, "body": self._body})

    def answer(self) -> _Answer:
        headers = list(self._start.get("headers", []))
        return _Answer(self._start.get("status", 500), headers, self._body, anyio.current_time())


def _is_old(answer: _Answer) -> bool:
    return anyio.current_time() - answer.at > KEPT_SECONDS


def _who(scope: Scope) -> bytes:
    headers = Headers(scope=scope)
    told = json.dumps([headers.getlist(name) for name in _CREDENTIALS])
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).digest()


def _says_away(answer: _Answer) -> bool:
    if answer.status != 503:
        return False
    try:
        return json.loads(answer.body).get("code") in _AWAY
    except (ValueError, AttributeError):
        return False


async def _tell(send: Send, answer: _Answer, *, age: float | None = None) -> None:
    headers = answer.headers if age is None else [*answer.headers, (b"age", str(round(age)).encode())]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
