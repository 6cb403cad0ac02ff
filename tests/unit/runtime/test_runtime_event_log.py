"""The event log: what it keeps, how it is paged, what it does with what a crash left."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from runtime.events.content import Message, TextContent
from runtime.events.log import EventLog
from runtime.events.models import ConversationStateUpdateEvent, MessageEvent, PauseEvent, StoredEvent, parse
from runtime.events.search import BadPage, Filter, count, page


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path)


def state(log: EventLog, value: int) -> StoredEvent:
    return ConversationStateUpdateEvent(id=str(uuid4()), timestamp=log.next_timestamp(), key="n", value=value)


def words(log: EventLog, text: str) -> StoredEvent:
    content = [TextContent(text=text)]
    message = Message(role="user", content=content)
    return MessageEvent(id=str(uuid4()), timestamp=log.next_timestamp(), source="user", llm_message=message)


def fill(log: EventLog, amount: int) -> list[StoredEvent]:
    events = [state(log, number) for number in range(amount)]
    stored = []
    for event in events:
        event.timestamp = log.next_timestamp()
        log.append(event)
        stored.append(event)
    return stored


def ids(lines: list[bytes]) -> list[str]:
    return [parse(line).id for line in lines]


def test_an_event_comes_back_as_it_was_stored(log: EventLog) -> None:
    event = words(log, "hello \u2028 w\u00f6rld\r\n")
    line = log.append(event)
    assert log.line(UUID(event.id)) == line
    assert parse(line) == event


def test_times_never_go_back(log: EventLog) -> None:
    stamps = [event.timestamp for event in fill(log, 50)]
    assert stamps == sorted(set(stamps))


def test_pages_follow_each_other_in_both_directions(log: EventLog) -> None:
    events = [event.id for event in fill(log, 25)]
    for descending, wanted in ((False, events), (True, events[::-1])):
        found: list[str] = []
        at: UUID | None = None
        while True:
            got = page(log, Filter(), page_id=at, limit=10, descending=descending)
            found += ids(got.lines)
            at = got.next_id
            if at is None:
                break
            assert str(at) not in found
        assert found == wanted


def test_an_unknown_page_is_refused(log: EventLog) -> None:
    fill(log, 3)
    with pytest.raises(BadPage):
        page(log, Filter(), page_id=uuid4(), limit=10, descending=False)


def test_filters_by_kind_source_words_and_time(log: EventLog) -> None:
    fill(log, 5)
    first, second = words(log, "Find ME"), words(log, "nothing")
    log.append(first)
    second.timestamp = log.next_timestamp()
    log.append(second)
    log.append(PauseEvent(id=str(uuid4()), timestamp=log.next_timestamp()))

    def found(wanted: Filter) -> list[str]:
        return ids(page(log, wanted, page_id=None, limit=100, descending=False).lines)

    assert found(Filter(kind="MessageEvent")) == [first.id, second.id]
    assert found(Filter(kind="some.module.MessageEvent")) == [first.id, second.id]
    assert found(Filter(kind="Unknown")) == []
    assert len(found(Filter(source="user"))) == 3
    assert found(Filter(body="find me")) == [first.id]
    since = Filter(since=datetime.fromisoformat(second.timestamp))
    assert found(since)[0] == second.id
    assert count(log, since) == 2
    assert count(log, Filter(before=datetime.fromisoformat(second.timestamp))) == 6
    assert count(log, Filter(kind="ConversationStateUpdateEvent")) == 5


@pytest.mark.parametrize("torn", [b'{"id":"', b'{"id":1}\n', b"\0" * 70, b"[]\n", b"\n"])
def test_a_torn_tail_is_moved_aside_and_the_log_goes_on(tmp_path: Path, torn: bytes) -> None:
    log = EventLog(tmp_path)
    events = fill(log, 3)
    log.close()
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(torn)
    again = EventLog(tmp_path)
    assert ids(again.lines(0, 10)) == [event.id for event in events]
    later = state(again, 9)
    again.append(later)
    again.close()
    assert ids(EventLog(tmp_path).lines(3, 10)) == [later.id]
    assert torn in (tmp_path / "events.torn").read_bytes()


def _remove(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-57])


def _zero(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:80] + bytes(120))


def _foreign(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:16] + uuid4().bytes + content[32:])


@pytest.mark.parametrize("damage", [_remove, _cut, _zero, _foreign])
def test_a_damaged_index_is_rebuilt_from_the_log(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    log = EventLog(tmp_path)
    events = fill(log, 5 if damage is not _foreign else 1)
    log.close()
    damage(tmp_path / "events.index")
    again = EventLog(tmp_path)
    assert ids(again.lines(0, 10)) == [event.id for event in events]
    again.close()
    third = EventLog(tmp_path)
    assert all(third.contains(UUID(event.id)) for event in events)
    assert ids(third.lines(0, 10)) == [event.id for event in events]


def test_a_page_costs_the_same_in_a_long_log(tmp_path: Path) -> None:
    short, long = EventLog(_folder(tmp_path / "short")), EventLog(_folder(tmp_path / "long"))
    fill(short, 150)
    fill(long, 20_000)

    def cost(log: EventLog) -> float:
        best = 1.0
        for _ in range(20):
            began = time.perf_counter()
            page(log, Filter(), page_id=log.index.id_at(len(log) - 120), limit=100, descending=False)
            best = min(best, time.perf_counter() - began)
        return best

    assert cost(long) < 5 * cost(short) + 0.001


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
