"""Ids of a long log: found, or known to be new, at the same cost; and after whatever a crash left of the tables."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runtime.events import ids
from runtime.events.index import RECORD_BYTES
from runtime.events.log import DuplicateEvent, EventLog
from runtime.events.models import ConversationStateUpdateEvent
from runtime.events.search import Filter, page

RELAXED = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables from the third event on, so that a few events fill several."""
    monkeypatch.setattr(ids, "FIRST", 2)


@contextmanager
def opened(where: Path) -> Iterator[EventLog]:
    log = EventLog(where)
    try:
        yield log
    finally:
        log.close()


def add(log: EventLog, id: UUID | None = None) -> UUID:
    id = id or uuid4()
    stamp = log.next_timestamp()
    log.append(ConversationStateUpdateEvent(id=str(id), timestamp=stamp, key="n", value=len(log)))
    return id


def fill(where: Path, amount: int) -> list[UUID]:
    with opened(where) as log:
        return [add(log) for _ in range(amount)]


def holds(log: EventLog, known: list[UUID]) -> None:
    """Every id is where it was put, is refused a second time, and others are not known."""
    assert [log.number(id) for id in known] == list(range(len(known)))
    for id in known[:1] + known[-1:]:
        with pytest.raises(DuplicateEvent):
            add(log, id)
    assert not any(log.contains(uuid4()) for _ in range(5))


