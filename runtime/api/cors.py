"""Which browser origins may read answers (contract 1.1).

Loopback names always, then what is configured, and what `POST /api/init` adds later, so origins are looked up per
request.
"""

import re
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from runtime.state import RuntimeState

MAX_AGE_SECONDS = 600


class CrossOrigin(CORSMiddleware):
    """Starlette's rules for headers and preflights, with this runtime's origins."""

    def __init__(self, app: ASGIApp, *, state: RuntimeState) -> None:
        super().__init__(
            app, allow_methods=("*",), allow_headers=("*",), allow_credentials=True, max_age=MAX_AGE_SECONDS
        )
        self._state = state

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
