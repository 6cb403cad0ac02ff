"""`Idempotency-Key` on the unsafe calls of the native API: a repeat gets the first answer again (api-conventions.md 3).

Kept 24 hours for the API key that asked, the user it acted for, method and path. Another payload under the same key is
422. While the first request still runs a repeat is 409; that of a start or a message joins the first instead. Whoever
serves the first renews its hold on the key: when its replica dies, a repeat is served after some seconds. Answers can
hold a new API key, so they are stored sealed. A 5xx or 429 is not stored: the repeat tries again. One whose waiting was
over (408) waits again where it joins what goes on.
"""

import hashlib
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import anyio
import structlog
from fastapi import Depends
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.auth import CallerOf, caller_of
from orchestrator.api.context import Services
from orchestrator.api.middleware import STREAMED_PATHS
from orchestrator.api.problems import of_error, problem
from orchestrator.domain.errors import NestorError, StoreUnavailable
from orchestrator.domain.ids import REPEATABLE_FOR, TenantId, new_uuid
from orchestrator.domain.secrets import SecretText
from orchestrator.domain.tenancy import Caller
from orchestrator.state.base import Replay

log = structlog.get_logger(__name__)
TTL_MS = int(REPEATABLE_FOR.total_seconds() * 1000)
HELD_MS = 15_000  #: a replica that died holds the key no longer
_RENEWED_SECONDS = 5.0  # three of them fit
_KEEP_TRIES, _KEEP_PAUSE_SECONDS = 3, 0.3
_ABANDON_SECONDS = 5.0
_OPERATOR = TenantId("00000000-0000-4000-8000-000000000000")  # data key of what belongs to no tenant
_NATURAL = uuid.UUID("6f1d7a52-0f0c-4f0e-9a55-7c1b5d0c2e11")
_NATURAL_PATHS = re.compile(r"/api/v2/(conversations(/[^/]+/(messages|fork))?|runtimes)")
_PUT_PATHS = re.compile(r"/api/v2/conversations/[^/]+")
_LATER = 429  # nothing was done; the repeat was asked to come again
_ELAPSED = 408  # it was waited for as long as was asked; the work goes on
_KEPT_HEADERS = ("content-type", "location", "etag", "cache-control", "retry-after")


def natural_id(request: Request, caller: CallerOf) -> str | None:
    """An id that follows from the `Idempotency-Key`: whatever becomes of the first request and its stored answer, a
    repeat means the same conversation, message, tenant, user, API key or webhook. None without such a key."""
    key = request.headers.get("idempotency-key")
    if not key:
        return None
    place = f"{caller.tenant} {_asked_by(request, caller)} {request.url.path} {key}"
    return str(uuid.uuid5(_NATURAL, hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()))


NaturalIdOf = Annotated[str | None, Depends(natural_id)]


def _asked_by(request: Request, caller: Caller) -> str:
    """An answer is for who asked: another key may be allowed less, and another user has other things."""
    return f"{caller.key} {request.headers.get('x-act-as-user', '')}"


