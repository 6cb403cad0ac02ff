"""The few requests that clients make all the time, answered before the framework sees them.

Only plain ones: a GET without body, origin or special header, and without a query but for the length of a page, by a
caller with the key, of a runtime that is ready. Whatever is different in any way goes the usual way, so nothing is
decided here twice; and the bytes are those that the usual route makes, kept as long as what they show has not changed.
"""

from __future__ import annotations

import re
from uuid import UUID

from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.api.conversations import LONGEST_PAGE, conversation_json, page_json
from runtime.api.health import HEALTHY, ready_body
from runtime.api.settings import settings_answer
from runtime.configuration.record import SettingsRecord
from runtime.conversations.catalogue import Newest
from runtime.state import RuntimeState, Stage
from runtime.store.exposure import Exposure

_CONVERSATIONS = "/api/conversations/"
_SEARCH = "/api/conversations/search"
_LIMIT = re.compile(rb"limit=([0-9]{1,3})")
_ID_LENGTHS = (len(_CONVERSATIONS) + 32, len(_CONVERSATIONS) + 36)
#: with one of these the answer may be another one
_SPECIAL = frozenset(
    (b"origin", b"x-expose-secrets", b"x-generation", b"x-fence", b"content-length", b"transfer-encoding", b"expect")
)
_KEYED = frozenset(("/api/settings", _SEARCH))
_OPEN = {"/health": HEALTHY, "/alive": HEALTHY}


class HotRoutes:
    """Outermost, in front of the middleware."""

    def __init__(self, app: ASGIApp, *, state: RuntimeState) -> None:
        self._app = app
        self._state = state
        self._newest = Newest()
        self._settings: tuple[SettingsRecord, bytes] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = self._answer(scope) if scope["type"] == "http" else None
        if body is None:
            await self._app(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if scope["path"] == "/api/settings":
            headers.append((b"cache-control", b"no-store"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, scope: Scope) -> bytes | None:
        path: str = scope["path"]
        if scope["method"] != "GET" or self._state.settings.root_path or (scope["query_string"] and path != _SEARCH):
            return None
        keyed = path in _KEYED or (path.startswith(_CONVERSATIONS) and len(path) in _ID_LENGTHS)
        if not keyed and path not in _OPEN and path != "/ready":
            return None
        key = None
        for name, value in scope["headers"]:
            if name in _SPECIAL:
                return None
            if name == b"x-session-api-key" and key is None:  # of several the first counts, as everywhere
                key = value
        if path in _OPEN:
            return _OPEN[path]
        if self._state.stage is not Stage.READY:
            return None
        if path == "/ready":
            return ready_body(self._state)
        if not self._state.session_keys.accepts(key.decode("latin-1") if key is not None else None):
            return None
        if path == _SEARCH:
            return self._page_json(scope["query_string"])
        return self._settings_json() if path == "/api/settings" else self._conversation_json(path)

    def _page_json(self, query: bytes) -> bytes | None:
        asked = _LIMIT.fullmatch(query)
        limit = LONGEST_PAGE if not query else int(asked[1]) if asked else 0
        if not 0 < limit <= LONGEST_PAGE:
            return None
        return page_json(self._state, self._newest.page(self._state.conversations.records(), limit))

    def _settings_json(self) -> bytes | None:
        record = self._state.settings_store.read()
        if record.older is not None:
            return None  # shows the git providers too
        if self._settings is None or self._settings[0] is not record:
            # A change makes another record, so the same one has the same answer.
            self._settings = (record, bytes(settings_answer(self._state, record, Exposure.REDACTED).body))
        return self._settings[1]

    def _conversation_json(self, path: str) -> bytes | None:
        try:
            conversation = self._state.conversations.opened(UUID(path[len(_CONVERSATIONS) :]))
        except ValueError:
            return None
        return conversation_json(conversation.record, conversation.folder) if conversation is not None else None
