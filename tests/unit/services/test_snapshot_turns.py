"""One snapshot of a conversation is taken at a time, for so long at most, and none of one that is deleted meanwhile."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest
from support.records import NOW, a_conversation

from orchestrator.domain.clock import SystemClock
from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import Conflict, LimitReached, NotFound, TransientError
from orchestrator.domain.ids import new_uuid
from orchestrator.domain.snapshots import SnapshotId
from orchestrator.services import snapshots
from orchestrator.services.snapshots import Snapshots
from orchestrator.state.event_archive.archive import Log, open_event_archive

pytestmark = pytest.mark.anyio


class Source:
    """A conversation and its runtime, which gives its copy when it is let."""

    def __init__(self) -> None:
        self.record = replace(a_conversation(), was_ready=True)
        self.gone = False
        self.begun, self.let = anyio.Event(), anyio.Event()

    async def get(self, *_: object) -> Conversation:
        if self.gone:
            raise NotFound("gone")
        return self.record

    async def reached(self, source: Conversation) -> Conversation:
        return source

    async def events(self, *_: object) -> int:
        return 7

    @asynccontextmanager
    async def stream(self, *_: object) -> AsyncIterator[AsyncIterator[bytes]]:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"some "
            self.begun.set()
            await self.let.wait()
            yield b"more"

        yield pieces()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def taking(source: Source, tmp_path: Path) -> AsyncIterator[Snapshots]:
    archive = open_event_archive(None, journal=None, default=tmp_path)
    here = cast(Any, source)
    yield Snapshots(here, here, here, archive.snapshots, SystemClock(), most=1, limit_bytes=1000)
    await archive.close()


def left(source: Source, tmp_path: Path) -> list[Path]:
    home = Log(source.record.tenant, source.record.id, NOW).home
    return [path for path in (tmp_path / home).rglob("*") if path.is_file()]


async def test_as_many_as_are_asked_for_at_once_do_not_pass_the_bound(source: Source, taking: Snapshots) -> None:
    tenant, id = source.record.tenant, source.record.id
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(taking.take, tenant, None, id)
        await source.begun.wait()
        with pytest.raises(Conflict, match="being taken"):
            await taking.take(tenant, None, id)
        source.let.set()
    assert len(await taking.list(tenant, None, id)) == 1
    with pytest.raises(LimitReached):
        await taking.take(tenant, None, id)


async def test_a_runtime_that_does_not_come_to_an_end_holds_no_turn_for_ever(
    source: Source, taking: Snapshots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_LEAST_SECONDS", 0.01)
    with anyio.fail_after(60), pytest.raises(TransientError, match="too long"):
        await taking.take(source.record.tenant, None, source.record.id)
    assert left(source, tmp_path) == []
    monkeypatch.undo()
    source.let.set()
    await taking.take(source.record.tenant, None, source.record.id)


async def test_a_write_that_is_cancelled_ends_before_what_was_written_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, begun, let = open_event_archive(None, journal=None, default=tmp_path), threading.Event(), threading.Event()
    place: Any = archive.snapshots._place
    put = place._put

    def slow(name: str, content: bytes) -> None:
        begun.set()
        let.wait(60)
        put(name, content)

    monkeypatch.setattr(place, "_put", slow)
    ended = anyio.Event()

    async def begin(scope: anyio.CancelScope) -> None:
        with scope:
            await archive.snapshots.begin("home", SnapshotId(new_uuid()), NOW)
        ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(begin, scope := anyio.CancelScope())
        assert await anyio.to_thread.run_sync(begun.wait, 60)
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert not ended.is_set()
        let.set()
    await archive.snapshots.remove_all("home")
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "snapshots" in str(path)] == []
    await archive.close()


async def test_nothing_is_kept_of_a_conversation_that_is_deleted_meanwhile(
    source: Source, taking: Snapshots, tmp_path: Path
) -> None:
    async with anyio.create_task_group() as tasks:

        async def take() -> None:
            with pytest.raises(NotFound):
                await taking.take(source.record.tenant, None, source.record.id)

        tasks.start_soon(take)
        await source.begun.wait()
        source.gone = True
        source.let.set()
    assert left(source, tmp_path) == []
