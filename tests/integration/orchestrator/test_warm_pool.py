"""The warm pool through the API, over the fake driver: hits, misses, falling back, draining, a stop, a loss."""

from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis
from support.orchestrators import Nestor, nestor_at

from orchestrator.domain.errors import DriverUnavailable, StateLost, StoreUnavailable
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.drivers.values import Limits, is_spare
from orchestrator.state.spares import RedisSpares

pytestmark = pytest.mark.anyio
HIT = "hit: a spare of the warm pool"


def over(data_dir: Path, engine: FakeEngine, spares: int = 2, **more: Any) -> AbstractAsyncContextManager[Nestor]:
    return nestor_at(data_dir, engine, warm_pool=spares, lease_seconds=2.0, **more)


def unbound(engine: FakeEngine) -> list[str]:
    return [name for name, one in engine.runtimes.items() if is_spare(one.spec.labels) and not one.serves]


async def filled(nestor: Nestor, spares: int = 2) -> None:
    assert nestor.house.pool is not None
    with anyio.fail_after(30):
        while (await nestor.house.store.spares.counts()).ready < spares:
            await anyio.sleep(0.05)


async def started(nestor: Nestor, key: str, **body: Any) -> dict[str, Any]:
    accepted = await nestor.call("POST", "/api/v2/conversations", key, json=body, status=202)
    record: dict[str, Any] = await nestor.until(key, accepted["id"], "ready", "failed", seconds=40)
    return record


async def told(nestor: Nestor, key: str, record: dict[str, Any]) -> str | None:
    operation = await nestor.ended(key, record["operation"])
    stages = {stage["name"]: stage for stage in operation["stages"]}
    assert all(stage["state"] == "succeeded" for stage in stages.values()), stages
    return str(stages["claim"]["message"])


async def test_a_hit_asks_nothing_of_the_engine_and_is_told(data_dir: Path, engine: FakeEngine) -> None:
    async with over(data_dir, engine) as nestor:
        key = await nestor.ready_tenant()
        await filled(nestor)
        waiting = set(unbound(engine))
        engine.fail("create", DriverUnavailable("no engine call on the warm path"), times=1000)
        engine.fail("start", DriverUnavailable("no engine call on the warm path"), times=1000)
        engine.fail("ensure_volume", DriverUnavailable("no engine call on the warm path"), times=1000)
        record = await started(nestor, key, initial_message="hello")
        assert record["phase"] == "ready", record
        assert await told(nestor, key, record) == HIT
        (name,) = [name for name, one in engine.runtimes.items() if record["id"] in one.serves]
        assert name in waiting
        runtime = engine.runtimes[name]
        assert is_spare(runtime.spec.labels), "a bound spare keeps its labels"
        posts = [path for path, _ in engine.script.posts(name)]
        assert posts == ["/api/init", "/api/settings", "/api/settings/digests", "/api/conversations"]
        asked = [one for one in engine.script.received if one.path == "/api/init"]
        assert {one.method for one in asked} == {"GET", "POST"}
        assert all(one.headers.keys().isdisjoint({"x-session-api-key", "x-init-api-key"}) for one in asked)


async def test_each_size_has_spares_of_its_own_which_are_no_other_s(data_dir: Path, engine: FakeEngine) -> None:
    sizes = {"allowed_sizes": "2,4", "warm_pools": "*2=1:1"}
    async with over(data_dir, engine, spares=1, driver="fake", **sizes) as nestor:
        key = await nestor.ready_tenant()
        await filled(nestor, 2)
        memory = {engine.runtimes[name].spec.limits.memory_bytes: name for name in unbound(engine)}
        one = Limits().memory_bytes
        assert set(memory) == {one, 2 * one}
        for size, outcome in ((2, HIT), (4, "miss: no spare was ready"), (1, HIT)):
            record = await started(nestor, key, size=size)
            assert await told(nestor, key, record) == outcome
            (name,) = [name for name, it in engine.runtimes.items() if record["id"] in it.serves]
            assert (name == memory.get(size * one)) == (outcome == HIT)
            assert engine.runtimes[name].spec.limits == Limits().times(size)
        refused = await nestor.call("POST", "/api/v2/conversations", key, json={"size": 8}, status=422)
        assert "1, 2, 4" in refused["hint"]


async def test_without_a_spare_the_start_is_cold_in_the_same_saga_and_says_so(
    data_dir: Path, engine: FakeEngine
) -> None:
    engine.fail("create", DriverUnavailable("no spares yet"), times=1)
    async with over(data_dir, engine, 1) as nestor:
        key = await nestor.ready_tenant()
        record = await started(nestor, key)
        assert record["phase"] == "ready", record
        assert await told(nestor, key, record) == "miss: no spare was ready"


