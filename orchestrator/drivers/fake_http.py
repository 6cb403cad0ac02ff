"""Just enough HTTP/1.1 for the fake runtime: requests with bodies of a moderate length in, JSON out.

`fake_runtime.py` alone uses it. A client that sends anything else loses its connection.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HEAD_LIMIT_BYTES = 64 * 1024
_BODY_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    content: bytes  #: the body as it came


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection, or None at its end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    line, *fields = head.rstrip("\r\n").split("\r\n")
    method, target, _ = line.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (text.partition(":") for text in fields)}
    length = int(headers.get("content-length", "0"))
    if length > _BODY_LIMIT_BYTES:
        raise ValueError("the fake runtime reads bodies of a moderate length")
    chunked = "transfer-encoding" in headers
    content = await _in_chunks(reader) if chunked else await reader.readexactly(length)
    body = None
    with contextlib.suppress(ValueError):
        body = json.loads(content) if content else None
    parts = urlsplit(target)
    return Request(method, parts.path, dict(parse_qsl(parts.query)), headers, body, content)


async def _in_chunks(reader: asyncio.StreamReader) -> bytes:
    content = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        if len(content) + size > _BODY_LIMIT_BYTES:
            raise ValueError("the fake runtime reads bodies of a moderate length")
        content += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return content


def rendered(answer: Answer) -> bytes:
    body = json.dumps(answer.body).encode()
    phrase = HTTPStatus(answer.status).phrase
    head = f"HTTP/1.1 {answer.status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
