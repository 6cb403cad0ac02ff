"""The paths of the first releases: without `/api`, and a conversation's socket below the conversation.

One rewrite at the edge, so that routes and the document of the API have one path for each thing. Only on such a path
the key may come as a bearer, and a socket's message as `{"type": "message", "content": text}`: the newer contract takes
neither.
"""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.api.paths import route_path
from runtime.state import RuntimeState

_FIRST = frozenset({"bash", "conversations", "file", "git", "hooks", "settings", "skills", "tools", "vscode"})
_SOCKET = re.compile(r"(?:/api)?/conversations/([^/]+)/events/socket")
_KEY = b"x-session-api-key"


class OlderPaths:
    """Outermost, in front of everything that looks at paths."""

    def __init__(self, app: ASGIApp, *, state: RuntimeState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = route_path(scope, self._state)
            if path.partition("/")[2].partition("/")[0] in _FIRST:
                scope = self._rewritten(scope, path, f"/api{path}")
        elif scope["type"] == "websocket":
            path = route_path(scope, self._state)
            if (found := _SOCKET.fullmatch(path)) is not None:
                scope = self._rewritten(scope, path, f"/sockets/events/{found[1]}")
                receive = _older_frames(receive)
        await self._app(scope, receive, send)

    @staticmethod
    def _rewritten(scope: Scope, path: str, wanted: str) -> Scope:
        whole = scope["path"].removesuffix(path) + wanted
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        if not any(name == _KEY for name, _ in headers):
            bearers = (value for name, value in headers if name == b"authorization" and value[:7].lower() == b"bearer ")
            headers += [(_KEY, value[7:].strip()) for value in bearers]
        # The server's own form of the path is made anew: what was encoded in it is not asked for again.
        return {**scope, "path": whole, "raw_path": whole.encode(errors="surrogateescape"), "headers": headers}


def _older_frames(receive: Receive) -> Receive:
    async def receiving() -> Message:
        message = await receive()
        if message["type"] == "websocket.receive" and isinstance(message.get("text"), str):
            return {**message, "text": _newer(message["text"])}
        return message

    return receiving


def _newer(text: str) -> str:
    try:
        frame: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text  # whoever reads it says what is wrong
    if not (isinstance(frame, dict) and frame.get("type") == "message" and isinstance(frame.get("content"), str)):
        return text
    return json.dumps({"role": "user", "content": [{"type": "text", "text": frame["content"]}]})