@pytest.mark.parametrize("fault", ["lose_reply", "die", "fail"])
async def test_a_spare_that_may_have_been_told_is_destroyed_and_the_start_goes_on_cold(
    data_dir: Path, engine: FakeEngine, fault: str
) -> None:
    async with over(data_dir, engine) as nestor:
        key = await nestor.ready_tenant()
        await filled(nestor)
        waiting = set(unbound(engine))
        status = (500,) if fault == "fail" else ()
        getattr(engine.script, fault)("POST", "/api/init", *status, times=1)
        record = await started(nestor, key)
        assert record["phase"] == "ready", record
        assert await told(nestor, key, record) == "miss: the spare did not take its keys"
        (name,) = [name for name, one in engine.runtimes.items() if record["id"] in one.serves]
        assert name not in waiting
        assert len(waiting & set(engine.runtimes)) == 1, "the other one is untouched, this one is gone"
        tried = {one.runtime for one in engine.script.received if (one.method, one.path) == ("POST", "/api/init")}
        gone = tried - {name}
        assert len(gone) == 1
        assert gone.isdisjoint(engine.runtimes)
        assert {id.removeprefix("nestor-spare-") for id in gone}.isdisjoint(engine.volumes)
        assert not engine.doubles


async def test_what_was_begun_warm_is_stopped_and_started_again_on_its_own_workspace(
    data_dir: Path, engine: FakeEngine
) -> None:
    async with over(data_dir, engine) as nestor:
        key = await nestor.ready_tenant()
        await filled(nestor)
        record = await started(nestor, key, initial_message="remember this")
        (name,) = [name for name, one in engine.runtimes.items() if record["id"] in one.serves]
        await nestor.call("POST", f"/api/v2/conversations/{record['id']}/stop", key, status=202)
        await nestor.until(key, record["id"], "stopped")
        assert name not in engine.runtimes
        await nestor.call("POST", f"/api/v2/conversations/{record['id']}/start", key, status=202)
        again = await nestor.until(key, record["id"], "ready", "failed")
        assert await told(nestor, key, again) == "not asked for: there is a workspace already"
        volume = engine.volumes[name.removeprefix("nestor-spare-")]
        assert record["id"] in volume.memory.conversations, "the storage of the spare has become the conversation's"
        assert record["runtime"]["id"] not in engine.volumes, "and it has no other one"
        (later,) = [name for name, one in engine.runtimes.items() if record["id"] in one.serves]
        assert engine.runtimes[later].spec.labels.storage == name.removeprefix("nestor-spare-")

        await nestor.call("DELETE", f"/api/v2/conversations/{record['id']}?purge=true", key)
        with anyio.fail_after(20):
            while name.removeprefix("nestor-spare-") in engine.volumes or later in engine.runtimes:
                await anyio.sleep(0.05)
        assert (await nestor.house.store.spares.counts()).bound == 0


async def test_a_deletion_takes_the_runtime_and_the_storage_of_a_bound_spare(
    data_dir: Path, engine: FakeEngine
) -> None:
    async with over(data_dir, engine) as nestor:
        key = await nestor.ready_tenant()
        await filled(nestor)
        record = await started(nestor, key)
        (name,) = [name for name, one in engine.runtimes.items() if record["id"] in one.serves]
        await nestor.call("POST", f"/api/v2/conversations/{record['id']}/pause", key, status=202)
        await nestor.until(key, record["id"], "paused")
        await nestor.call("POST", f"/api/v2/conversations/{record['id']}/resume", key, status=202)
        await nestor.until(key, record["id"], "ready")
        await nestor.call("DELETE", f"/api/v2/conversations/{record['id']}?purge=true", key)
        with anyio.fail_after(20):
            while name in engine.runtimes or name.removeprefix("nestor-spare-") in engine.volumes:
                await anyio.sleep(0.05)


async def test_another_program_drains_the_pool_and_fills_it_anew_and_zero_drains_it(
    data_dir: Path, engine: FakeEngine
) -> None:
    async with over(data_dir, engine) as nestor:
        await filled(nestor)
        old = set(unbound(engine))
    engine.program = "another image"
    async with over(data_dir, engine) as nestor:
        with anyio.fail_after(30):
            while old & set(engine.runtimes) or len(unbound(engine)) < 2:
                await anyio.sleep(0.05)
    async with over(data_dir, engine, 0) as nestor:
        with anyio.fail_after(30):
            while unbound(engine) or engine.volumes:
                await anyio.sleep(0.05)
        key = await nestor.ready_tenant()
        record = await started(nestor, key)
        stages = (await nestor.ended(key, record["operation"]))["stages"]
        assert "claim" not in [stage["name"] for stage in stages]


