"""The event log against whatever a crash, a copy or a full disk can do to its two files."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.events.content import Message, TextContent
from runtime.events.index import RECORD_BYTES
from runtime.events.log import DuplicateEvent, EventLog
from runtime.events.models import ConversationStateUpdateEvent, MessageEvent, StoredEvent, parse, parse_object
from runtime.events.search import Filter, count, page

RELAXED = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
TEXTS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60), min_size=1, max_size=6)


@contextmanager
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as made:
        yield Path(made)


@contextmanager
def opened(where: Path) -> Iterator[EventLog]:
    log = EventLog(where)
    try:
        yield log
    finally:
        log.close()


def message(log: EventLog, text: str) -> StoredEvent:
    content = Message(role="user", content=[TextContent(text=text)])
    return MessageEvent(id=str(uuid4()), timestamp=log.next_timestamp(), source="user", llm_message=content)


def state(log: EventLog, value: object) -> StoredEvent:
    return ConversationStateUpdateEvent(id=str(uuid4()), timestamp=log.next_timestamp(), key="n", value=value)


def fill(where: Path, texts: list[str]) -> list[bytes]:
    with opened(where) as log:
        return [log.append(message(log, text)) for text in texts]


def all_of(log: EventLog) -> list[bytes]:
    return log.lines(0, len(log))


@RELAXED
@given(texts=TEXTS, place=st.floats(0, 1), keep_index=st.booleans())
def test_a_log_cut_anywhere_keeps_every_whole_event_and_goes_on(
    texts: list[str], place: float, keep_index: bool
) -> None:
    with folder() as where:
        lines = fill(where, texts)
        size = (where / "events.jsonl").stat().st_size
        cut = round(size * place)
        os.truncate(where / "events.jsonl", cut)
        if not keep_index:
            (where / "events.index").unlink()
        whole, end = [], 0
        for line in lines:
            end += len(line) + 1
            if end <= cut:
                whole.append(line)
        with opened(where) as log:
            assert all_of(log) == whole
            later = log.append(message(log, "later"))
        with opened(where) as log:
            assert all_of(log) == [*whole, later]
            assert log.line(UUID(parse(later).id)) == later


def test_a_tail_torn_at_every_byte(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        lines = [log.append(message(log, "first \u2028")), log.append(message(log, "torn"))]
    content = (tmp_path / "events.jsonl").read_bytes()
    for cut in range(len(lines[0]) + 1, len(content)):
        where = tmp_path / str(cut)
        where.mkdir()
        (where / "events.jsonl").write_bytes(content[:cut])
        (where / "events.index").write_bytes((tmp_path / "events.index").read_bytes())
        with opened(where) as log:
            assert all_of(log) == lines[:1]
            log.append(message(log, "next"))
            assert len(log) == 2
        torn = content[len(lines[0]) + 1 : cut]
        assert not torn or (where / "events.torn").read_bytes() == torn + b"\n"


@RELAXED
@given(texts=TEXTS, data=st.data())
def test_a_damaged_index_never_shows_another_log(texts: list[str], data: st.DataObject) -> None:
    with folder() as where:
        lines = fill(where, texts)
        path = where / "events.index"
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content)))
        match data.draw(st.sampled_from(["cut", "zero", "stale", "foreign", "gone", "longer"])):
            case "cut":
                path.write_bytes(content[:at])
            case "zero":  # pages that never came to the disk
                first = at - at % RECORD_BYTES
                path.write_bytes(content[:first] + bytes(len(content) - first))
            case "stale":
                path.write_bytes(content[: at - at % RECORD_BYTES])
            case "foreign":
                with folder() as other:
                    fill(other, [*texts, "more"])
                    path.write_bytes((other / "events.index").read_bytes())
            case "gone":
                path.unlink()
            case "longer":
                path.write_bytes(content + content[-RECORD_BYTES:])
        for _ in range(2):  # what was rebuilt is right the next time too
            with opened(where) as log:
                assert all_of(log) == lines
                assert [log.line(UUID(parse(line).id)) for line in lines] == lines
                assert not log.contains(uuid4())


def test_a_hole_in_the_middle_of_the_index_is_filled_when_it_is_met(tmp_path: Path) -> None:
    fill(tmp_path, [str(number) for number in range(50)])
    path = tmp_path / "events.index"
    whole = path.read_bytes()
    path.write_bytes(whole[: 10 * RECORD_BYTES] + bytes(10 * RECORD_BYTES) + whole[20 * RECORD_BYTES :])
    with opened(tmp_path) as log:
        assert count(log, Filter(kind="MessageEvent")) == 50
    assert path.read_bytes() == whole


def test_a_wrong_entry_in_the_middle_of_the_index_is_found_when_it_is_used(tmp_path: Path) -> None:
    lines = fill(tmp_path, [str(number) for number in range(50)])
    path = tmp_path / "events.index"
    whole = path.read_bytes()
    wrong = bytearray(whole)
    wrong[12 * RECORD_BYTES] ^= 0xFF  # where the line ends
    for look in (
        lambda log: log.lines(13, 15) == lines[13:15],
        lambda log: log.lines(11, 13) == lines[11:13],
        lambda log: log.contains(UUID(parse(lines[12]).id)) and log.lines(12, 13) == lines[12:13],
    ):
        path.write_bytes(wrong)
        with opened(tmp_path) as log:
            assert look(log)
        assert path.read_bytes() == whole


def test_an_id_is_stored_once(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        first = log.append(message(log, "one"))
        again = parse(first)
        again.timestamp = log.next_timestamp()
        with pytest.raises(DuplicateEvent):
            log.append(again)
    with opened(tmp_path) as log:
        with pytest.raises(DuplicateEvent):
            log.append(again)
        assert all_of(log) == [first]


@RELAXED
@given(
    kinds=st.lists(st.sampled_from("ms"), max_size=40),
    limit=st.integers(1, 7),
    kind=st.sampled_from([None, "MessageEvent", "ConversationStateUpdateEvent", "PauseEvent", "Nothing"]),
    source=st.sampled_from([None, "user", "environment", "x"]),
    body=st.sampled_from([None, "MESSAGE 1"]),
    descending=st.booleans(),
    window=st.tuples(st.integers(-2, 42), st.integers(-2, 42)),
)
def test_pages_and_counts_are_what_looking_at_every_event_gives(
    kinds: list[str],
    limit: int,
    kind: str | None,
    source: str | None,
    body: str | None,
    descending: bool,
    window: tuple[int, int],
) -> None:
    with folder() as where, opened(where) as log:
        events = []
        for number, made in enumerate(kinds):
            event = message(log, f"message {number}") if made == "m" else state(log, number)
            log.append(event)
            events.append(event)
        since, before = (moment(events, place) for place in window)
        wanted = Filter(kind=kind, source=source, body=body, since=since, before=before)
        expected = [
            event.id
            for event in events
            if kind in (None, event.kind)
            and source in (None, event.source)
            and (body is None or (isinstance(event, MessageEvent) and body.lower() in repr(event.llm_message)))
            and (since is None or datetime.fromisoformat(event.timestamp) >= since)
            and (before is None or datetime.fromisoformat(event.timestamp) < before)
        ]
        assert count(log, wanted) == len(expected)
        found: list[str] = []
        at: UUID | None = None
        while True:
            got = page(log, wanted, page_id=at, limit=limit, descending=descending)
            assert len(got.lines) <= limit
            found += [parse(line).id for line in got.lines]
            at = got.next_id
            if at is None:
                break
        assert found == (expected[::-1] if descending else expected)


def moment(events: list[StoredEvent], place: int) -> datetime | None:
    """The time of an event; before the first and after the last when there is none, or no bound at all."""
    if not events or place == -2:
        return None
    if place >= len(events):
        return datetime.fromisoformat(events[-1].timestamp) + timedelta(seconds=1)
    return datetime.fromisoformat(events[max(place, 0)].timestamp)


def test_a_full_disk_stores_nothing_of_the_event_and_the_log_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        kept = [log.append(message(log, "x" * 100)) for _ in range(5)]
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.index.end + 150, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                log.append(message(log, "y" * 1000))  # the first 150 bytes of it fit
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        assert (tmp_path / "events.jsonl").read_bytes() == b"".join(line + b"\n" for line in kept)
        kept.append(log.append(message(log, "after")))
    with opened(tmp_path) as log:
        assert all_of(log) == kept


def test_more_than_99_999_events_come_back_complete(tmp_path: Path) -> None:
    amount = 120_000
    source = fill(tmp_path, ["x"])[0]
    stamp = datetime.fromisoformat(parse(source).timestamp)
    pattern = source.replace(parse(source).id.encode(), b"%b").replace(parse(source).timestamp.encode(), b"%b")
    ids = [str(uuid4()).encode() for _ in range(amount)]
    with (tmp_path / "events.jsonl").open("ab") as file:
        for number, id in enumerate(ids):
            at = (stamp + timedelta(microseconds=number + 1)).isoformat(timespec="microseconds")
            file.write(pattern % (id, at.encode()) + b"\n")
    with opened(tmp_path) as log:
        assert len(log) == amount + 1
        stored = [parse_object(line)["id"].encode() for line in log.lines(1, len(log))]
        assert stored == ids
        assert [log.number(UUID(id.decode())) for id in ids] == list(range(1, amount + 1))
        for number in (0, 99_998, 99_999, 100_000, amount - 1):
            id = UUID(ids[number].decode())
            got = page(log, Filter(), page_id=id, limit=2, descending=False)
            assert [parse(line).id for line in got.lines] == [one.decode() for one in ids[number : number + 2]]
        assert count(log, Filter(kind="MessageEvent", source="user")) == amount + 1
        assert log.append(message(log, "one more"))
    with opened(tmp_path) as log:
        assert len(log) == amount + 2
