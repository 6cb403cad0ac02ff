"""Pages and counts over an event log, filtered as the contract's search routes ask.

Called by the routes. Times and kinds are found in the index, so that only a search for words opens events it does not
return.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from runtime.events.clock import micros_of
from runtime.events.log import EventLog
from runtime.events.models import SOURCES, STORED_KINDS, parse_object

_BLOCK = 128
_NOTHING = 255  #: a code that no event has


class BadPage(ValueError):
    """The page id names no event of this conversation; start again without page_id."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are wanted; `since` is inclusive, `before` exclusive, `body` words of a message in any case."""

    kind: str | None = None
    source: str | None = None
    body: str | None = None
    since: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Log lines in the asked order, and the first event of the next page."""

    lines: list[bytes]
    next_id: UUID | None


def page(log: EventLog, wanted: Filter, *, page_id: UUID | None, limit: int, descending: bool) -> Page:
    """Up to `limit` events, beginning with `page_id` when given. Raises BadPage."""
    first, last = _bounds(log, wanted)
    if page_id is not None:
        start = log.index.number(page_id)
        if start is None:
            raise BadPage
        if descending:
            last = min(last, start + 1)
        else:
            first = max(first, start)
    numbers = range(last - 1, first - 1, -1) if descending else range(first, last)
    found: list[bytes] = []
    for number, line in _matching(log, wanted, numbers, block=limit + 1):
        if len(found) == limit:
            return Page(found, log.index.id_at(number))
        found.append(line)
    return Page(found, None)


def count(log: EventLog, wanted: Filter) -> int:
    """How many events match."""
    first, last = _bounds(log, wanted)
    if wanted.body is not None:
        return sum(1 for _ in _matching(log, wanted, range(first, last), block=_BLOCK))
    kind, source = _kind_code(wanted.kind), _source_code(wanted.source)
    return sum(1 for number in range(first, last) if log.index.matches(number, kind=kind, source=source))


def _bounds(log: EventLog, wanted: Filter) -> tuple[int, int]:
    first = 0 if wanted.since is None else log.index.first_at(micros_of(wanted.since))
    last = len(log) if wanted.before is None else log.index.first_at(micros_of(wanted.before))
    return first, last


def _matching(log: EventLog, wanted: Filter, numbers: range, *, block: int) -> Iterator[tuple[int, bytes]]:
    kind, source = _kind_code(wanted.kind), _source_code(wanted.source)
    for position in range(0, len(numbers), block):
        hits = [n for n in numbers[position : position + block] if log.index.matches(n, kind=kind, source=source)]
        if not hits:
            continue
        low = min(hits)
        lines = log.lines(low, max(hits) + 1)
        for number in hits:
            line = lines[number - low]
            if wanted.body is None or _says(line, wanted.body):
                yield number, line


def _kind_code(kind: str | None) -> int | None:
    """Kinds are asked for by class name or by dotted path; the last part counts."""
    if kind is None:
        return None
    name = kind.rpartition(".")[2]
    return STORED_KINDS.index(name) if name in STORED_KINDS else _NOTHING


def _source_code(source: str | None) -> int | None:
    if source is None:
        return None
    return next((code for code, name in enumerate(SOURCES) if name == source), _NOTHING)


def _says(line: bytes, words: str) -> bool:
    event = parse_object(line)
    if event["kind"] != "MessageEvent":
        return False
    texts = (part.get("text", "") for part in event["llm_message"].get("content", []))
    return any(words.casefold() in text.casefold() for text in texts)
