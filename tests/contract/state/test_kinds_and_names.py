"""Two kinds of records in one tenant, and names that one of a user's bare runtimes has at a time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from orchestrator.domain.conversation import Conversation, Desired, Kind
from orchestrator.domain.errors import Conflict
from orchestrator.domain.ids import TenantId, UserId, new_uuid
from orchestrator.state.base import EVER, Span, Store

from .conftest import MOMENT, House, a_conversation

pytestmark = pytest.mark.anyio
LONG = 60_000


def a_runtime(tenant: TenantId, name: str = "", user: UserId | None = None) -> Conversation:
    return replace(a_conversation(tenant, user), kind=Kind.RUNTIME, name=name)


async def removed(store: Store, record: Conversation) -> None:
    got = await store.conversations.claim(record.tenant, record.id, "one", lease_ms=LONG)
    assert got is not None
    await store.conversations.remove(got[0])


async def listed(store: Store, tenant: TenantId, kind: Kind | None, user: UserId | None = None) -> set[str]:
    page = await store.conversations.list(tenant, user=user, cursor=None, limit=50, kind=kind)
    return {item.id for item in page.items}


async def test_lists_are_of_one_kind_or_of_all(store: Store) -> None:
    tenant, user = TenantId(new_uuid()), UserId(new_uuid())
    talk = await store.conversations.create(a_conversation(tenant, user))
    box = await store.conversations.create(a_runtime(tenant, "box", user))
    other = await store.conversations.create(a_runtime(tenant))
    assert await listed(store, tenant, Kind.CONVERSATION) == {talk.id}
    assert await listed(store, tenant, Kind.RUNTIME) == {box.id, other.id}
    assert await listed(store, tenant, Kind.RUNTIME, user) == {box.id}
    assert await listed(store, tenant, Kind.CONVERSATION, user) == {talk.id}
    assert await listed(store, tenant, None) == {talk.id, box.id, other.id}
    assert await store.conversations.get(tenant, box.id) == box


async def test_a_list_is_read_between_two_moments_from_either_end_and_by_a_glance(store: Store) -> None:
    tenant, user = TenantId(new_uuid()), UserId(new_uuid())
    at = [MOMENT + timedelta(milliseconds=number, microseconds=number % 3 * 400) for number in range(9)]
    made = [
        replace(a_runtime(tenant) if n % 4 == 3 else a_conversation(tenant, user), created_at=at[n], title=f"t{n}")
        for n in range(9)
    ]
    for one in made:
        await store.conversations.create(one)
    talks = [one for one in made if one.kind is Kind.CONVERSATION]
    for span, among in (
        (EVER, talks),
        (Span(at[3], at[7]), talks[3:6]),
        (Span(at[2] + timedelta(microseconds=1), None), talks[2:]),  # parts of a millisecond are not looked at
        (Span(None, at[2] + timedelta(microseconds=1)), talks[:2]),
        (Span(None, MOMENT), []),
        (Span(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)), talks),
    ):
        for oldest_first in (False, True):
            seen, cursor = [], None
            while True:
                page = await store.conversations.list(
                    tenant,
                    user=None,
                    cursor=cursor,
                    limit=2,
                    kind=Kind.CONVERSATION,
                    span=span,
                    oldest_first=oldest_first,
                )
                seen += page.items
                if (cursor := page.next_cursor) is None:
                    break
            assert seen == (among if oldest_first else among[::-1])
        assert await store.conversations.size(tenant, user=None, kind=Kind.CONVERSATION, span=span) == len(among)
        glances, cursor = [], None
        while True:
            part = await store.conversations.glances(
                tenant, user=user, cursor=cursor, limit=2, kind=Kind.CONVERSATION, span=span
            )
            glances += [glance.title for glance in part.items]
            if (cursor := part.next_cursor) is None:
                break
        assert glances == [one.title for one in among[::-1]]
    assert await store.conversations.size(tenant, user=user, kind=Kind.RUNTIME) == 0
    assert await store.conversations.size(tenant, user=None, kind=Kind.RUNTIME) == 2
    some = await store.conversations.list(
        tenant, user=None, cursor=None, limit=9, kind=Kind.RUNTIME, where=lambda one: one.title == "t7"
    )
    assert some.items == [made[7]]
    stranger = a_conversation()
    await store.conversations.create(stranger)
    assert await store.conversations.many(tenant, [made[2].id, stranger.id, made[3].id]) == [made[2], None, made[3]]


async def test_a_name_is_given_once_for_each_user(house: House) -> None:
    tenant, user = TenantId(new_uuid()), UserId(new_uuid())
    made: list[Conversation] = []

    async def make(store: Store, user: UserId | None) -> None:
        made.append(await store.conversations.create(a_runtime(tenant, "n", user)))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(make, house.store, None)
            tasks.start_soon(make, house.other, None)
    assert len({one.id for one in made}) == 1
    await make(house.store, user)
    assert made[-1].id != made[0].id
    for owner, one in ((None, made[0]), (user, made[-1])):
        found = await house.other.conversations.named(tenant, owner, "n")
        assert found is not None
        assert found.id == one.id
    assert await house.store.conversations.named(TenantId(new_uuid()), None, "n") is None
    await house.store.conversations.create(a_runtime(tenant))
    await house.store.conversations.create(a_runtime(tenant))  # without a name there is nothing to share


async def test_a_deleted_one_gives_its_name_away_and_gets_it_back_only_while_it_is_free(store: Store) -> None:
    tenant = TenantId(new_uuid())
    first = await store.conversations.create(a_runtime(tenant, "n"))
    gone = replace(first, desired=Desired.DELETED)
    assert await store.conversations.request(gone, expected_version=1)
    second = await store.conversations.create(a_runtime(tenant, "n"))
    assert second.id != first.id
    back = replace(first, desired=Desired.STOPPED)
    with pytest.raises(Conflict, match="name n"):
        await store.conversations.request(back, expected_version=2)
    await removed(store, second)
    assert await store.conversations.request(back, expected_version=2)
    found = await store.conversations.named(tenant, None, "n")
    assert found is not None
    assert (found.id, found.desired) == (first.id, Desired.STOPPED)


async def test_a_removed_one_leaves_nothing_behind(house: House) -> None:
    tenant, user = TenantId(new_uuid()), UserId(new_uuid())
    record = await house.store.conversations.create(a_runtime(tenant, "n", user))
    await removed(house.store, record)
    assert await house.store.conversations.named(tenant, user, "n") is None
    assert await listed(house.store, tenant, None) == set()
    if house.raw is not None:
        left = {key.decode() async for key in house.raw.scan_iter(f"t:{{{tenant}}}:*")}
        assert left <= {f"t:{{{tenant}}}:journal"}
