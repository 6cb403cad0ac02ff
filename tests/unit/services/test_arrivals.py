"""Whoever waits for a conversation is told by whoever has stored it."""

from types import SimpleNamespace

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
        await arrivals.wait(id, 30)
        told.append(name)

    async with anyio.create_task_group() as tasks:
        for id, name in ((ONE, "first"), (ONE, "second"), (OTHER, "third")):
            tasks.start_soon(wait, id, name)
        await anyio.wait_all_tasks_blocked()
        arrivals.tell(SimpleNamespace(id=ONE))  # type: ignore[arg-type] # nothing else of it is looked at
        with anyio.fail_after(30):
            while len(told) < 2:
                await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert sorted(told) == ["first", "second"]
        tasks.cancel_scope.cancel()
    assert not arrivals._waiting


async def test_the_wait_ends_by_itself_and_leaves_nothing() -> None:
    arrivals = Arrivals()
    with anyio.fail_after(30):
        await arrivals.wait(ONE, 0.01)
    assert not arrivals._waiting
    arrivals.tell(SimpleNamespace(id=ONE))  # type: ignore[arg-type] # nobody is there
