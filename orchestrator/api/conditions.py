"""Versions of resources as `ETag`, and what a change or a read is conditional on (RFC 9110 8.8.3 and 13).

Every JSON answer to a `GET` of the native API has an `ETag`, made here: `"<version>.<digest>"` of a resource that has a
version, `"<digest>"` of what has none (lists among them). The digest is that of the answer, so `If-None-Match` is exact
(304): what a record shows beside its own fields, such as its place in the queue, changes without its version.
`If-Match` looks at the version alone, which is what a change can collide with. Files have tags of their own.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Header, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.middleware import STREAMED_PATHS
from orchestrator.domain.conditions import Condition
from orchestrator.domain.errors import PreconditionFailed

_NATIVE = "/api/v2/"
_TAG = re.compile(r'\s*(?:W/)?(?:"([^"]*)"|([^",\s]+))\s*(?:,|$)')
_VERSION = re.compile(r"([0-9]{1,18})(\.[0-9a-f]+)?")
_OK, _NOT_MODIFIED = 200, 304
_KEPT = frozenset({b"cache-control", b"vary", b"etag"})  # of a 304; the rest says what the body is like


def tell_version(response: Response, version: int) -> None:
    """The `ETag` of an answer; for a `GET` its digest is added on the way out."""
    response.headers["etag"] = f'"{version}"'


def condition(
    if_match: Annotated[
        str | None, Header(alias="If-Match", description="Only as it was read: its `ETag`; `*`: only if it is there")
    ] = None,
    if_none_match: Annotated[
        str | None, Header(alias="If-None-Match", description="`*`: only if it is not there")
    ] = None,
) -> Condition:
    """What a change is conditional on. Raises `PreconditionFailed` for an `If-Match` that never was a version."""
    wanted, exists = None, None
    if if_match is not None:
        wanted = _versions(if_match)
        if wanted is None:
            exists = True
        elif not wanted:
            raise PreconditionFailed("If-Match is not a version that was given", hint="send the ETag of the last read")
    unwanted = None
    if if_none_match is not None:
        unwanted = _versions(if_none_match)
        if unwanted is None:
            exists = False
    return Condition(wanted, unwanted, exists)


ConditionOf = Annotated[Condition, Depends(condition)]


def _versions(header: str) -> frozenset[int] | None:
    """Those in a list of tags; None for `*`."""
    tags = list(_tags(header))
    if tags == ["*"]:
        return None
    found = (_VERSION.fullmatch(tag) for tag in tags)
    return frozenset(int(one[1]) for one in found if one is not None)


def _tags(header: str) -> Iterator[str]:
    place = 0
    while place < len(header) and (found := _TAG.match(header, place)) is not None:
        yield found[1] if found[1] is not None else found[2]
        place = found.end()


class Tags:
    """Puts an `ETag` on each JSON answer to a `GET` of the native API, and answers 304 where the caller has it. Pure
    ASGI. Answers that come in several parts (files, streams) pass as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        native = scope["type"] == "http" and scope["method"] == "GET" and scope["path"].startswith(_NATIVE)
        if not native or STREAMED_PATHS.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, _Tagging(Headers(scope=scope).get("if-none-match"), send).send)


class _Tagging:
    """Holds the head of an answer back until its body is there."""

    def __init__(self, known: str | None, send: Send) -> None:
        self._known = known
        self._send = send
        self._head: Message | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = Headers(raw=list(message["headers"]))
            if message["status"] == _OK and headers.get("content-type", "").startswith("application/json"):
                self._head = message
                return
        elif self._head is not None:
            head, self._head = self._head, None
            if not message.get("more_body", False) and self._tag(head, message["body"]):
                kept = [(name, value) for name, value in head["headers"] if name in _KEPT]
                head, message = {**head, "status": _NOT_MODIFIED, "headers": kept}, {**message, "body": b""}
            await self._send(head)
        await self._send(message)

    def _tag(self, head: Message, body: bytes) -> bool:
        """Whether the caller has this answer already."""
        headers, digest = MutableHeaders(scope=head), hashlib.blake2b(body, digest_size=8).hexdigest()
        version = headers.get("etag", "").strip('"')
        tag = f"{version}.{digest}" if version else digest
        headers["etag"] = f'"{tag}"'
        return self._known is not None and (self._known.strip() == "*" or tag in _tags(self._known))
