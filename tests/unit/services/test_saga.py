"""Any saga: every step twice, failure at every step leaves nothing, every undo twice, an undo that fails is stuck."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest
from support.records import claimed

from orchestrator.domain.clock import SystemClock
from orchestrator.domain.conversation import Why
from orchestrator.domain.errors import LeaseLost
from orchestrator.domain.ids import ConversationId, OperationId, TenantId, new_uuid
from orchestrator.domain.operation import Operation, OperationState, Stage
from orchestrator.services.progress import OperationProgress
from orchestrator.services.saga import Logged, Progress, Step, StepFailed, run, unwind
from orchestrator.state.base import Lease, SagaLog
from orchestrator.state.memory import MemoryStore

pytestmark = pytest.mark.anyio
NAMES = ("one", "two", "three")
SECONDS = dict.fromkeys((*NAMES, "hang"), 5.0)


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
    await run(steps(twice), world, lease=lease, saga=store.saga, progress=Progress(), seconds=SECONDS)
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
        await run(steps(twice), world, lease=lease, saga=store.saga, progress=Progress(), seconds=SECONDS)
    assert failed.value.step == fail_at
    assert world.things == set()
    assert await attempted(store, lease) == []


async def test_a_step_that_an_earlier_one_made_needless_is_neither_run_nor_undone(
    store: MemoryStore, lease: Lease
) -> None:
    world = World(fail_at="three", fail_undo="two")
    chain = steps()
    chain[1] = replace(chain[1], needless=lambda world: "one" in world.things)
    with pytest.raises(StepFailed) as failed:
        await run(chain, world, lease=lease, saga=store.saga, progress=Progress(), seconds=SECONDS)
    assert (failed.value.step, world.things, await attempted(store, lease)) == ("three", set(), [])


async def test_what_is_told_of_the_steps_is_in_the_operation_before_the_next_one_runs(
    store: MemoryStore, lease: Lease
) -> None:
    conversation = await store.conversations.get(lease.tenant, lease.conversation)
    assert conversation is not None
    now = SystemClock().now()
    id = OperationId(new_uuid())
    stages = tuple(Stage(name) for name in NAMES)
    await store.operations.create(
        Operation(id, lease.tenant, lease.conversation, "start", OperationState.RUNNING, stages, now, now)
    )

    async def states() -> list[str]:
        operation = await store.operations.get(lease.tenant, id)
        assert operation is not None
        return [stage.state for stage in operation.stages]

    async def hide(why: Why) -> Why:
        return why

    async def look(world: World) -> None:
        seen.append(await states())
        if world.fail_at == "look":
            raise RuntimeError("look")

    seen: list[list[str]] = []
    for fail_at, last in (("", ["succeeded"] * 3), ("look", ["succeeded", "succeeded", "failed"])):
        world = World(fail_at=fail_at)
        chain = steps()
        chain[1] = replace(chain[1], needless=lambda world: True)
        chain[2] = replace(chain[2], do=look)
        progress = OperationProgress(store.operations, replace(conversation, operation=id), SystemClock(), hide)
        with suppress(StepFailed):
            await run(chain, world, lease=lease, saga=store.saga, progress=progress, seconds=SECONDS)
        assert seen.pop() == ["succeeded", "succeeded", "running"]
        assert await states() == last


class Slow:
    """A log whose entries take until somebody says so, or are refused."""

    def __init__(self, log: SagaLog, *, refuses: str = "") -> None:
        self._log = log
        self._refuses = refuses
        self.written = anyio.Event()
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def started(self, lease: Lease, step: str, **more: Any) -> None:
        self.asked.append(step)
        if step == self._refuses:
            raise LeaseLost("somebody else has it")
        if step == "two":
            await self.written.wait()
        await self._log.started(lease, step, **more)


async def test_a_step_that_nobody_undoes_runs_while_its_entry_is_written(store: MemoryStore, lease: Lease) -> None:
    world, log = World(), Slow(store.saga)
    chain = steps()

    async def second(world: World) -> None:
        await world.make("two")
        log.written.set()

    async def third(world: World) -> None:
        assert await attempted(store, lease) == ["one", "two", "three"]

    chain[1] = Step("two", second, logged=Logged.BESIDE)
    chain[2] = replace(chain[2], do=third)
    with anyio.fail_after(10):
        await run(chain, world, lease=lease, saga=log, progress=Progress(), seconds=SECONDS)
    assert world.things == {"one", "two"}
    assert await attempted(store, lease) == []


async def test_a_step_beside_which_the_lease_was_lost_is_broken_off_and_undoes_nothing(
    store: MemoryStore, lease: Lease
) -> None:
    world, chain, log = World(), steps(), Slow(store.saga, refuses="two")
    chain[1] = Step("two", lambda _: anyio.sleep_forever(), logged=Logged.BESIDE)
    with anyio.fail_after(10), pytest.raises(LeaseLost):
        await run(chain, world, lease=lease, saga=log, progress=Progress(), seconds=SECONDS)
    assert world.things == {"one"}


async def test_a_step_that_fails_beside_its_entry_is_undone_as_any_other(store: MemoryStore, lease: Lease) -> None:
    world, chain, log = World(fail_at="two"), steps(), Slow(store.saga)
    chain[1] = Step("two", lambda world: world.make("two"), logged=Logged.BESIDE)
    with anyio.fail_after(10), pytest.raises(StepFailed) as failed:
        await run(chain, world, lease=lease, saga=log, progress=Progress(), seconds=SECONDS)
    assert (failed.value.step, world.things, await attempted(store, lease)) == ("two", set(), [])


async def test_cancellation_undoes_as_well(store: MemoryStore, lease: Lease) -> None:
    world = World()

    async def hang(_world: World) -> None:
        await anyio.sleep_forever()

    chain = [*steps(), Step("hang", hang)]
    with anyio.move_on_after(0.05):
        await run(chain, world, lease=lease, saga=store.saga, progress=Progress(), seconds=SECONDS)
    assert world.things == set()


async def test_an_undo_that_fails_is_stuck_and_keeps_no_other_from_running(store: MemoryStore, lease: Lease) -> None:
    world = World(fail_at="three", fail_undo="two")
    with pytest.raises(StepFailed):
        await run(steps(), world, lease=lease, saga=store.saga, progress=Progress(), seconds=SECONDS)
    assert world.things == {"two"}
    assert await attempted(store, lease) == ["two"]
    world.fail_undo = ""
    assert await unwind(steps(), world, lease=lease, saga=store.saga) is True
    assert world.things == set()
