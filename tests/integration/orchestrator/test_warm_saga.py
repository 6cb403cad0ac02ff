"""The generic tests of a saga, over the real steps with a spare: every step twice, a failure at every step, every undo
twice; and a replica that dies at each of its calls, before it and behind it, after which another one goes on."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest
from support.mortal import Killed, Mortal
from support.records import a_conversation

from orchestrator.domain.clock import SystemClock
from orchestrator.domain.conversation import REQUESTED, Conversation, Phase, advance
from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.ids import TenantId
from orchestrator.domain.spares import Stock
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.nested.binding import OneConnection
from orchestrator.nested.client import RuntimeClient, RuntimeClients
from orchestrator.security.envelope import Envelope, MasterKeys
from orchestrator.services import saga
from orchestrator.services.effective import Effective
from orchestrator.services.keys import KeyRing
from orchestrator.services.layers import Layers
from orchestrator.services.making import destroy_runtime
from orchestrator.services.overrides import OverrideSeal
from orchestrator.services.pool import WarmPool
from orchestrator.services.reconciler import Reconciler
from orchestrator.services.saga import Progress, Step, StepFailed
from orchestrator.services.shares import Shares
from orchestrator.services.start import Provisioning, Surroundings, made, runtime_name
from orchestrator.services.warm_start import ALL_STEPS
from orchestrator.state.memory import MemoryStore

pytestmark = pytest.mark.anyio
#: after a hit they have nothing to do: the claim did it, and undoes it
PASSED_OVER = ("volume", "create", "start", "alive", "init")
NAMES = [step.name for step in ALL_STEPS if step.name not in PASSED_OVER]
MASTER = MasterKeys([bytes(range(32))])
STOCKS = (Stock(None, 1, 1, 4),)


IMMORTAL = Mortal()


@dataclass
class World:
    """One store and one engine, on which replicas come and go."""

    store: MemoryStore
    engine: FakeEngine

    def house(self, mortal: Mortal = IMMORTAL) -> Surroundings:
        driver, clients = mortal.driver(self.engine), mortal.clients()
        envelope = Envelope(MASTER, self.store.configuration)
        spares = mortal.over(self.store.spares)
        return Surroundings(
            installation="here",
            driver=driver,
            conversations=mortal.over(self.store.conversations),
            effective=Effective(Layers(self.store.configuration, envelope), OverrideSeal(envelope)),
            keys=KeyRing(envelope),
            clients=clients,
            clock=SystemClock(),
            public_urls=lambda conversation: [],
            allow_http_hosts=(),
            expose=lambda conversation: 0,
            published=lambda conversation: None,
            withdraw=lambda conversation: None,
            pool=WarmPool("here", driver, spares, clients, MASTER, STOCKS),
        )

    async def filled(self) -> str:
        """The name of the one spare, which is ready."""
        engine_driver = FakeDriver(self.engine)
        pool = WarmPool("here", engine_driver, self.store.spares, RuntimeClients(), MASTER, STOCKS)
        while not (waiting := await self.waiting()):
            await pool.tick()
        (name,) = waiting
        return name

    async def waiting(self) -> set[str]:
        spares = self.store.spares
        return {name for kind in await spares.kinds() for name in await spares.waiting(kind)}

    async def begun(self, house: Surroundings, conversation: Conversation, *, lease_ms: int = 60_000) -> Provisioning:
        """A start under a new lease, as `Lifecycle` begins one: what is left of an earlier one is undone first."""
        taken = None
        while taken is None:
            taken = await self.store.conversations.claim(
                conversation.tenant, conversation.id, "a test", lease_ms=lease_ms
            )
        lease, stored = taken
        start = Provisioning(house, lease, stored, generation=lease.fence)
        if house.pool is not None:
            await house.pool._look()
        assert await saga.unwind(ALL_STEPS, start, lease=lease, saga=self.store.saga)
        if earlier := made(start.conversation.runtime).generation:
            await destroy_runtime(start, runtime_name(start.conversation, earlier))
        now = SystemClock().now()
        if start.conversation.phase is not Phase.PENDING:
            await start.store(advance(start.conversation, Phase.PENDING, why=REQUESTED, now=now))
        await start.store(advance(start.conversation, Phase.PROVISIONING, why=REQUESTED, now=now))
        return start

    async def run(self, start: Provisioning, steps: Any = ALL_STEPS, mortal: Mortal = IMMORTAL) -> None:
        log = mortal.over(self.store.saga)
        await saga.run(steps, start, lease=start.lease, saga=log, progress=Progress())

    def serving(self, conversation: Conversation) -> list[str]:
        return [name for name, one in self.engine.runtimes.items() if one.alive and conversation.id in one.serves]

    async def nothing_else(self, *, but: set[str]) -> None:
        """Two rounds of the reconciler later: these runtimes, their storages, and nothing more."""
        reconciler = Reconciler(
            "here",
            FakeDriver(self.engine),
            self.store.conversations,
            self.store.spares,
            lambda conversation: 0,
            Shares(None, "a replica"),
        )
        for _ in range(2):
            await reconciler.tick()
        assert set(self.engine.runtimes) == but
        assert set(self.engine.volumes) == {self.engine.runtimes[name].spec.labels.storage for name in but}
        assert not self.engine.doubles


@pytest.fixture
async def world(engine: FakeEngine) -> World:
    return World(MemoryStore(SystemClock()), engine)


async def test_every_step_twice_is_as_once(world: World) -> None:
    """`claim` is the one that is not: its second time finds that there is a spare, and takes no other."""

    def twice(step: Step[Provisioning]) -> Step[Provisioning]:
        async def do(start: Provisioning) -> None:
            await step.do(start)
            if step.name not in ("init", "publish"):  # those two move the phase on, by compare-and-set
                await step.do(start)

        return replace(step, do=do)

    spare = await world.filled()
    conversation = await world.store.conversations.create(a_conversation())
    start = await world.begun(world.house(), conversation)
    await world.run(start, [twice(step) for step in ALL_STEPS])
    assert world.serving(conversation) == [spare]
    await world.nothing_else(but={spare})


class Counted(RuntimeClients):
    """How many of its clients are open, and how many were made."""

    made = 0
    open_now = 0

    @asynccontextmanager
    async def open(self, *where: Any, **more: Any) -> AsyncIterator[RuntimeClient]:
        self.made, self.open_now = self.made + 1, self.open_now + 1
        async with super().open(*where, **more) as client:
            yield client
        self.open_now -= 1


@pytest.mark.parametrize("warm", [False, True])
async def test_all_calls_of_a_start_go_through_one_client(world: World, warm: bool) -> None:
    if warm:
        await world.filled()
    clients = Counted()
    conversation = await world.store.conversations.create(a_conversation())
    start = await world.begun(replace(world.house(), clients=clients), conversation)
    async with AsyncExitStack() as start.connections:
        await world.run(start)
        assert (clients.made, clients.open_now, start.warm) == (1, 1, warm)
    assert clients.open_now == 0


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_spare_is_told_nothing_before_the_journal_knows_whose_it_is(world: World, is_lost: bool) -> None:
    """Its proof is asked for meanwhile."""
    happened: list[str] = []
    proven = anyio.Event()

    class Noted(OneConnection):
        async def ask(self, method: str, headers: Mapping[str, str], content: bytes = b"") -> tuple[int, bytes]:
            happened.append(method)
            answer = await super().ask(method, headers, content)
            proven.set()
            return answer

    async def archived(_tenant: TenantId) -> None:
        with anyio.fail_after(30):
            await proven.wait()
        happened.append("archived")
        if is_lost:
            raise StoreUnavailable("the journal is full")

    await world.filled()
    conversation = await world.store.conversations.create(a_conversation())
    house = replace(world.house(), archived=archived, clients=RuntimeClients(connect=Noted))
    start = await world.begun(house, conversation)
    if not is_lost:
        await world.run(start)
        assert (happened, start.warm) == (["GET", "archived", "POST"], True)
        return
    with pytest.raises(StepFailed) as failed:
        await world.run(start)
    assert isinstance(failed.value.cause, StoreUnavailable)
    assert happened == ["GET", "archived"]
    await world.nothing_else(but=set())


@pytest.mark.parametrize("fail_at", NAMES)
@pytest.mark.parametrize("twice", [False, True])
async def test_a_failure_at_every_step_leaves_nothing_of_it(world: World, fail_at: str, twice: bool) -> None:
    """Before its work, so that the saga unwinds what there is so far; with `twice`, every undo runs twice."""

    def failing(step: Step[Provisioning]) -> Step[Provisioning]:
        async def do(start: Provisioning) -> None:
            await step.do(start) if step.name == "claim" else None
            if step.name == fail_at:
                raise RuntimeError(fail_at)
            await step.do(start) if step.name != "claim" else None

        async def undo(start: Provisioning, note: str) -> None:
            for _ in range(2 if twice else 1):
                if step.undo is not None:
                    await step.undo(start, note)

        return replace(step, do=do, undo=undo, needless=step.needless if step.name in PASSED_OVER else lambda _: False)

    await world.filled()
    conversation = await world.store.conversations.create(a_conversation())
    start = await world.begun(world.house(), conversation)
    with pytest.raises(StepFailed):
        await world.run(start, [failing(step) for step in ALL_STEPS])
    assert await world.store.saga.attempted(conversation.tenant, conversation.id) == []
    assert (await world.store.spares.counts()).bound == 0
    record = made(await world.store.conversations.get(conversation.tenant, conversation.id))
    assert (made(record.runtime).spare, made(record.runtime).volume) == ("", None)
    await world.nothing_else(but=set())


async def test_a_refill_waits_for_the_starts_under_way_but_not_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = WarmPool("here", FakeDriver(world.engine), world.store.spares, RuntimeClients(), MASTER, STOCKS)
    with pool.start_under_way(), pool.start_under_way():
        with anyio.move_on_after(0.05) as waited:
            await pool._calm_down()
        assert waited.cancelled_caught
    with anyio.fail_after(1):
        await pool._calm_down()
    monkeypatch.setattr("orchestrator.services.pool._PATIENCE_SECONDS", 0.05)
    conversation = await world.store.conversations.create(a_conversation())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.run)
        with anyio.fail_after(10), pool.start_under_way():
            while not (first := await world.waiting()):
                await anyio.sleep(0.01)
            start = await world.begun(world.house(), conversation)
            assert made(await pool.claim(start.lease, None)).name in first
            while not (second := await world.waiting()):
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert not first & second


async def test_a_replica_killed_at_each_of_its_calls_leaves_no_orphan_and_no_double(world: World) -> None:
    """Behind the call, which is before the next one."""
    kills = 0
    for at in range(1, 200):
        await world.filled()
        conversation = await world.store.conversations.create(a_conversation())
        start = await world.begun(world.house(), conversation, lease_ms=1)
        mortal = Mortal(at)
        start.house = world.house(mortal)
        made(start.house.pool)._kinds = dict.fromkeys(await world.store.spares.kinds(), STOCKS[0])
        try:
            await world.run(start, mortal=mortal)
        except Killed:
            kills += 1
        stored = made(await world.store.conversations.get(conversation.tenant, conversation.id))
        if stored.phase is not Phase.READY:
            await world.filled()
            again = await world.begun(world.house(), conversation)
            await world.run(again)
        stored = made(await world.store.conversations.get(conversation.tenant, conversation.id))
        assert stored.phase is Phase.READY
        (name,) = world.serving(conversation)
        runtime = world.engine.runtimes[name]
        assert runtime.server is not None
        assert runtime.server.configured[:2] == ["/api/init", "/api/settings"]
        assert name == runtime_name(stored, made(stored.runtime).generation)
        await world.nothing_else(but={name} | await world.waiting())
        await world.engine.shut_down()
        world.store.__init__(SystemClock())  # type: ignore[misc]  # a new world for the next one
        if not mortal.dead:
            break
    assert kills > 10
    assert not mortal.dead, "every call had its turn"
