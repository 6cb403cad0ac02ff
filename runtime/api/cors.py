"""Which browser origins may read answers (contract 1.1).

Loopback names always, then what is configured, and what `POST /api/init` adds later, so origins are looked up per
request. The files of a workspace and the ticket for them may be read from any page: a page has them only with a key, or
with the ticket that its own browser keeps.
"""

import re
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.api.paths import route_path
from runtime.state import RuntimeState

MAX_AGE_SECONDS = 600
_FROM_ANYWHERE = re.compile(r"/api/(auth/workspace-session|conversations/[^/]+/workspace(/.*)?)")


class CrossOrigin(CORSMiddleware):
    """Starlette's rules for headers and preflights, with this runtime's origins."""

    def __init__(self, app: ASGIApp, *, state: RuntimeState) -> None:
        super().__init__(
            app, allow_methods=("*",), allow_headers=("*",), allow_credentials=True, max_age=MAX_AGE_SECONDS
        )
        self._state = state
        self._from_anywhere = CORSMiddleware(
            app,
            allow_origin_regex=r"https?://[^/]+",
            allow_methods=("*",),
            allow_headers=("*",),
            allow_credentials=True,
            max_age=MAX_AGE_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _FROM_ANYWHERE.fullmatch(route_path(scope, self._state)):
            await self._from_anywhere(scope, receive, send)
            return
        if scope["type"] == "http" and route_path(scope, self._state).startswith("/api/ports/"):
            await self.app(scope, receive, send)  # who may read answers from there, says what listens there
            return
        await super().__call__(scope, receive, send)

    def is_allowed_origin(self, origin: str) -> bool:
        settings = self._state.settings
        if origin in settings.allow_cors_origins:
            return True
        if settings.allow_cors_origin_regex is not None and re.fullmatch(settings.allow_cors_origin_regex, origin):
            return True
        try:
            parts = urlsplit(origin)
            host = parts.hostname
        except ValueError:  # such as an unclosed bracket
            return False
        named = {"localhost", "127.0.0.1", settings.docker_host_address} - {None}
        return parts.scheme in {"http", "https"} and host in named
