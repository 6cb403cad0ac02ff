"""Archiving that is broken off at any point: nothing is lost, nothing is told twice, and the next try mends it."""

from pathlib import Path

import pytest
from support.records import a_conversation

from orchestrator.domain.clock import SystemClock
from orchestrator.domain.conversation import Conversation
from orchestrator.services.event_archiving import Bounds, EventArchiving, log_of
from orchestrator.state.base import StoredEvent
from orchestrator.state.event_archive.archive import EventArchive
from orchestrator.state.event_archive.files import FilePlace
from orchestrator.state.memory import MemoryStore

pytestmark = pytest.mark.anyio
BOUNDS = Bounds(10, 1024 * 1024)


class Crash(BaseException):
    """The process ends here."""


class DyingPlace(FilePlace):
    """Dies at the given step; each step is before or behind one change of the disk."""

    def __init__(self, root: Path, dies_at: int) -> None:
        super().__init__(root)
        self.left = dies_at

    def _step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Crash

    async def put(self, name: str, content: bytes) -> None:
        self._step()
        await super().put(name, content)
        self._step()

    async def remove(self, name: str) -> None:
        self._step()
        await super().remove(name)
        self._step()


def events(first: int, last: int) -> list[StoredEvent]:
    return [StoredEvent(n, f"id-{n}", f'{{"n":{n}}}') for n in range(first, last + 1)]


async def grown(archiving: EventArchiving, store: MemoryStore, conversation: Conversation, upto: int) -> None:
    """Append what is missing, a few at a time, archiving all of it each time, and merge."""
    while (last := (await archiving.known(conversation)).last) < upto:
        await store.events.append(conversation.tenant, conversation.id, events(last + 1, min(last + 7, upto)))
        await archiving.archive(conversation)
    await archiving.round(conversation)


@pytest.mark.parametrize("dies_at", range(1, 80))
async def test_each_event_once_whatever_was_broken_off(tmp_path: Path, dies_at: int) -> None:
    store = MemoryStore(SystemClock())
    conversation = await store.conversations.create(a_conversation())
    place = DyingPlace(tmp_path, dies_at)
    dying = EventArchiving(store.events, EventArchive(place), BOUNDS)
    broken_off = False
    try:
        await grown(dying, store, conversation, 130)
    except Crash:
        broken_off = True
    assert broken_off == (place.left <= 0)
    next_life = EventArchiving(store.events, EventArchive(FilePlace(tmp_path)), BOUNDS)
    have = (await next_life.known(conversation)).last
    assert await next_life.read(conversation, after=0, limit=1000) == events(1, have)
    await grown(next_life, store, conversation, 160)
    assert await next_life.read(conversation, after=0, limit=1000) == events(1, 160)
    assert (await store.events.held(conversation.tenant, conversation.id)).events <= BOUNDS.events
    lost = MemoryStore(SystemClock())  # and the state server comes back empty
    await lost.conversations.create(conversation)
    after_loss = EventArchiving(lost.events, EventArchive(FilePlace(tmp_path)), BOUNDS)
    await lost.events.resume(conversation.tenant, conversation.id, await after_loss._archive.last(log_of(conversation)))
    assert await after_loss.read(conversation, after=0, limit=1000) == events(1, 160)
    assert await lost.events.append(conversation.tenant, conversation.id, events(160, 161)) == 161


async def test_the_steps_cover_merging(tmp_path: Path) -> None:
    """Else the test above would miss where segments are removed."""
    store = MemoryStore(SystemClock())
    conversation = await store.conversations.create(a_conversation())
    place = DyingPlace(tmp_path, 10_000)
    await grown(EventArchiving(store.events, EventArchive(place), BOUNDS), store, conversation, 130)
    assert 60 <= 10_000 - place.left <= 80
    assert any(path.name.endswith("m.events") for path in tmp_path.rglob("*.events"))
