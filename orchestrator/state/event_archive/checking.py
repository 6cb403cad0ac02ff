"""Reading all of an archive of events: is every segment sound, and every log without a hole. For `nestor doctor`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.state.event_archive import segment
from orchestrator.state.event_archive.places import Missing, Place
from orchestrator.state.event_archive.segment import TAIL_BYTES, BrokenSegment, Span


@dataclass
class Checked:
    """`problems` name the segment or the log, and what is wrong with it."""

    logs: int = 0
    segments: int = 0
    events: int = 0  #: of the logs, each counted once
    problems: list[str] = field(default_factory=list)


async def check(place: Place) -> Checked:
    """Changes nothing, and may run beside orchestrators: what they merge or remove meanwhile is passed over. Raises
    `EventsUnavailable`."""
    found, logs = Checked(), dict[str, list[Span]]()
    for name in await place.below():
        folder, _, last = name.rpartition("/")
        if (span := segment.span_of(last)) is not None:
            logs.setdefault(folder, []).append(span)
    for folder, spans in sorted(logs.items()):
        found.logs += 1
        for span in spans:
            await _segment(place, folder, span, found)
        await _holes(place, folder, spans, found)
    return found


async def _segment(place: Place, folder: str, span: Span, found: Checked) -> None:
    name = f"{folder}/{span.name}"
    try:
        at, length = segment.index_place(await place.get(name, offset=-TAIL_BYTES, length=TAIL_BYTES))
        reach = span.first - 1
        for block in segment.index_of(await place.get(name, offset=at, length=length)):
            for event in segment.events_of(await place.get(name, offset=block.offset, length=block.length)):
                if event.first != reach + 1:
                    raise BrokenSegment("its events do not follow one another")
                reach = event.sequence
        if reach != span.last:
            raise BrokenSegment("it does not hold what its name says")
    except Missing:
        return
    except BrokenSegment as exc:
        found.problems.append(f"{name}: {exc}")
    found.segments += 1


async def _holes(place: Place, folder: str, spans: Sequence[Span], found: Checked) -> None:
    hole = _hole(spans)
    if hole is not None:  # perhaps by a merge that came between the list and now
        names = await place.names(folder)
        spans = [span for span in map(segment.span_of, names) if span is not None]
        hole = _hole(spans)
    if hole is not None:
        found.problems.append(f"{folder}: events {hole[0]} to {hole[1]} are in no segment")
    found.events += max((span.last for span in spans), default=0)


def _hole(spans: Sequence[Span]) -> tuple[int, int] | None:
    reach = 0
    for span in sorted(spans):
        if span.first > reach + 1:
            return reach + 1, span.first - 1
        reach = max(reach, span.last)
    return None
