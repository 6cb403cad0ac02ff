"""Any saga: every step twice, failure at every step leaves nothing, every undo twice, an undo that fails is stuck."""

from dataclasses import dataclass, field

import anyio
import pytest
from support.records import claimed

from orchestrator.domain.clock import SystemClock
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.services.saga import Progress, Step, StepFailed, run, unwind
from orchestrator.state.base import Lease
from orchestrator.state.memory import MemoryStore

pytestmark = pytest.mark.anyio
NAMES = ("one", "two", "three")


@dataclass
class World:
    """What exists. A step adds its name, its undo takes it away."""

    things: set[str] = field(default_factory=set)
    fail_at: str = ""
    fail_after_work: bool = False
    fail_undo: str = ""

    async def make(self, name: str) -> None:
        if self.fail_at == name and not self.fail_after_work:
            raise RuntimeError(name)
        self.things.add(name)
        if self.fail_at == name:
            raise RuntimeError(name)

    async def take(self, name: str) -> None:
        if self.fail_undo == name:
            raise RuntimeError(name)
        self.things.discard(name)


def steps(twice: bool = False) -> list[Step[World]]:
    def step(name: str) -> Step[World]:
        async def do(world: World) -> None:
            for _ in range(2 if twice else 1):
                await world.make(name)

        async def undo(world: World, _note: str) -> None:
            for _ in range(2 if twice else 1):
                await world.take(name)

        return Step(name, do, undo=undo)

    return [step(name) for name in NAMES]


@pytest.fixture
async def store() -> MemoryStore:
    return MemoryStore(SystemClock())


@pytest.fixture
async def lease(store: MemoryStore) -> Lease:
    return await claimed(store)


async def attempted(store: MemoryStore, lease: Lease) -> list[str]:
    log = await store.saga.attempted(TenantId(lease.tenant), ConversationId(lease.conversation))
    return [name for name, _, _ in log]


@pytest.mark.parametrize("twice", [False, True])
async def test_all_steps_run_and_the_log_is_clear(store: MemoryStore, lease: Lease, twice: bool) -> None:
    world = World()
    await run(steps(twice), world, lease=lease, saga=store.saga, progress=Progress())
    assert world.things == set(NAMES)
    assert await attempted(store, lease) == []


@pytest.mark.parametrize("fail_at", NAMES)
@pytest.mark.parametrize("after_work", [False, True])
@pytest.mark.parametrize("twice", [False, True])
async def test_a_failure_at_any_step_leaves_nothing(
    store: MemoryStore, lease: Lease, fail_at: str, after_work: bool, twice: bool
) -> None:
    world = World(fail_at=fail_at, fail_after_work=after_work)
    with pytest.raises(StepFailed) as failed:
        await run(steps(twice), world, lease=lease, saga=store.saga, progress=Progress())
    assert failed.value.step == fail_at
    assert world.things == set()
    assert await attempted(store, lease) == []


async def test_cancellation_undoes_as_well(store: MemoryStore, lease: Lease) -> None:
    world = World()

    async def hang(_world: World) -> None:
        await anyio.sleep_forever()

    chain = [*steps(), Step("hang", hang)]
    with anyio.move_on_after(0.05):
        await run(chain, world, lease=lease, saga=store.saga, progress=Progress())
    assert world.things == set()


async def test_an_undo_that_fails_is_stuck_and_keeps_no_other_from_running(store: MemoryStore, lease: Lease) -> None:
    world = World(fail_at="three", fail_undo="two")
    with pytest.raises(StepFailed):
        await run(steps(), world, lease=lease, saga=store.saga, progress=Progress())
    assert world.things == {"two"}
    assert await attempted(store, lease) == ["two"]
    world.fail_undo = ""
    assert await unwind(steps(), world, lease=lease, saga=store.saga) is True
    assert world.things == set()
