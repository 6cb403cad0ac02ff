"""The end of an event log that the store holds, while the beginning is in the archive."""

import pytest

from orchestrator.domain.errors import NotFound
from orchestrator.domain.ids import ConversationId, TenantId, new_uuid
from orchestrator.state.base import GAP, HeldEvents, Store, StoredEvent

from .conftest import a_conversation

pytestmark = pytest.mark.anyio
Where = tuple[TenantId, ConversationId]
PAYLOAD = '{"n":"ü"}'
SIZE = len(PAYLOAD.encode())


def events(*sequences: int) -> list[StoredEvent]:
    return [StoredEvent(n, f"id-{n}", PAYLOAD) for n in sequences]


def gap(first: int, last: int) -> StoredEvent:
    return StoredEvent(last, f"{GAP}{first}-{last}", "{}", first=first)


@pytest.fixture
async def where(store: Store) -> Where:
    record = await store.conversations.create(a_conversation())
    return record.tenant, record.id


async def numbers(store: Store, where: Where, after: int = 0) -> list[int]:
    return [event.sequence for event in await store.events.read(*where, after=after, limit=10_000)]


async def test_a_new_log_has_nothing_in_the_archive(store: Store, where: Where) -> None:
    assert await store.events.held(*where) == HeldEvents(0, 0, 0, archived=0)
    await store.events.append(*where, events(1, 2))
    assert await store.events.held(*where) == HeldEvents(2, 2 * SIZE, 2, archived=0)


async def test_only_what_is_archived_is_let_go(store: Store, where: Where) -> None:
    await store.events.append(*where, events(*range(1, 101)))
    await store.events.trim(*where, archived=60, events=10, size=10_000)
    assert await numbers(store, where) == list(range(61, 101)), "more than ten, because they are nowhere else"
    assert await store.events.held(*where) == HeldEvents(40, 40 * SIZE, 100, archived=60)
    await store.events.trim(*where, archived=100, events=10, size=10_000)
    assert await numbers(store, where) == list(range(91, 101))
    await store.events.trim(*where, archived=100, events=10, size=3 * SIZE)
    assert await numbers(store, where) == [98, 99, 100]
    await store.events.trim(*where, archived=100, events=10, size=0)
    assert await numbers(store, where) == [100], "the last one says how the log goes on"
    assert await store.events.append(*where, events(100, 101)) == 101
    assert await store.events.held(*where) == HeldEvents(2, 2 * SIZE, 101, archived=100)


async def test_a_log_of_which_nothing_is_held_goes_on_behind_the_archive(store: Store, where: Where) -> None:
    await store.events.append(*where, events(*range(1, 11)))
    await store.events.trim(*where, archived=9, events=0, size=0)
    assert await numbers(store, where) == [10], "it is nowhere else"
    await store.events.trim(*where, archived=10, events=0, size=0)
    assert await store.events.held(*where) == HeldEvents(0, 0, 10, archived=10)
    assert await store.events.last(*where) is None
    assert await store.events.append(*where, events(10)) == 10, "it is there"
    assert await store.events.append(*where, events(12)) == 10, "it does not join"
    assert await store.events.held(*where) == HeldEvents(0, 0, 10, archived=10)
    assert await store.events.append(*where, events(11, 12)) == 12
    assert await numbers(store, where) == [11, 12]


async def test_what_the_archive_reaches_never_shrinks(store: Store, where: Where) -> None:
    await store.events.append(*where, events(*range(1, 11)))
    await store.events.trim(*where, archived=10, events=5, size=10_000)
    await store.events.trim(*where, archived=4, events=5, size=10_000)
    assert (await store.events.held(*where)).archived == 10
    assert await numbers(store, where) == [6, 7, 8, 9, 10]


async def test_a_log_that_was_lost_goes_on_behind_the_archive(store: Store, where: Where) -> None:
    await store.events.append(*where, events(1, 2, 3))
    await store.events.resume(*where, events(7)[0])
    assert await numbers(store, where) == [7], "what is before it is in the archive, and no hole is held"
    assert await store.events.held(*where) == HeldEvents(1, SIZE, 7, archived=7)
    assert await store.events.append(*where, events(4, 7, 8)) == 8
    await store.events.resume(*where, events(7)[0])
    assert await numbers(store, where) == [7, 8], "a log that is longer is left"


async def test_an_empty_archive_changes_nothing(store: Store, where: Where) -> None:
    await store.events.append(*where, events(1, 2))
    await store.events.resume(*where, None)
    assert await numbers(store, where) == [1, 2]
    assert (await store.events.held(*where)).archived == 0


async def test_the_mark_of_a_gap_stands_for_its_numbers(store: Store, where: Where) -> None:
    await store.events.append(*where, events(1, 2))
    assert await store.events.append(*where, [gap(4, 9)]) == 2, "it does not join"
    assert await store.events.append(*where, [gap(3, 7)]) == 7
    assert await store.events.append(*where, [gap(3, 7), gap(5, 9), *events(4, 8)]) == 8
    found = await store.events.read(*where, after=2, limit=9)
    assert [(one.first, one.sequence, one.is_gap) for one in found] == [(3, 7, True), (8, 8, False)]
    assert await numbers(store, where, after=5) == [7, 8], "from the middle of it, it is seen as well"
    await store.events.resume(*where, gap(9, 20))
    assert (await store.events.last(*where)) == gap(9, 20)


async def test_a_conversation_that_is_gone_has_no_log(store: Store) -> None:
    nowhere = (TenantId(new_uuid()), ConversationId(new_uuid()))
    assert await store.events.held(*nowhere) == HeldEvents(0, 0, 0, archived=None)
    with pytest.raises(NotFound):
        await store.events.trim(*nowhere, archived=1, events=1, size=1)
    with pytest.raises(NotFound):
        await store.events.resume(*nowhere, events(1)[0])
