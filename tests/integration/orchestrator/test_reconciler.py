"""The reconciler removes what nobody owns, seen twice; where all is as it should be it asks for the list alone."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.replica import Ground, Policy, Replica

from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId, new_uuid
from orchestrator.drivers.base import Driver
from orchestrator.drivers.docker_engine import Refused
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.services.shares import Shares

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


async def test_an_engine_that_refuses_to_list_ends_no_reconciler(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a filter before it does, or one of a newer version that takes no calls of this one any more."""
    replica, asked = Replica(Ground(engine, tmp_path)), 0

    async def list_refused(installation: str) -> list[Any]:
        nonlocal asked
        asked += 1
        raise Refused("list containers", 403, "")

    monkeypatch.setattr(replica.house.driver, "list", list_refused)
    monkeypatch.setattr(replica.reconciler, "_period", 0.01)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(replica.reconciler.run)
        with anyio.fail_after(5):
            while asked < 3:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


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


async def test_each_runtime_is_looked_at_by_one_replica_and_by_another_when_that_one_is_gone(
    engine: FakeEngine, tmp_path: Path
) -> None:
    ground, ttl = Ground(engine, tmp_path), 0.5
    first = Replica(ground)
    for _ in range(12):
        conversation = await first.created(new_uuid())
        await first.settle(conversation, lambda stored: stored is not None and stored.phase is Phase.READY)
    names = ["one", "two", "three"]
    shares = [Shares(ground.store.presence, name, ttl=ttl, settles=0) for name in names]
    replicas = [Replica(ground, None, Policy(), share) for share in shares]
    looked: list[str] = []
    read = ground.store.conversations.get

    async def noting(tenant: TenantId, id: ConversationId) -> Conversation | None:
        looked.append(id)
        return await read(tenant, id)

    ground.store.conversations.get = noting  # type: ignore[method-assign]
    all_of_them = sorted(one.spec.labels.conversation for one in engine.runtimes.values())

    async def rounds(*who: Replica) -> list[list[str]]:
        found = []
        for replica in who:
            looked.clear()
            assert await replica.reconciler.tick() == 0
            found.append(sorted(looked))
        return found

    for share in shares:
        await share.renew()
    quiet = await rounds(*replicas)
    assert all(quiet), "each has a share"
    assert sorted(chain(*quiet)) == all_of_them
    with anyio.fail_after(10):  # the third has died: the other two have all of it, as soon as it is forgotten
        while sorted(chain(*(left := await rounds(*replicas[:2])))) != all_of_them:
            await anyio.sleep(0.02)
    assert [set(before) <= set(after) for before, after in zip(quiet, left, strict=False)] == [True, True]
    await shares[0].leave()
    assert await rounds(replicas[1]) == [all_of_them]


async def test_replicas_that_begin_together_remove_each_of_nobodys_runtimes_by_one_call(
    engine: FakeEngine, tmp_path: Path
) -> None:
    """Each looks at everything then; what has an owner is left alone by all of them."""
    ground = Ground(engine, tmp_path)
    names = ("one", "two", "three")
    replicas = [Replica(ground, None, Policy(), Shares(ground.store.presence, name)) for name in names]
    for _ in range(4):
        conversation = await replicas[0].created(new_uuid())
        await replicas[0].settle(conversation, lambda stored: stored is not None and stored.phase is Phase.READY)
    mine = dict(engine.runtimes)
    spec = next(iter(mine.values())).spec
    for number in range(25):
        labels = replace(spec.labels, conversation=ConversationId(new_uuid()), runtime=RuntimeId(new_uuid()))
        await FakeDriver(engine).create(replace(spec, name=f"nestor-of-nobody-{number}-g1", labels=labels), fence=1)
    asked: list[str] = []
    for replica in replicas:
        driver = replica.house.driver
        assert isinstance(driver, FakeDriver)
        noted(driver, asked)
    removed: list[int] = []

    async def round(replica: Replica) -> None:
        removed.append(await replica.reconciler.tick())

    for _ in range(3):
        async with anyio.create_task_group() as tasks:
            for replica in replicas:
                tasks.start_soon(round, replica)
    assert engine.runtimes == mine
    assert (sum(removed), asked.count("destroy")) == (25, 25)


async def test_one_that_has_just_begun_looks_at_everything(engine: FakeEngine, tmp_path: Path) -> None:
    """Its former life may have died a moment ago, and its share with it."""
    ground = Ground(engine, tmp_path)
    await Shares(ground.store.presence, "its former life").renew()
    new = Shares(ground.store.presence, "its new one")
    await new.renew()
    assert all(new.is_mine(f"runtime {number}") for number in range(100))
