"""The engine's hints: one that cannot be followed costs nobody else's."""

from collections.abc import AsyncIterator

import anyio
import pytest

from orchestrator.domain.clock import SystemClock
from orchestrator.domain.errors import DriverUnavailable
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.values import DriverEvent, Handle
from orchestrator.services.shares import Shares
from orchestrator.services.watching import EngineWatch
from orchestrator.state.memory import MemoryStore

pytestmark = pytest.mark.anyio
FIRST, SECOND = "nestor-first-g1", "nestor-second-g1"


class Hinting(FakeDriver):
    """It tells of two runtimes in one breath, and cannot say what the first one is."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: list[str] = []
        self.streams = 0

    async def events(self) -> AsyncIterator[DriverEvent]:
        self.streams += 1
        for name in (FIRST, SECOND):
            yield DriverEvent(name)
        await anyio.sleep_forever()

    async def find(self, name: str) -> Handle | None:
        self.looked.append(name)
        if name == FIRST:
            raise DriverUnavailable("the engine does not answer")
        return await super().find(name)


async def test_a_hint_that_cannot_be_followed_does_not_lose_the_next_one() -> None:
    driver, store = Hinting(), MemoryStore(SystemClock())
    shares = Shares(None, "a replica")
    watch = EngineWatch("here", driver, store.conversations, store.spares, lambda: None, shares)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.run)
        with anyio.fail_after(5):
            while SECOND not in driver.looked:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert (driver.looked, driver.streams) == ([FIRST, SECOND], 1)
