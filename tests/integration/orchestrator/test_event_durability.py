"""A pushed batch is acknowledged when it would survive: on the state server's disk, or in the archive."""

from pathlib import Path

import pytest
from support.orchestrators import nestor_at
from support.state_servers import Run, run_server

from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.services.event_archiving import log_of
from orchestrator.state.event_archive.archive import open_event_archive

from .test_event_intake import Told, said, told_of

__all__ = ["run_server"]
pytestmark = pytest.mark.anyio


async def archived(told: Told, data_dir: Path) -> list[str]:
    """What another process finds in the archive."""
    place = await told.nestor.house.store.conversations.route(told.record["runtime"]["id"])
    assert place is not None
    conversation = await told.nestor.house.store.conversations.get(*place)
    assert conversation is not None
    archive = open_event_archive(None, journal=None, default=data_dir / "events")
    found = await archive.read(log_of(conversation), after=0, limit=10_000)
    await archive.close()
    return [event.id for event in found]


async def test_where_the_state_server_cannot_confirm_the_archive_has_it(
    run_server: Run, data_dir: Path, engine: FakeEngine
) -> None:
    server = run_server("--appendonly", "no")
    async with nestor_at(data_dir, engine, redis_url=server.url) as nestor:
        told = await told_of(nestor)
        for _ in range(40):
            told.log.extend(said(2))
            assert (await told.post(told.log[-2:], first=len(told.log) - 1)).status_code == 200
            assert await archived(told, data_dir) == [event["id"] for event in told.log]
        before = await archived(told, data_dir)
        events = data_dir / "events"
        events.rename(data_dir / "away")
        events.write_text("no folder")
        told.log.extend(said(1))
        refused = await told.post(told.log[-1:], first=len(told.log))
        assert refused.status_code == 503
        assert refused.json()["code"] == "event_archive_unavailable"
        events.unlink()
        (data_dir / "away").rename(events)
        assert (await told.post(told.log[-1:], first=len(told.log))).status_code == 200, "nothing was restarted"
        assert await archived(told, data_dir) == [*before, told.log[-1]["id"]]


async def test_one_that_confirms_holds_more_while_the_archive_is_away_and_then_refuses(
    data_dir: Path, engine: FakeEngine
) -> None:
    async with nestor_at(data_dir, engine, events_held=10) as nestor:
        told = await told_of(nestor)
        events = data_dir / "events"
        if events.exists():
            events.rename(data_dir / "away")
        events.write_text("no folder")
        statuses: list[int] = []
        for _ in range(20):
            told.log.extend(said(10))
            statuses.append((await told.post(told.log[-10:], first=len(told.log) - 9)).status_code)
        assert statuses[0] == 200
        assert statuses[-1] == 503
        assert statuses == sorted(statuses)
        kept = await told.outer()
        assert 80 <= len(kept) <= 100
        problems = nestor.house.services.problems()
        assert any("archive of events" in problem for problem in problems), problems
        events.unlink()
        if (data_dir / "away").exists():
            (data_dir / "away").rename(events)
        nestor.house.intake._events._archiving._failed_at = float("-inf")  # five seconds later
        missing = told.log[len(kept) :]
        assert (await told.post(missing, first=len(kept) + 1)).status_code == 200
        page = await nestor.house.services.conversations.events(*await owner(told), after=0, limit=10_000)
        assert [event.id for event in page] == [event["id"] for event in told.log]
        assert not [problem for problem in nestor.house.services.problems() if "archive" in problem]


async def owner(told: Told) -> tuple:
    place = await told.nestor.house.store.conversations.route(told.record["runtime"]["id"])
    assert place is not None
    return place[0], None, place[1]
