"""How a route declares its answers: the `responses` of its decorator."""

from collections.abc import Mapping
from typing import Any

from orchestrator.api.answers.operations import DryRun

Declared = dict[int | str, dict[str, Any]]


def says(answers: Mapping[int, Any], *, stream: str = "") -> Declared:
    """What is answered with each status of success; `stream`: what is sent instead as server-sent events."""
    said: Declared = {status: {"model": answer} for status, answer in answers.items()}
    if stream:
        content = {"text/event-stream": {"schema": {"type": "string", "description": stream}}}
        said.setdefault(200, {})["content"] = content
    return said


def starts(record: Any) -> Declared:
    """Of a start: 202 with the record, 200 where it was waited for, or with what a dry run tells."""
    told = "It is ready, was waited for (`wait`), or only tried (`dry_run`)"
    return {202: {"model": record}, 200: {"model": record | DryRun, "description": told}}


def changes(record: Any) -> Declared:
    """Of a change that is asked for: 202 with the record, 200 where it was so already."""
    return {202: {"model": record}, 200: {"model": record, "description": "It was so already"}}


def removes(record: Any) -> Declared:
    """Of a deletion: 202 with the record, 204 where what ran is removed by now."""
    return {202: {"model": record}, 204: {"description": "Nothing runs of it any more"}}


def waits(record: Any) -> Declared:
    """Of a start that cannot be tried."""
    return {202: {"model": record}, 200: {"model": record, "description": "It was waited for (`wait`)"}}
