"""Digests of what is stored, by the names that somebody asks about: two that differ mean that something changed.

An orchestrator that pushed settings, git providers and secrets asks with the names that it pushed, so that what others
add beside them does not count. Keyed, so that nobody who sees one can try values against it. Pure.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.secrets.providers import GitProvider

_ABSENT = [False]


def digest(key: bytes, part: str, values: Sequence[Any]) -> str:
    """128 bits in hex over JSON values; another `part` with the same values has another one."""
    text = json.dumps([part, values], sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return hmac.new(key, text, hashlib.sha256).hexdigest()[:32]


def at_pointers(document: Mapping[str, Any], pointers: Sequence[str]) -> list[Any]:
    """Each JSON pointer (RFC 6901, members of objects alone) with what it leads to; nothing is told from null."""
    return [[pointer, _at(document, pointer)] for pointer in sorted(set(pointers))]


def of_providers(stored: Mapping[str, GitProvider], names: Sequence[str]) -> list[Any]:
    """Each name with all that is kept of the provider."""
    return [[name, _provider(stored.get(name))] for name in sorted(set(names))]


def _at(document: Mapping[str, Any], pointer: str) -> list[Any]:
    found: Any = document
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            return _ABSENT
        found = found[name]
    return [True, found]


def _provider(found: GitProvider | None) -> list[Any]:
    if found is None:
        return _ABSENT
    token = found.token.get_secret_value() if found.token is not None else None
    return [True, token, found.host, found.user_id]
