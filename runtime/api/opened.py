"""The answer that is a file, opened before with the rights of whoever may have it: no path is looked at again.

A path that was checked can mean another file when it is opened, and the server may read more than the agent.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from runtime.machine.files import Opened


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
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()
