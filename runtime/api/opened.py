"""The answer that is a file, opened before with the rights of whoever may have it: no path is looked at again.

A path that was checked can mean another file when it is opened, and the server may read more than the agent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from runtime.machine.files import Opened

_SPAN = re.compile(rb"(\d{1,18})\s*-\s*(\d{1,18})|\d{1,18}\s*-|-\s*\d{1,18}")


def _are_ranges(value: bytes) -> bool:
    """What is in another unit, or is no list of ranges, is passed over and the file told whole (RFC 9110 14.2)."""
    unit, _, listed = value.partition(b"=")
    spans = [_SPAN.fullmatch(one.strip()) for one in listed.split(b",") if one.strip()]
    return (
        unit.strip().lower() == b"bytes"
        and bool(spans)
        and all(span is not None and int(span[1] or 0) <= int(span[2] or span[1] or 0) for span in spans)
    )


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
        headers = [one for one in scope["headers"] if one[0] != b"range" or (ranged and _are_ranges(one[1]))]
        try:
            await super().__call__({**scope, "headers": headers}, receive, send)
        finally:
            self._file.close()
