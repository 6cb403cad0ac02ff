"""A multipart body as it comes in: the first file in it is handed on piece by piece, and never collected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = b"file"
_MOST_HEADER_BYTES = 16 << 10


class BadUpload(Exception):
    """The body holds no file field, or is no multipart body; the text says which."""


async def receive_file(request: Request, take: Callable[[bytes], None]) -> None:
    """Give every piece of the field `file` to `take`, in a thread. Raises BadUpload, and what `take` raises."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadUpload("the body must be multipart/form-data with a field named file")
    reader = _Reader(take)
    try:
        parser = MultipartParser(boundary, reader.callbacks)
        async for piece in _pieces(request):
            await asyncio.to_thread(parser.write, piece)
        parser.finalize()
    except FormParserError:
        raise BadUpload("the body is not a complete multipart body") from None
    if not reader.ended:
        raise BadUpload("the body has no field named file" if not reader.begun else "the body ends within the file")


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        if piece:
            yield piece


class _Reader:
    """Follows one body; only the first field of the right name counts."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._name = b""
        self._value = b""
        self._inside = False
        self.begun = False
        self.ended = False
        self.callbacks: MultipartCallbacks = {
            "on_header_begin": self._header_begins,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_ends,
            "on_part_data": self._data,
            "on_part_end": self._part_ends,
        }

    def _header_begins(self) -> None:
        self._name = self._value = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        if len(self._name) > _MOST_HEADER_BYTES:
            raise BadUpload("a header in the body is too long")

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        if len(self._value) > _MOST_HEADER_BYTES:
            raise BadUpload("a header in the body is too long")

    def _header_ends(self) -> None:
        if self._name.lower() == b"content-disposition" and not self.begun:
            _, options = parse_options_header(self._value)
            self.begun = self._inside = options.get(b"name") == FIELD

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._take(data[start:end])

    def _part_ends(self) -> None:
        self.ended = self.ended or self._inside
        self._inside = False
