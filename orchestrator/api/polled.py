"""Which reads clients poll while they wait: those never fail for a moment, and are not counted against a rate.

A client of an older surface takes one 429 or 503 of such a read for the end, and deletes what it waited for
(outer-api.md 0.2).
"""

import re

#: of the older surfaces: V0, app-conversations, sandboxes, runtime-api
OLDER = re.compile(
    r"/api/conversations(/[^/]+(/events|/trajectory)?)?"
    r"|/api/v1/app-conversations(/search|/count|/start-tasks)?"
    r"|/api/v1/conversation/[^/]+/events(/search|/count)?"
    r"|/api/v1/sandboxes(/search)?"
    r"|/sessions/(?s:.+)|/runtime/[^/]+|/list"
)
_NATIVE = re.compile(r"/api/v2/(conversations|runtimes|operations)/(?!count$)[^/]+")


def is_polled(method: str, path: str) -> bool:
    """Whether it is such a read."""
    return method in ("GET", "HEAD") and bool(OLDER.fullmatch(path) or _NATIVE.fullmatch(path))
