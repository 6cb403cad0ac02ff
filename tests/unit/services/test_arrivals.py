"""Whoever waits for a conversation is told by whoever has stored it."""

import anyio
import anyio.lowlevel
import pytest

from orchestrator.domain.ids import ConversationId
from orchestrator.services.arrivals import Arrivals

pytestmark = pytest.mark.anyio
ONE, OTHER = ConversationId("one"), ConversationId("other")


async def test_all_who_wait_for_it_are_told_and_nobody_else() -> None:
    arrivals, told = Arrivals(), []

    async def wait(id: ConversationId, name: str) -> None:
        with arrivals.of(id) as news:
            await news.wait(30)
        told.append(name)

    async with anyio.create_task_group() as tasks:
        for id, name in ((ONE, "first"), (ONE, "second"), (OTHER, "third")):
            tasks.start_soon(wait, id, name)
        await anyio.wait_all_tasks_blocked()
        arrivals.tell(ONE)
        with anyio.fail_after(30):
            while len(told) < 2:
                await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert sorted(told) == ["first", "second"]
        tasks.cancel_scope.cancel()
    assert not arrivals._listening


async def test_the_wait_ends_by_itself_and_leaves_nothing() -> None:
    arrivals = Arrivals()
    with anyio.fail_after(30), arrivals.of(ONE) as news:
        await news.wait(0.01)
    assert not arrivals._listening
    arrivals.tell(ONE)  # nobody is there


async def test_where_something_may_have_been_missed_everybody_looks_again() -> None:
    arrivals = Arrivals()
    with anyio.fail_after(30), arrivals.of(ONE) as one, arrivals.of(OTHER) as other:
        arrivals.tell(None)
        await one.wait(3600)
        await other.wait(3600)


async def test_what_is_told_while_one_looks_ends_the_next_wait_and_only_that() -> None:
    arrivals = Arrivals()
    with arrivals.of(ONE) as news:
        arrivals.tell(ONE)
        with anyio.fail_after(30):
            await news.wait(3600)
        began = anyio.current_time()
        await news.wait(0.05)
        assert anyio.current_time() - began >= 0.05
