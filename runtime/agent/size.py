"""How many tokens a chat has, about: from its characters, since the tables to count them with cost 100 MB. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: fewer than most texts have a token, so that a chat is rather thought too long than sent too long
CHARACTERS_A_TOKEN = 3.5
_IMAGE_TOKENS = 1_500
_MESSAGE_TOKENS = 4


def tokens_of(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> int:
    """An estimate for the whole call."""
    characters, images = _measured([*messages, *tools])
    return round(characters / CHARACTERS_A_TOKEN) + images * _IMAGE_TOKENS + len(messages) * _MESSAGE_TOKENS


def _measured(value: Any) -> tuple[int, int]:
    """Characters and images; an image's data is not text."""
    if isinstance(value, str):
        return len(value), 0
    if isinstance(value, Mapping):
        if value.get("type") == "image_url":
            return 0, 1
        found = [_measured(item) for item in value.values()]
        return sum(map(len, value)) + sum(one for one, _ in found), sum(one for _, one in found)
    if isinstance(value, list | tuple):
        found = [_measured(item) for item in value]
        return sum(one for one, _ in found), sum(one for _, one in found)
    return len(str(value)), 0
