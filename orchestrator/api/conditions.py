"""Versions of resources as `ETag` and `If-Match` (RFC 9110 13.1.1)."""

import re
from typing import Annotated

from fastapi import Header

from orchestrator.domain.errors import PreconditionFailed

_VERSION = re.compile(r"[0-9]{1,18}")
IfMatch = Annotated[str | None, Header()]


def etag(version: int) -> str:
    """The `ETag` of a version."""
    return f'"{version}"'


def version_in(if_match: str | None) -> int | None:
    """The version that a change is meant for; None: whatever there is. Raises `PreconditionFailed` for what never was
    one."""
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip().removeprefix("W/").strip('"')
    if not _VERSION.fullmatch(text):
        raise PreconditionFailed("If-Match is not a version that was given", hint="send the ETag of the last read")
    return int(text)
