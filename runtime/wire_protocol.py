"""uvicorn's WebSocket protocol, with a `Wire` for the application.

`runtime.serving` imports it with the first WebSocket, and a zygote before it forks.
"""

from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from runtime.serving import WIRE, Wire


class WireProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with the wire in the scope."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:  # else no application is asked
            extensions: dict[str, Any] = cast(dict[str, Any], self.scope["extensions"])
            extensions[WIRE] = Wire(self)
