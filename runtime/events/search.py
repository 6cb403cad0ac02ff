"""Pages and counts over an event log, filtered as the contract's search routes ask.

Called by the routes. Times and kinds are found in the index, so that only a search for words opens events it does not
return.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
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
    return log.reading(lambda: _page(log, wanted, page_id=page_id, limit=limit, descending=descending))


def _page(log: EventLog, wanted: Filter, *, page_id: UUID | None, limit: int, descending: bool) -> Page:
    first, last = _bounds(log, wanted)
    if page_id is not None:
        start = log.number(page_id)
        if start is None:
            raise BadPage
        if descending:
            last = min(last, start + 1)
        else:
            first = max(first, start)
    found: list[bytes] = []
    for number, line in _matching(log, wanted, first, last, block=limit + 1, descending=descending):
        if len(found) == limit:
            return Page(found, log.index.id_at(number))
        found.append(line)
    return Page(found, None)


def count(log: EventLog, wanted: Filter) -> int:
    """How many events match. Reads events only when words are searched for."""
    return log.reading(lambda: _count(log, wanted))


def _count(log: EventLog, wanted: Filter) -> int:
    first, last = _bounds(log, wanted)
    if wanted.body is not None:
        return sum(1 for _ in _matching(log, wanted, first, last, block=_BLOCK, descending=False))
    kind, source = _kind_code(wanted.kind), _source_code(wanted.source)
    if kind is None and source is None:
        return max(0, last - first)
    kinds, sources = log.index.kinds(first, last), log.index.sources(first, last)
    if kind is None:
        return sum(codes.count(source or 0) for _, codes in sources)
    if source is None:
        return sum(codes.count(kind) for _, codes in kinds)
    return sum(
        sum(map((kind, source).__eq__, zip(ours, theirs, strict=True)))
        for (_, ours), (_, theirs) in zip(kinds, sources, strict=True)
    )


def _bounds(log: EventLog, wanted: Filter) -> tuple[int, int]:
    first = 0 if wanted.since is None else log.first_at(micros_of(wanted.since))
    last = len(log) if wanted.before is None else log.first_at(micros_of(wanted.before))
    return first, last


def _matching(
    log: EventLog, wanted: Filter, first: int, last: int, *, block: int, descending: bool
) -> Iterator[tuple[int, bytes]]:
    hits = _hits(log, wanted, first, last, descending=descending)
    while numbers := list(islice(hits, block)):
        for number, line in zip(numbers, _read(log, numbers), strict=True):
            if wanted.body is None or _says(line, wanted.body):
                yield number, line


def _hits(log: EventLog, wanted: Filter, first: int, last: int, *, descending: bool) -> Iterator[int]:
    """The numbers of the events whose kind and source are wanted, found in the index."""
    kind, source = _kind_code(wanted.kind), _source_code(wanted.source)
    if kind is None and wanted.body is not None:
        kind = _kind_code("MessageEvent")  # nothing else has words to search
    if kind is None and source is None:
        yield from range(last - 1, first - 1, -1) if descending else range(first, last)
        return
    column, code = (log.index.kinds, kind) if kind is not None else (log.index.sources, source or 0)
    others = log.index.sources(first, last, backwards=descending) if kind is not None and source is not None else None
    for start, codes in column(first, last, backwards=descending):
        other = next(others)[1] if others is not None else None
        at = codes.rfind(code) if descending else codes.find(code)
        while at >= 0:
            if other is None or other[at] == source:
                yield start + at
            at = codes.rfind(code, 0, at) if descending else codes.find(code, at + 1)


def _read(log: EventLog, numbers: Sequence[int]) -> list[bytes]:
    """The events of these numbers, in their order, neighbours in one read."""
    lines: dict[int, bytes] = {}
    rising = sorted(numbers)
    start = 0
    for position in range(1, len(rising) + 1):
        if position == len(rising) or rising[position] != rising[position - 1] + 1:
            run = range(rising[start], rising[position - 1] + 1)
            lines.update(zip(run, log.lines(run.start, run.stop), strict=True))
            start = position
    return [lines[number] for number in numbers]


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
