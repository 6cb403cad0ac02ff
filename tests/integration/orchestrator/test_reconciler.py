"""The reconciler removes what nobody owns, seen twice; where all is as it should be it asks for the list alone."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.replica import Ground, Replica

from orchestrator.domain.conversation import Phase
from orchestrator.domain.ids import ConversationId, RuntimeId, new_uuid
from orchestrator.drivers.base import Driver
from orchestrator.drivers.fake import FakeDriver, FakeEngine

pytestmark = pytest.mark.anyio
_VERBS = [name for name, verb in vars(Driver).items() if not name.startswith("_") and callable(verb)]


def noted(driver: FakeDriver, asked: list[str]) -> None:
    """From now on the name of each verb that is asked of `driver` is put down."""

    def noting(name: str, verb: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def ask(*given: Any, **named: Any) -> Any:
            asked.append(name)
            return await verb(*given, **named)

        return ask

    for name in _VERBS:
        setattr(driver, name, noting(name, getattr(driver, name)))


async def test_a_second_round_asks_the_engine_for_its_list_and_nothing_else(engine: FakeEngine, tmp_path: Path) -> None:
    replica, tenant = Replica(Ground(engine, tmp_path)), new_uuid()
    for _ in range(3):
        conversation = await replica.created(tenant)
        await replica.settle(conversation, lambda stored: stored is not None and stored.phase is Phase.READY)
    mine = set(engine.runtimes)
    spec = engine.runtimes[next(iter(mine))].spec
    labels = replace(spec.labels, conversation=ConversationId(new_uuid()), runtime=RuntimeId(new_uuid()))
    await FakeDriver(engine).create(replace(spec, name="nestor-of-nobody-g1", labels=labels), fence=1)
    asked: list[str] = []
    driver = replica.house.driver
    assert isinstance(driver, FakeDriver)
    noted(driver, asked)

    assert [await replica.reconciler.tick() for _ in range(2)] == [0, 1]
    assert set(engine.runtimes) == mine
    assert asked == ["list", "list", "destroy"]
    asked.clear()
    assert [await replica.reconciler.tick() for _ in range(2)] == [0, 0]
    assert asked == ["list", "list"]
    assert set(engine.runtimes) == mine