class IdempotencyKeys:
    """Pure ASGI, inside of request ids and the body limit."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = Headers(scope=scope).get("idempotency-key") if scope["type"] == "http" else None
        if key is not None and STREAMED_PATHS.fullmatch(scope["path"]):
            key = None  # a write of a file is the same when it is repeated; its body is not held to be compared
        if key is None or scope["method"] in ("GET", "HEAD", "OPTIONS") or not scope["path"].startswith("/api/v2/"):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._serve(request, key)
        except NestorError as exc:
            response = of_error(request, exc)
        except ClientDisconnect:
            return  # while it still sent: nobody is there to be answered
        except HTTPException as exc:  # the body was too large while it was read
            response = problem(request, exc.status_code, "too_large", str(exc.detail))
        await response(scope, receive, send)

    async def _serve(self, request: Request, key: str) -> Response:
        if not 0 < len(key) <= 255:
            return problem(request, 400, "bad_request", "Idempotency-Key has to have 1 to 255 characters")
        caller = await caller_of(request)
        tenant = caller.tenant or _OPERATOR
        body = await request.body()
        place = f"{tenant} {_asked_by(request, caller)} {request.method} {request.url.path}?{request.url.query}"
        digest = hashlib.sha256(body).hexdigest()
        holder, store = new_uuid(), self._services.store.idempotency
        stored = await store.begin(place, key, digest, holder=holder, ttl_ms=HELD_MS)
        if stored is not None and not (_has_natural_id(request) and _goes_on(stored, digest)):
            return await self._replay(request, tenant, place, digest, stored)
        if stored is not None:  # the first still runs, died, or waited in vain: all mean the same one
            return (await self._capture(request, body)).response()
        done = False
        try:
            async with self._held(place, key, holder):
                captured = await self._capture(request, body)
                done = captured.status < 500 and captured.status != _LATER
                if done:
                    await self._keep(tenant, place, key, digest, holder, captured)
            return captured.response()
        finally:
            if not done:
                await self._abandon(place, key, holder)

    @asynccontextmanager
    async def _held(self, place: str, key: str, holder: str) -> AsyncIterator[None]:
        """Renew the hold on the key meanwhile."""
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._renew, place, key, holder)
            try:
                yield
            except Exception as exc:  # noqa: BLE001 - raised below: callers look for it, and not for a group of them
                failure = exc
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _renew(self, place: str, key: str, holder: str) -> None:
        while True:
            await anyio.sleep(_RENEWED_SECONDS)
            with suppress(StoreUnavailable):
                await self._services.store.idempotency.renew(place, key, holder=holder, ttl_ms=HELD_MS)

    async def _keep(
        self, tenant: TenantId, place: str, key: str, digest: str, holder: str, captured: "_Captured"
    ) -> None:
        """The work is done, so it is answered also where that cannot be kept: a failure would have it repeated."""
        for attempt in range(_KEEP_TRIES):
            try:
                sealed = await self._services.sealer.seal(tenant, None, "replay", place, 1, captured.text())
                await self._services.store.idempotency.finish(
                    place, key, digest, holder=holder, status=captured.status, body=sealed, ttl_ms=TTL_MS
                )
                return
            except StoreUnavailable as exc:
                log.warning("idempotency.answer_not_kept", attempt=attempt + 1, problem=exc.message)
                await anyio.sleep(_KEEP_PAUSE_SECONDS)

    async def _abandon(self, place: str, key: str, holder: str) -> None:
        """Where that fails, the hold ends by itself."""
        with anyio.move_on_after(_ABANDON_SECONDS, shield=True), suppress(StoreUnavailable):
            await self._services.store.idempotency.abandon(place, key, holder=holder)

    async def _replay(self, request: Request, tenant: TenantId, place: str, digest: str, stored: Replay) -> Response:
        if stored.request_digest != digest:
            return problem(
                request,
                422,
                "idempotency_mismatch",
                "this Idempotency-Key was used with another body",
                hint="use a new key",
            )
        if not stored.body:
            return problem(request, 409, "idempotency_running", "the first request still runs", retry_after=1)
        opened = await self._services.sealer.open(tenant, None, "replay", place, 1, stored.body)
        answer = json.loads(opened.open())
        return Response(answer["body"], stored.status, {**answer["headers"], "idempotency-replayed": "true"})

    async def _capture(self, request: Request, body: bytes) -> "_Captured":
        captured = _Captured()
        sent = False

        async def receive() -> Message:
            nonlocal sent
            if sent:
                return {"type": "http.disconnect"}
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(request.scope, receive, captured.send)
        return captured


def _has_natural_id(request: Request) -> bool:
    path = request.url.path
    if request.method == "PUT":  # the id in the path is the natural one
        return _PUT_PATHS.fullmatch(path) is not None
    return request.method == "POST" and _NATURAL_PATHS.fullmatch(path) is not None


def _goes_on(stored: Replay, digest: str) -> bool:
    return stored.request_digest == digest and (not stored.body or stored.status == _ELAPSED)


class _Captured:
    """An answer of the application, held back."""

    def __init__(self) -> None:
        self.status = 500
        self._headers: dict[str, str] = {}
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = Headers(raw=list(message["headers"]))
            self._headers = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
        else:
            self._body += message.get("body", b"")

    def text(self) -> SecretText:
        kept: dict[str, Any] = {"headers": self._headers, "body": self._body.decode()}
        return SecretText(json.dumps(kept))

    def response(self) -> Response:
        return Response(self._body, self.status, self._headers)
