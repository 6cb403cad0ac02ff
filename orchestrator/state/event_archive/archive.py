"""Event logs in segments: found by sequence, read at any cursor for the same cost, never changed once written.

A log's segments are named by the sequences that they hold, so the list of names is the index. Segments may overlap
(two replicas wrote the same events, or a crash came between merging some and removing them): equal numbers are equal
events, so whichever is read is right. What is listed is remembered, and listed again where it does not suffice.
"""

import secrets
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import structlog

from orchestrator.domain.errors import Misconfigured
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state.base import StoredEvent
from orchestrator.state.event_archive import segment
from orchestrator.state.event_archive.checking import Checked, check
from orchestrator.state.event_archive.files import FilePlace
from orchestrator.state.event_archive.places import EventsUnavailable, Missing, Place
from orchestrator.state.event_archive.segment import Block, BrokenSegment, Span
from orchestrator.state.event_archive.snapshots import SnapshotArchive

logger = structlog.get_logger(__name__)
V = TypeVar("V")
SEGMENT_EVENTS = 2_000
SEGMENT_CHARACTERS = 4 * 1024 * 1024
MERGE_AT = 16  #: so many small segments at the end of a log become one
_END_BYTES = 16 * 1024  # the tail and nearly every index: one request to object storage
_KNOWN_LOGS = 10_000
_KNOWN_INDEXES = 2_000


class DamagedEvents(EventsUnavailable):
    """A part of this log is damaged or gone. Which one is in the operator's log and no customer's business."""

    code = "event_archive_damaged"

    def __init__(self, problem: str, place: str) -> None:
        super().__init__("a part of this event log is damaged", hint="tell the operator, whose log says which part")
        logger.error("event_archive.damaged", place=place, problem=problem, hint="bring that segment back from a copy")


@dataclass(frozen=True)
class Log:
    """Whose log. `born` keeps it apart from that of an earlier conversation with the same id."""

    tenant: TenantId
    conversation: ConversationId
    born: datetime

    @property
    def home(self) -> str:
        """The folder of all logs that ever had this id."""
        return f"{self.tenant}/{self.conversation}"

    @property
    def folder(self) -> str:
        return f"{self.home}/{int(self.born.timestamp() * 1000)}"


class EventArchive:
    """All methods raise `EventsUnavailable`; those that read raise `DamagedEvents`. Safe to share between tasks."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.snapshots = SnapshotArchive(place)  #: of the same conversations; `remove` takes them with it
        self.problem: str | None = None  #: why nothing could be archived at the last try; kept by whoever archives
        self._spans: OrderedDict[str, list[Span]] = OrderedDict()
        self._indexes: OrderedDict[str, list[Block]] = OrderedDict()

    async def identity(self) -> str:
        """This archive's id, made once: how replicas know that they write the same one."""
        await self._place.put_new("identity", secrets.token_hex(16).encode())
        return (await self._place.get("identity", offset=0, length=64)).decode("ascii", "replace")

    async def known_identity(self) -> str | None:
        """The same, without making one."""
        try:
            return (await self._place.get("identity", offset=0, length=64)).decode("ascii", "replace")
        except Missing:
            return None

    async def check(self) -> Checked:
        """Read all of it (`checking.py`)."""
        return await check(self._place)

    def known(self, log: Log) -> int:
        """The last sequence that this process knows to be archived. Asks nobody."""
        return _reach(self._spans.get(log.folder, ()))

    async def through(self, log: Log) -> int:
        """The last sequence that is archived, with all before it; 0 for none. Looks."""
        return _reach(await self._list(log))

    def wants_merge(self, log: Log) -> bool:
        """Whether there are many small segments, as far as this process knows."""
        return len(_small_run(self._spans.get(log.folder, ()))) >= MERGE_AT

    async def last(self, log: Log) -> StoredEvent | None:
        """The event at `through`."""
        through = await self.through(log)
        found = await self.read(log, after=through - 1, limit=1) if through else []
        return found[0] if found else None

    async def read(self, log: Log, *, after: int, limit: int) -> Sequence[StoredEvent]:
        """Up to `limit` events above `after` in a row; fewer only where the archive ends."""
        found: list[StoredEvent] = []
        spans, fresh = self._spans.get(log.folder), False
        while len(found) < limit:
            span = _covering(spans or (), after + 1)
            try:
                if span is None:
                    raise Missing
                some = await self._events(log, span, after=after, limit=limit - len(found))
            except Missing as exc:
                if fresh and span is None:
                    return found
                if fresh:
                    raise DamagedEvents(
                        "it is listed and cannot be read", f"{log.folder}/{span and span.name}"
                    ) from exc
                spans, fresh = await self._list(log), True  # what was remembered is too little, or was merged
                continue
            found += some
            after = found[-1].sequence
        return found

    async def write(self, log: Log, events: Sequence[StoredEvent], *, merged: bool = False) -> None:
        """Put events that follow one another into segments. There for good when this returns."""
        start = size = 0
        for position, event in enumerate(events):
            size += len(event.payload)
            full = position + 1 - start >= SEGMENT_EVENTS or size >= SEGMENT_CHARACTERS
            if full or position + 1 == len(events):
                await self._put(log, events[start : position + 1], merged)
                start, size = position + 1, 0

    async def merge(self, log: Log) -> bool:
        """Make one of many small segments. Answers whether it did. A crash leaves events in two segments, which is
        harmless; a segment that is spare goes the next time."""
        spans = await self._list(log)
        for span in [span for span in spans if _spare(span, spans)]:
            await self._place.remove(f"{log.folder}/{span.name}")
            spans.remove(span)
        run = _small_run(spans)
        if len(run) < MERGE_AT:
            return False
        first, last = run[0].first, run[-1].last
        events = await self.read(log, after=first - 1, limit=last - first + 1)
        await self.write(log, events, merged=True)
        for span in run:
            await self._place.remove(f"{log.folder}/{span.name}")
        await self._list(log)
        return True

    async def remove(self, log: Log) -> None:
        """All that there is under the conversation's id. Gone already: fine."""
        self._spans.pop(log.folder, None)
        await self._place.remove_folder(log.home)

    async def close(self) -> None:
        await self._place.close()

    async def _list(self, log: Log) -> list[Span]:
        names = await self._place.names(log.folder)
        spans = sorted(span for span in map(segment.span_of, names) if span is not None)
        _remember(self._spans, log.folder, spans, _KNOWN_LOGS)
        return spans

    async def _put(self, log: Log, events: Sequence[StoredEvent], merged: bool) -> None:
        span, content = segment.encoded(events, merged=merged)
        await self._place.put(f"{log.folder}/{span.name}", content)
        known = self._spans.get(log.folder, ())  # perhaps not all of it: who misses something lists
        if span not in known:
            _remember(self._spans, log.folder, sorted([*known, span]), _KNOWN_LOGS)

    async def _events(self, log: Log, span: Span, *, after: int, limit: int) -> list[StoredEvent]:
        """Those above `after` in one segment, at least one. Raises `Missing`."""
        name = f"{log.folder}/{span.name}"
        found: list[StoredEvent] = []
        try:
            for block in await self._index(name):
                if block.last <= after or len(found) >= limit:
                    continue
                packed = await self._place.get(name, offset=block.offset, length=block.length)
                found += [event for event in segment.events_of(packed) if event.sequence > after]
        except BrokenSegment as exc:
            raise DamagedEvents(str(exc), name) from exc
        if not found:
            raise DamagedEvents("it does not hold what its name says", name)
        return found[:limit]

    async def _index(self, name: str) -> list[Block]:
        known = self._indexes.get(name)
        if known is not None:
            self._indexes.move_to_end(name)
            return known
        end = await self._place.get(name, offset=-_END_BYTES, length=_END_BYTES)
        offset, length = segment.index_place(end)
        inside = length + segment.TAIL_BYTES
        packed = end[-inside : -segment.TAIL_BYTES] if inside <= len(end) else None
        found = segment.index_of(packed or await self._place.get(name, offset=offset, length=length))
        _remember(self._indexes, name, found, _KNOWN_INDEXES)
        return found


