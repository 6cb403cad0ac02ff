"""Lists and counts that look at more than they answer: a few of one tenant at once, whatever others do."""

import gc
from collections import Counter
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from orchestrator.domain.conversation import Desired, Kind, Phase
from orchestrator.domain.ids import TenantId
from orchestrator.services.conversation_lists import ConversationLists, Filters
from orchestrator.state.base import Glance, Page

pytestmark = pytest.mark.anyio
BUSY, OTHER = TenantId("busy"), TenantId("other")


class Slow:
    """Lists that answer when they are let, but to the other tenant."""

    def __init__(self) -> None:
        self.let, self.under_way, self.most = anyio.Event(), Counter[str](), Counter[str]()

    async def list(self, tenant: TenantId, **_: object) -> Page[Any]:
        self.under_way[tenant] += 1
        self.most[tenant] = max(self.most[tenant], self.under_way[tenant])
        if tenant == BUSY:
            await self.let.wait()
        self.under_way[tenant] -= 1
        return Page([], None)

    glances = list


class Long:
    """A list of 1,300, in pieces."""

    async def list(self, tenant: TenantId, *, cursor: str | None, limit: int, **_: object) -> Page[Any]:
        reached = int(cursor or 0) + limit
        return Page([], str(reached)) if reached < 1300 else Page([], None)

    async def glances(self, tenant: TenantId, *, cursor: str | None, limit: int, **_: object) -> Page[Any]:
        here = int(cursor or 0)
        found = [Glance(Phase.READY, Desired.RUNNING, None, {})] * min(limit, 1300 - here)
        return Page(found, str(here + limit) if here + limit < 1300 else None)


async def test_who_asks_is_told_how_many_were_looked_at() -> None:
    lists, looked = ConversationLists(cast(Any, Long()), Kind.CONVERSATION), list[int]()
    labelled = Filters(labels={"a": "1"})
    assert await lists.count(BUSY, None, labelled, cursor=None, looked=looked.append) == (0, None)
    assert sum(looked) == 1300
    looked.clear()
    assert (await lists.page(BUSY, None, labelled, cursor=None, limit=10, looked=looked.append)).next_cursor is None
    assert 700 < sum(looked) <= 1300
    looked.clear()
    await lists.page(BUSY, None, Filters(), cursor=None, limit=10, looked=looked.append)
    assert looked == [], "one that looks at what it answers costs one call"


async def test_a_tenant_that_counts_all_the_time_holds_up_itself_and_nobody_else() -> None:
    store = Slow()
    lists = ConversationLists(cast(Any, store), Kind.CONVERSATION)
    labelled = Filters(labels={"a": "1"})

    async def page() -> None:
        await lists.page(BUSY, None, labelled, cursor=None, limit=10)

    async def count() -> None:
        await lists.count(BUSY, None, labelled, cursor=None)

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(page)
            tasks.start_soon(count)
        await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert store.most[BUSY] == 2
        with anyio.fail_after(30):
            assert await lists.count(OTHER, None, labelled, cursor=None) == (0, None)
            assert (await lists.page(OTHER, None, labelled, cursor=None, limit=10)).items == []
        tasks.start_soon(lambda: lists.page(BUSY, None, Filters(), cursor=None, limit=10))
        await anyio.wait_all_tasks_blocked()
        assert store.most[BUSY] == 3, "one that looks at what it answers waits for nobody"
        store.let.set()
    assert store.under_way[BUSY] == 0
    gc.collect()
    assert not lists._walks, "nothing is kept of who is gone"