def test_ids_are_found_while_the_log_grows_over_many_tables(small: None, tmp_path: Path) -> None:
    known: list[UUID] = []
    with opened(tmp_path) as log:
        for _ in range(600):
            known.append(add(log))
            assert log.number(known[-1]) == len(known) - 1
            assert log.number(known[len(known) // 2]) == len(known) // 2
        holds(log, known)
    with opened(tmp_path) as log:
        holds(log, known)


@RELAXED
@example(before=0, after=4, lost=[("index", 0.35, 0.4543)], cut=0.8743)  # a part of a record
@example(before=3, after=4, lost=[("index", 0.4651, 0.5583)], cut=None)
@given(
    before=st.integers(0, 40),
    after=st.integers(0, 40),
    lost=st.lists(st.tuples(st.sampled_from(["ids", "index"]), st.floats(0, 1), st.floats(0, 1)), max_size=4),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_a_power_cut_may_take_any_part_of_what_was_not_marked(
    small: None, before: int, after: int, lost: list[tuple[str, float, float]], cut: float | None
) -> None:
    """What was there at the mark is on disk; of later writes any part may be missing: zeros, or the file's end."""
    with TemporaryDirectory() as made:
        where = Path(made)
        known = fill(where, before)  # closing marks
        marked = {path.name: path.read_bytes() for path in where.iterdir()}
        log = EventLog(where)
        known += [add(log) for _ in range(after)]
        os.close(log._file)  # as a death does: nothing is marked
        os.close(log._index_file)
        log._ids.close()
        for name, first, last in lost:
            path = where / f"events.{name}"
            if path.exists():
                _lose(path, marked.get(path.name, b""), first, last)
        if cut is not None:
            old, size = len(marked.get("events.jsonl", b"")), (where / "events.jsonl").stat().st_size
            os.truncate(where / "events.jsonl", old + round((size - old) * cut))
            whole = (where / "events.jsonl").read_bytes().count(b"\n")
            known = known[:whole]
        for _ in range(2):
            with opened(where) as log:
                assert len(log) == len(known)
                holds(log, known)
                known.append(add(log))
                holds(log, known)


def _lose(path: Path, marked: bytes, first: float, last: float) -> None:
    """Zeros, or what was there before, instead of a part of what is new."""
    content = bytearray(path.read_bytes())
    start, end = sorted((round(len(content) * first), round(len(content) * last)))
    if path.suffix == ".index":
        start = max(start, len(marked))
    old = marked.ljust(len(content), b"\0")
    content[start:end] = old[start:end]
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "noise", "foreign", "ahead", "folder"])
def test_tables_that_do_not_fit_are_made_anew(small: None, tmp_path: Path, damage: str) -> None:
    where = tmp_path / "log"
    where.mkdir()
    known = fill(where, 50)
    path = where / "events.ids"
    content = path.read_bytes()
    match damage:
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(content[:20])
        case "noise":
            path.write_bytes(os.urandom(len(content)))
        case "foreign":
            (tmp_path / "other").mkdir()
            fill(tmp_path / "other", 50)
            path.write_bytes((tmp_path / "other" / "events.ids").read_bytes())
        case "ahead":  # the log was cut behind our back
            lines = (where / "events.jsonl").read_bytes().splitlines(keepends=True)
            (where / "events.jsonl").write_bytes(b"".join(lines[:30]))
            known = known[:30]
        case "folder":  # nothing can be written there: ids are looked for one by one
            path.unlink()
            path.mkdir()
    for _ in range(2):
        with opened(where) as log:
            holds(log, known)
            known.append(add(log))


def test_a_full_disk_under_the_tables_loses_no_id(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    known = fill(tmp_path, 20)
    with opened(tmp_path) as log:
        monkeypatch.setattr(os, "pwrite", full)
        known += [add(log) for _ in range(20)]
        holds(log, known)
        monkeypatch.setattr(os, "pwrite", pwrite)
        known.append(add(log))
        log.sync()
    with opened(tmp_path) as log:
        holds(log, known)


def test_ids_that_a_client_chose_alike_are_kept_apart(small: None, tmp_path: Path) -> None:
    known = [UUID(int=number) for number in range(300)]
    with opened(tmp_path) as log:
        for id in known:
            add(log, id)
        holds(log, known)
    with opened(tmp_path) as log:
        holds(log, known)


def test_what_was_marked_is_not_put_in_again(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        for _ in range(ids.FIRST + 2 * ids.SYNC_EVERY):
            add(log)
            log.sync()
        assert len(log) - log._ids._synced < ids.SYNC_EVERY


class Reads:
    """What is read from files, counted in bytes and calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = self.calls = 0
        pread = os.pread

        def counted(file: int, size: int, at: int) -> bytes:
            content = pread(file, size, at)
            self.bytes += len(content)
            self.calls += 1
            return content

        monkeypatch.setattr(os, "pread", counted)

    def of(self, look: object) -> tuple[int, int]:
        before = self.bytes, self.calls
        assert callable(look)
        look()
        return self.bytes - before[0], self.calls - before[1]


def test_opening_appending_and_paging_read_no_more_of_a_long_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = []
    reads = Reads(monkeypatch)
    for amount in (2 * ids.FIRST, 80 * ids.FIRST):
        where = tmp_path / str(amount)
        where.mkdir()
        known = fill(where, amount)
        logs: list[EventLog] = []
        opening = reads.of(lambda: logs.append(EventLog(where)))  # noqa: B023
        log = logs[0]
        appending = reads.of(lambda: add(log))  # noqa: B023 # the first one after the opening
        middle = known[amount // 2]
        paging = reads.of(lambda: page(log, Filter(), page_id=middle, limit=100, descending=False))  # noqa: B023
        by_kind = reads.of(
            lambda: page(
                log,  # noqa: B023
                Filter(kind="ConversationStateUpdateEvent", source="environment"),
                page_id=None,
                limit=100,
                descending=True,
            )
        )
        costs.append((opening, appending, paging, by_kind))
        log.close()
    short, long = costs
    for (few, _), (many, calls) in zip(short, long, strict=True):
        assert many <= 1.3 * few + 2048, (short, long)
        assert calls < 30


def test_a_short_log_has_no_tables(tmp_path: Path) -> None:
    fill(tmp_path, ids.FIRST)
    assert not (tmp_path / "events.ids").exists()
    assert (tmp_path / "events.index").stat().st_size == ids.FIRST * RECORD_BYTES
