"""An engine that hangs: each step ends in time, is told and undone, and what comes late of it is found and removed."""

from pathlib import Path

import anyio
import pytest
from support.replica import Ground, Policy, Replica

from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.domain.ids import new_uuid
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.services import saga

pytestmark = pytest.mark.anyio
LIMIT = "0.1"


@pytest.fixture(autouse=True)
def quick_undos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saga, "UNDO_SECONDS", 0.1)


def replica_with(ground: Ground, step: str, *, start_timeout: float = 30) -> Replica:
    return Replica(ground, None, Policy(step_seconds=f"{step}={LIMIT}", start_timeout=start_timeout))


def at(*phases: Phase) -> object:
    return lambda stored: stored is not None and stored.phase in phases


async def stuck(ground: Ground, conversation: Conversation) -> list[str]:
    log = await ground.store.saga.attempted(conversation.tenant, conversation.id)
    return [step for step, _, message in log if message is not None]


@pytest.mark.parametrize(("step", "verb"), [("volume", "ensure_volume"), ("create", "create"), ("start", "start")])
async def test_a_step_that_hangs_is_told_and_what_comes_late_of_it_is_undone(
    engine: FakeEngine, tmp_path: Path, step: str, verb: str
) -> None:
    ground = Ground(engine, tmp_path)
    replica = replica_with(ground, step, start_timeout=0.5)
    released = engine.hang(verb, times=9)
    conversation = await replica.created(new_uuid())
    with anyio.fail_after(30):  # neither the step nor the whole start waits for the engine
        stored = await replica.settle(conversation, at(Phase.FAILED), rounds=200)  # type: ignore[arg-type]
    assert stored is not None
    first = stored.failures[0].why if stored.failures else stored.why
    assert (first.reason, first.retryable) == ("deadline", True)
    # What may still come is seen, and is why no other try was made.
    (waits,) = {"start": "create"}.get(step, step), *set(await stuck(ground, conversation)) - {step, "create"}
    assert f"{waits} of an earlier try is not undone" in stored.why.message

    released.set()
    await anyio.wait_all_tasks_blocked()
    assert engine.runtimes or engine.volumes  # what the abandoned calls made
    await replica.settle(conversation, at(Phase.FAILED))  # type: ignore[arg-type]
    assert (engine.runtimes, engine.volumes, await stuck(ground, conversation)) == ({}, {}, [])


async def test_a_step_that_hangs_once_is_tried_again_and_there_is_one_runtime(
    engine: FakeEngine, tmp_path: Path
) -> None:
    ground = Ground(engine, tmp_path)
    replica = replica_with(ground, "start")
    released = engine.hang("start")
    conversation = await replica.created(new_uuid())
    await replica.act(conversation)
    stored = await ground.store.conversations.get(conversation.tenant, conversation.id)
    assert stored is not None
    assert stored.phase is Phase.PENDING
    operation = await ground.store.operations.get(conversation.tenant, stored.operation)  # type: ignore[arg-type]
    assert operation is not None
    (told,) = [stage.message for stage in operation.stages if stage.name == "start"]
    assert told == "the runtime did not start: step start did not end within its 0.1 seconds"
    released.set()
    await replica.settle(conversation, at(Phase.READY))  # type: ignore[arg-type]
    (runtime,) = engine.runtimes.values()
    assert runtime.alive
    assert not engine.doubles


async def test_what_another_replica_abandoned_is_an_orphan_and_is_removed(engine: FakeEngine, tmp_path: Path) -> None:
    """The one that hung is gone with its undo: the next one starts another, and the late one is nobody's."""
    ground = Ground(engine, tmp_path)
    hung = replica_with(ground, "create")
    released = engine.hang("create")
    conversation = await hung.created(new_uuid())
    await hung.act(conversation)
    other = Replica(ground)
    await other.settle(conversation, at(Phase.READY))  # type: ignore[arg-type]
    released.set()
    await anyio.wait_all_tasks_blocked()
    assert len(engine.runtimes) == 2
    assert [await other.reconciler.tick() for _ in range(3)] == [0, 1, 0]
    (runtime,) = engine.runtimes.values()
    assert runtime.alive
    assert not engine.doubles


@pytest.mark.parametrize("wish", ["stop", "delete"])
async def test_a_removal_that_hangs_is_stuck_and_seen_until_it_is_done(
    engine: FakeEngine, tmp_path: Path, wish: str
) -> None:
    ground = Ground(engine, tmp_path)
    replica = Replica(ground)
    conversation = await replica.created(new_uuid())
    await replica.settle(conversation, at(Phase.READY))  # type: ignore[arg-type]
    released = engine.hang("destroy")
    await getattr(replica.service, wish)(conversation.tenant, None, conversation.id)
    with anyio.fail_after(30):
        await replica.act(conversation)
    assert await stuck(ground, conversation) == ["create"]
    released.set()
    await replica.settle(conversation, at(Phase.STOPPED, Phase.DELETING))  # type: ignore[arg-type]
    assert (engine.runtimes, await stuck(ground, conversation)) == ({}, [])


async def test_a_pause_that_hangs_is_tried_again_and_a_resume_that_hangs_is_told(
    engine: FakeEngine, tmp_path: Path
) -> None:
    ground = Ground(engine, tmp_path)
    replica = Replica(ground, None, Policy(step_seconds=f"freeze={LIMIT},thaw={LIMIT}"))
    conversation = await replica.created(new_uuid())
    await replica.settle(conversation, at(Phase.READY))  # type: ignore[arg-type]
    released = engine.hang("pause")
    await replica.service.pause(conversation.tenant, None, conversation.id)
    await replica.act(conversation)
    assert await stuck(ground, conversation) == ["freeze"]
    released.set()
    await replica.settle(conversation, at(Phase.PAUSED))  # type: ignore[arg-type]
    assert await stuck(ground, conversation) == []

    released = engine.hang("unpause")
    await replica.service.resume(conversation.tenant, None, conversation.id)
    await replica.act(conversation)
    released.set()
    stored = await replica.settle(conversation, at(Phase.FAILED))  # type: ignore[arg-type]
    assert stored is not None
    assert stored.why.reason == "deadline"
    assert "step thaw did not end within its 0.1 seconds" in stored.why.message
    assert engine.runtimes == {}
