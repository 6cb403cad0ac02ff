"""Headers that say the same as the observability fields of a start request (contract 4.1): the body wins, and values of
metadata are put together by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from runtime.api.bodies import check_json
from runtime.api.parsing import refused

_PREFIX = "x-openhands-observability-"
METADATA_HEADER = "X-OpenHands-Observability-Metadata"


def with_observability(body: Mapping[str, Any], headers: Mapping[str, str]) -> Mapping[str, Any]:
    """The body with what only the headers say. Raises RequestValidationError."""
    said = {name: headers.get(_PREFIX + name.replace("_", "-"), "").strip() for name in _FIELDS}
    found: dict[str, Any] = {}
    if said["span_name"]:
        found["observability_span_name"] = said["span_name"]
    if said["tags"]:
        found["observability_tags"] = [tag.strip() for tag in said["tags"].split(",") if tag.strip()]
    if said["parent_span_context"]:
        found["observability_parent_span_context"] = said["parent_span_context"]
    merged = {**found, **body}
    if merged.get("observability_parent_span_context") is None and said["parent_span_context"]:
        merged["observability_parent_span_context"] = said["parent_span_context"]
    if said["metadata"]:
        given = body.get("observability_metadata")
        if given is None or isinstance(given, Mapping):  # what else it is, the model refuses
            merged["observability_metadata"] = {**_object(said["metadata"]), **(given or {})}
    return merged


_FIELDS = ("span_name", "tags", "metadata", "parent_span_context")


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
        check_json(value)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise refused("observability_metadata", f"{METADATA_HEADER} must be a JSON object")
    return value
