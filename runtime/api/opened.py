"""The answer that is a file, opened before with the rights of whoever may have it: no path is looked at again.

A path that was checked can mean another file when it is opened, and the server may read more than the agent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from runtime.machine.files import Opened

_SPAN = re.compile(rb"(\d{1,18})\s*-\s*(\d{1,18})|(\d{1,18})\s*-|-\s*(\d{1,18})")


def _ranges(value: bytes, size: int) -> bytes | None:
    """The list without those that a file of that size has not, unless it has none of them (RFC 9110 14.1.2, 15.5.17).
    None for what is in another unit, or is no list of ranges: it is passed over and the file told whole (14.2)."""
    unit, _, listed = value.partition(b"=")
    texts = [one.strip() for one in listed.split(b",") if one.strip()]
    spans = [span for text in texts if (span := _SPAN.fullmatch(text)) is not None]
    if unit.strip().lower() != b"bytes" or not texts or len(spans) < len(texts):
        return None
    if any(int(span[1] or 0) > int(span[2] or span[1] or 0) for span in spans):
        return None
    there = [span[0] for span in spans if _is_there(span, size)]
    return b"bytes=" + b",".join(there or texts)


def _is_there(span: re.Match[bytes], size: int) -> bool:
    if span[4] is not None:  # the last so many
        return int(span[4]) > 0 and size > 0
    return int(span[1] or span[3]) < size


class OpenedResponse(FileResponse):
    """Whole, in ranges, or its head alone. Closes the file."""

    def __init__(
        self, file: Opened, *, media_type: str, headers: Mapping[str, str], filename: str | None = None
    ) -> None:
        super().__init__(
            file.again, stat_result=file.state, media_type=media_type, filename=filename, headers=dict(headers)
        )
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ranged = scope["method"] == "GET"  # a range of anything else means nothing (RFC 9110 14.2)
        headers = [one for one in scope["headers"] if one[0] != b"range"]
        for name, value in scope["headers"]:
            if name == b"range" and ranged and (asked := _ranges(value, self._file.state.st_size)) is not None:
                headers.append((name, asked))
        try:
            await super().__call__({**scope, "headers": headers}, receive, send)
        finally:
            self._file.close()
