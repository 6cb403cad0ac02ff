"""Why a start failed: each reason by the fault that it stands for, on the conversation, its operation and its past."""

import importlib.metadata
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.orchestrators import nestor_at
from support.replica import Ground, Policy, Replica

from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.domain.errors import DiskFull, DriverUnavailable, StoreUnavailable
from orchestrator.domain.ids import new_uuid
from orchestrator.drivers.errors import ImageUnavailable, StartRefused
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.drivers.values import ExitCause
from orchestrator.state.base import Lease

pytestmark = pytest.mark.anyio
NO_SPACE = "write /x: no space left on device"


@dataclass(frozen=True)
class Case:
    reason: str
    step: str
    retryable: bool
    fault: Callable[[Ground], object]
    policy: Policy = Policy(start_timeout=20)  # noqa: RUF009 - frozen


def lose_the_store(ground: Ground) -> None:
    """Whenever a record is to say that it is ready."""
    save = ground.store.conversations.save

    async def failing(lease: Lease, conversation: Conversation, *, expected_version: int) -> Conversation:
        if conversation.phase is Phase.READY:
            raise StoreUnavailable("the state server did not answer in time")
        return await save(lease, conversation, expected_version=expected_version)

    ground.store.conversations.save = failing  # type: ignore[method-assign]


ENDED = StartRefused("it ended", log_tail=("last words",))
INIT = "/api/init"
OLDER = {"state": "dormant", "nestor": {"version": "0.0.9", "capabilities": ["bind_by_proof_v1", "fence_v1"]}}
CASES = [
    Case("disk_full", "volume", True, lambda g: g.engine.fail("ensure_volume", DiskFull("no space is left"), times=9)),
    Case("disk_full", "converse", True, lambda g: fail(g, "/api/conversations", 500, NO_SPACE)),
    Case("engine_error", "create", True, lambda g: g.engine.fail("create", DriverUnavailable("it is away"), times=9)),
    Case("image_pull", "create", False, lambda g: g.engine.fail("create", ImageUnavailable("it is not there"))),
    Case(
        "image_start",
        "start",
        False,
        lambda g: g.engine.fail("start", StartRefused("it ended", log_tail=("last words",))),
    ),
    Case("version_skew", "init", False, lambda g: g.engine.script.fail("GET", INIT, 200, times=None, body=OLDER)),
    Case("config_rejected", "settings", False, lambda g: fail(g, "/api/settings", 422, "no such model")),
    Case("store_unavailable", "publish", True, lose_the_store),
    Case(
        "deadline", "settings", True, lambda g: g.engine.script.hang("POST", "/api/settings"), Policy(start_timeout=0.5)
    ),
]


def fail(ground: Ground, path: str, status: int, words: str) -> None:
    ground.engine.script.fail("POST", path, status, times=None, body={"detail": words})


def failed(stored: Conversation | None) -> bool:
    return stored is not None and stored.phase is Phase.FAILED


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.reason}-{case.step}")
async def test_each_is_told_with_what_to_do_and_stays_told(engine: FakeEngine, tmp_path: Path, case: Case) -> None:
    ground = Ground(engine, tmp_path)
    replica = Replica(ground, None, case.policy)
    case.fault(ground)
    conversation = await replica.created(new_uuid())
    stored = await replica.settle(conversation, failed)
    assert stored is not None
    why = stored.why
    assert (why.reason, why.retryable) == (case.reason, case.retryable), why
    assert case.step in ("", why.step)
    assert why.message
    assert why.hint
    assert not engine.runtimes, "nothing is left of it"
    assert stored.failures[-1].why == why
    assert stored.operation is not None
    operation = await ground.store.operations.get(stored.tenant, stored.operation)
    assert operation is not None
    assert operation.failure == why
    if "lacks" in why.message:
        assert "(Nestor 0.0.9) lacks configure_in_three_calls_v1, tell_events_v1, which" in why.message
        assert f"(Nestor {importlib.metadata.version('nestor')}) needs" in why.message
        assert "upgrade" in why.hint
    if case.reason == "image_start":
        assert why.log_tail == ("last words",)


async def test_a_ready_one_that_ran_out_of_memory_is_told_as_such(engine: FakeEngine, tmp_path: Path) -> None:
    replica = Replica(Ground(engine, tmp_path))
    conversation = await replica.created(new_uuid())
    await replica.settle(conversation, lambda stored: stored is not None and stored.phase is Phase.READY)
    (runtime,) = engine.runtimes.values()
    engine.crash(runtime.spec.name)
    runtime.cause = ExitCause.OOM
    stored = await replica.settle(conversation, failed)
    assert stored is not None
    why = stored.failures[-1].why
    assert (why.reason, why.retryable, why.hint) == ("oom", True, "give it more memory, then start again")
    assert why.log_tail


@pytest.mark.parametrize("found_by", ["a look", "a resume"])
async def test_one_that_dies_in_a_pause_is_told_as_any_other(engine: FakeEngine, tmp_path: Path, found_by: str) -> None:
    replica = Replica(Ground(engine, tmp_path))
    conversation = await replica.created(new_uuid())
    await replica.settle(conversation, lambda stored: stored is not None and stored.phase is Phase.READY)
    await replica.service.pause(conversation.tenant, None, conversation.id)
    await replica.settle(conversation, lambda stored: stored is not None and stored.phase is Phase.PAUSED)
    (runtime,) = engine.runtimes.values()
    engine.crash(runtime.spec.name)
    runtime.cause = ExitCause.OOM
    if found_by == "a resume":
        await replica.service.resume(conversation.tenant, None, conversation.id)
    stored = await replica.settle(conversation, failed)
    assert stored is not None
    why = stored.failures[-1].why
    assert (why.reason, why.hint) == ("oom", "give it more memory, then start again")
    assert why.log_tail[-1] == "fake runtime: ended with -9"


@pytest.fixture
def full_disk(data_dir: Path) -> Iterator[Path]:
    """Where the process driver keeps runtimes; needs the right to mount."""
    place = data_dir / "runtimes"
    place.mkdir(parents=True, mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=4,mode=0700", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_disk_that_is_really_full_is_told_as_such(data_dir: Path, full_disk: Path) -> None:
    async with nestor_at(data_dir, None, driver="process", zygote="off") as nestor:
        key = await nestor.ready_tenant()
        made = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
        record = await nestor.until(key, made["id"], "failed", seconds=30)
        assert (record["reason"], record["retryable"]) == ("disk_full", True)
        assert "space" in record["hint"]