def _remember(known: "OrderedDict[str, V]", name: str, value: V, most: int) -> None:
    known[name] = value
    known.move_to_end(name)
    while len(known) > most:
        known.popitem(last=False)


def _reach(spans: Sequence[Span]) -> int:
    """Up to where they hold everything."""
    reach = 0
    for span in spans:
        if span.first > reach + 1:
            break
        reach = max(reach, span.last)
    return reach


def _spare(span: Span, spans: Sequence[Span]) -> bool:
    """Whether another one holds all of it."""
    return any(
        one.first <= span.first
        and span.last <= one.last
        and ((one.first, one.last) != (span.first, span.last) or one.merged > span.merged)
        for one in spans
    )


def _small_run(spans: Sequence[Span]) -> list[Span]:
    """The first that are small, were never merged, and follow one another; `MERGE_AT` of them at most."""
    run: list[Span] = []
    for span in spans:
        if len(run) >= MERGE_AT:
            break
        if span.merged or span.last - span.first + 1 >= SEGMENT_EVENTS // 2:
            run = []
        elif run and span.first > run[-1].last + 1:
            run = [span]
        elif not run or span.last > run[-1].last:
            run.append(span)
    return run


def _covering(spans: Sequence[Span], sequence: int) -> Span | None:
    """One that holds `sequence`, of those sorted."""
    for position in range(bisect_right(spans, Span(sequence, 2**63, True)) - 1, -1, -1):
        if spans[position].last >= sequence:
            return spans[position]
    return None


def open_event_archive(url: str | None, *, journal: str | None, default: Path) -> EventArchive:
    """The archive of NESTOR_EVENTS_URL: `file:///folder` or `s3://bucket/prefix?endpoint=...&region=...`; without it
    beside the journal where that has an address, else `default`. Raises `Misconfigured`."""
    if url is None and journal is None:
        return EventArchive(FilePlace(default))
    parts = urlsplit(url if url is not None else journal or "")
    if url is None:
        if not parts.path.strip("/"):
            raise Misconfigured(
                "NESTOR_JOURNAL_URL takes all of its bucket, so there is no place beside it for events",
                hint="say where with NESTOR_EVENTS_URL, such as s3://another-bucket or s3://bucket/events",
            )
        parts = parts._replace(path=parts.path.rstrip("/") + "-events")
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return EventArchive(FilePlace(Path(parts.path)))
    if parts.scheme == "s3" and parts.hostname and not (parts.username or parts.password):
        try:
            from orchestrator.state.event_archive.objects import ObjectPlace
        except ImportError:
            raise Misconfigured(
                "NESTOR_EVENTS_URL names object storage, and the client for it is not installed",
                hint="install nestor[s3]",
            ) from None
        return EventArchive(ObjectPlace.of_url(parts.geturl()))
    raise Misconfigured(
        "NESTOR_EVENTS_URL is not an address of an archive",
        hint="use file:///folder or s3://bucket/prefix?endpoint=https://host; credentials come from the environment",
    )


def event_folder_of(url: str | None, journal: str | None) -> Path | None:
    """Where the archive is in files outside of the data folder: nothing that a runtime may see. None elsewhere."""
    if url is None and journal is None:
        return None
    parts = urlsplit(url if url is not None else f"{(journal or '').rstrip('/')}-events")
    return Path(parts.path) if parts.scheme == "file" else None