async def test_a_spare_that_died_is_found_before_or_at_its_claim(data_dir: Path, engine: FakeEngine) -> None:
    async with over(data_dir, engine, 1) as nestor:
        key = await nestor.ready_tenant()
        await filled(nestor, 1)
        (dead,) = unbound(engine)
        engine.crash(dead)
        record = await started(nestor, key)
        assert record["phase"] == "ready", record
        assert await told(nestor, key, record) == "miss: the spare did not take its keys"
        assert dead not in engine.runtimes


async def test_the_reconciler_knows_a_bound_spare_from_an_orphan(data_dir: Path, engine: FakeEngine) -> None:
    async with over(data_dir, engine, 1) as nestor:
        key = await nestor.ready_tenant()
        await filled(nestor, 1)
        record = await started(nestor, key)
        (name,) = [name for name, one in engine.runtimes.items() if record["id"] in one.serves]
        await filled(nestor, 1)
        (waiting,) = unbound(engine)
        for _ in range(3):
            assert await nestor.house.reconciler.tick() == 0
        await nestor.house.store.spares.forget(waiting)  # as if nobody had ever known of it
        await nestor.house.reconciler.tick()
        assert await nestor.house.reconciler.tick() == 1
        assert waiting not in engine.runtimes
        assert waiting.removeprefix("nestor-spare-") not in engine.volumes
        assert engine.runtimes[name].alive


async def test_after_a_loss_bound_spares_are_adopted_and_the_others_are_nobody_s(
    data_dir: Path, engine: FakeEngine
) -> None:
    async with over(data_dir, engine) as nestor:
        key = await nestor.ready_tenant()
        await filled(nestor)
        record = await started(nestor, key, initial_message="hello")
        assert await told(nestor, key, record) == HIT
        (name,) = [name for name, one in engine.runtimes.items() if record["id"] in one.serves]
        await filled(nestor)
        lost = set(unbound(engine))
        assert nestor.house.state_server is not None
        async with Redis.from_url(nestor.house.state_server.url, protocol=2) as raw:
            await nestor.house.shipper.tick()
            await raw.flushall()
        with anyio.fail_after(30):
            while not lost.isdisjoint(engine.runtimes):
                with suppress(StateLost):
                    await nestor.house.reconciler.tick()
                await anyio.sleep(0.1)
        again = await nestor.until(key, record["id"], "ready", "failed", seconds=30)
        assert again["runtime"]["generation"] == record["runtime"]["generation"]
        assert engine.runtimes[name].alive
        assert await nestor.house.reconciler.tick() == 0
        stored = await nestor.house.store.spares.get(name)
        assert stored is not None
        assert stored.conversation == record["id"]


async def test_nothing_of_one_tenant_is_ever_in_the_runtime_of_the_next(data_dir: Path, engine: FakeEngine) -> None:
    async with over(data_dir, engine, 1) as nestor:
        first, second = await nestor.ready_tenant("first"), await nestor.ready_tenant("second")
        await nestor.call("PUT", "/api/v2/secrets/CANARY", first, json={"value": "canary-of-the-first"}, status=200)
        for _ in range(5):
            await filled(nestor, 1)
            theirs = await started(nestor, first, initial_message="canary-of-the-first")
            await nestor.call("DELETE", f"/api/v2/conversations/{theirs['id']}?purge=true", first)
            await filled(nestor, 1)
            ours = await started(nestor, second, initial_message="hello")
            assert await told(nestor, second, ours) == HIT
            (name,) = [name for name, one in engine.runtimes.items() if ours["id"] in one.serves]
            told_to_it = str([(one.path, one.body) for one in engine.script.received if one.runtime == name])
            assert "canary-of-the-first" not in told_to_it
            memory = engine.volumes[name.removeprefix("nestor-spare-")].memory
            assert "canary-of-the-first" not in str(memory)
            assert list(memory.conversations) == [ours["id"]]
            await nestor.call("DELETE", f"/api/v2/conversations/{ours['id']}?purge=true", second)
        assert not engine.doubles


async def test_a_state_server_in_trouble_while_spares_are_made_does_not_end_the_pool(
    data_dir: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    troubles = [StateLost("the state server has lost what it kept"), StoreUnavailable("the state server is away")]
    reserve = RedisSpares.reserve

    async def troubled(self: RedisSpares, *arguments: Any, **more: Any) -> bool:
        if troubles:
            raise troubles.pop()
        return await reserve(self, *arguments, **more)

    monkeypatch.setattr(RedisSpares, "reserve", troubled)
    async with over(data_dir, engine) as nestor:
        await filled(nestor)
        assert not troubles
