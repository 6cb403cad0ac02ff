"""Settings as documents of nested maps: how layers are merged, and how a change is applied.

Effective = operator < tenant < user < request (DESIGN: one pure function that can say where each value came from).
Secret fields hold `SecretText`. Which fields are secret is known by name, here and nowhere else.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.domain.secrets import REDACTED, SecretText

Document = dict[str, Any]

#: By its shape, since fields beyond the typed ones are litellm's, and their names are many.
_SECRET_NAME = re.compile(
    r"secret|password|credential|authorization|aws_access_key_id|(api|access|private|session)_?key$|(^|_)(token|auth)$",
    re.IGNORECASE,
)
#: Every value inside a map of this name is secret: an MCP server's headers and environment.
SECRET_MAPS = frozenset({"headers", "env", "extra_headers"})


def wrap_secrets(value: Any, *, secret: bool = False) -> Any:
    """A copy in which every secret text is a `SecretText`: with `secret` all of them, else what is below a name that
    says so."""
    if isinstance(value, str):
        return SecretText(value) if secret else value
    if isinstance(value, Mapping):
        return {name: wrap_secrets(item, secret=secret or _is_secret(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [wrap_secrets(item, secret=secret) for item in value]
    return value


def _is_secret(name: str) -> bool:
    return name in SECRET_MAPS or _SECRET_NAME.search(name) is not None


def _is_hidden(value: Any) -> bool:
    """Whether this is what was shown instead of a secret."""
    if isinstance(value, list):
        return any(_is_hidden(item) for item in value)
    return isinstance(value, SecretText) and value.open() in (REDACTED, "")


def apply_change(document: Mapping[str, Any], change: Mapping[str, Any]) -> Document:
    """The document after a merge patch (RFC 7396): maps merge, null removes, everything else replaces.

    The mark of a hidden value sent back for a secret that is set means "unchanged".
    """
    result: Document = dict(document)
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            present = result.get(name)
            result[name] = apply_change(present if isinstance(present, Mapping) else {}, value)
        elif _is_hidden(value) and name in result:
            continue
        else:
            result[name] = value
    return result


def merge(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Document, dict[str, str]]:
    """The effective document of named layers, weakest first, and for each leaf (dotted path) the layer it came from."""
    effective: Document = {}
    origin: dict[str, str] = {}
    for layer, document in layers:
        _merge_into(effective, origin, layer, document, "")
    return effective, origin


def _merge_into(target: Document, origin: dict[str, str], layer: str, document: Mapping[str, Any], prefix: str) -> None:
    for name, value in document.items():
        path = prefix + name
        if isinstance(value, Mapping):
            present = target.get(name)
            if not isinstance(present, dict):
                target[name] = present = {}
                origin.pop(path, None)
            _merge_into(present, origin, layer, value, path + ".")
        elif value is not None:
            if isinstance(target.get(name), dict):  # a value takes the place of a whole map
                for below in [known for known in origin if known.startswith(path + ".")]:
                    del origin[below]
            target[name] = value
            origin[path] = layer
