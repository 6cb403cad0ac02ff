"""What every driver promises (`drivers/base.py`), asked of each one that ships."""

import uuid
from dataclasses import replace

import anyio
import pytest

from orchestrator.domain.errors import RuntimeNotFound
from orchestrator.domain.ids import RuntimeId, TenantId
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.base import Driver, Pausable, Spareable
from orchestrator.drivers.errors import ClaimTaken, StaleFence, StartRefused
from orchestrator.drivers.values import Condition, ExitCause, Handle, RuntimeSpec, spare_labels

pytestmark = pytest.mark.anyio

KEY = SecretText("init-key")


async def test_it_is_a_driver_that_says_what_holds(house):
    driver: Driver = house.driver
    assert isinstance(driver, Pausable) == driver.capabilities.pause
    found = await driver.fingerprint()
    assert found.usable, found.message
    assert driver.capabilities.isolation.endswith(".")


async def test_creating_the_same_runtime_again_gives_the_same_handle(house):
    spec = house.new_spec()
    first = await house.driver.create(spec, fence=1)
    assert await house.driver.create(spec, fence=2) == first
    assert await house.driver.find(spec.name) == first
    assert first.labels == spec.labels


async def test_a_name_with_another_spec_is_taken(house):
    spec = house.new_spec()
    await house.driver.create(spec, fence=1)
    with pytest.raises(ClaimTaken):
        await house.driver.create(replace(spec, environment={"A": "b"}), fence=2)


async def test_a_create_whose_caller_has_left_is_found_by_whoever_comes_next(house):
    """However late it comes: an undo that looked too early would leave it behind."""
    spec = house.new_spec()
    async with anyio.create_task_group() as left:
        left.start_soon(lambda: house.driver.create(spec, fence=1))
        await anyio.wait_all_tasks_blocked()
        left.cancel_scope.cancel()
    handle = await house.driver.find(spec.name)
    assert handle is not None
    await house.driver.destroy(handle, fence=1)
    assert await house.driver.list("here") == []


async def test_of_twenty_who_claim_one_name_at_once_exactly_one_wins(house):
    spec = house.new_spec()
    drivers = [house.second() for _ in range(4)]
    won: list[Handle] = []
    lost: list[int] = []

    async def claim(number: int) -> None:
        try:
            mine = replace(spec, environment={"CREATOR": str(number)})
            won.append(await drivers[number % 4].create(mine, fence=1))
        except ClaimTaken:
            lost.append(number)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(claim, number)
    assert (len(won), len(lost)) == (1, 19)
    for driver in drivers:
        await driver.close()


async def test_a_started_runtime_answers_where_the_endpoint_says(house):
    handle, endpoint = await house.started()
    assert await house.alive(endpoint)
    assert (await house.driver.inspect(handle)).endpoint == endpoint


async def test_starting_a_running_one_changes_nothing(house):
    handle, endpoint = await house.started()
    assert await house.driver.start(handle, fence=2, init_key=SecretText("another")) == endpoint


async def test_many_starts_at_once_make_one_runtime(house):
    spec = house.new_spec()
    await house.driver.ensure_volume(spec.labels, fence=1)
    handle = await house.driver.create(spec, fence=1)
    endpoints = []

    async def start() -> None:
        endpoints.append(await house.driver.start(handle, fence=1, init_key=KEY))

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(start)
    assert len(set(endpoints)) == 1


async def test_a_start_without_a_volume_is_refused_and_can_be_repeated(house):
    spec = house.new_spec()
    handle = await house.driver.create(spec, fence=1)
    with pytest.raises(StartRefused, match="volume"):
        await house.driver.start(handle, fence=1, init_key=KEY)
    await house.driver.ensure_volume(spec.labels, fence=1)
    await house.driver.start(handle, fence=1, init_key=KEY)


async def test_what_is_seen_follows_what_is_done(house):
    spec = house.new_spec()
    await house.driver.ensure_volume(spec.labels, fence=1)
    handle = await house.driver.create(spec, fence=1)
    assert (await house.driver.inspect(handle)).condition is Condition.CREATED
    await house.driver.start(handle, fence=1, init_key=KEY)
    assert (await house.driver.inspect(handle)).condition is Condition.RUNNING
    await house.driver.stop(handle, fence=1, grace=5)
    ended = await house.driver.inspect(handle)
    assert (ended.condition, ended.cause, ended.endpoint) == (Condition.EXITED, ExitCause.CLEAN, None)
    await house.driver.destroy(handle, fence=1)
    with pytest.raises(RuntimeNotFound):
        await house.driver.inspect(handle)
    assert await house.driver.find(spec.name) is None


async def test_a_stopped_runtime_starts_again(house):
    handle, _ = await house.started()
    await house.driver.stop(handle, fence=1, grace=5)
    await house.driver.stop(handle, fence=1, grace=5)  # ended already: fine
    endpoint = await house.driver.start(handle, fence=1, init_key=KEY)
    await house.until(lambda: house.alive(endpoint))
    assert (await house.driver.inspect(handle)).condition is Condition.RUNNING


async def test_destroying_ends_it_and_may_be_repeated(house):
    handle, endpoint = await house.started()
    await house.driver.destroy(handle, fence=1)
    await house.driver.destroy(handle, fence=1)
    assert not await house.alive(endpoint)


async def test_every_verb_refuses_a_fence_that_is_lower_than_one_it_saw(house):
    handle, _ = await house.started()
    driver = house.driver
    await driver.start(handle, fence=7, init_key=KEY)
    for act in (
        lambda: driver.start(handle, fence=6, init_key=KEY),
        lambda: driver.pause(handle, fence=6),
        lambda: driver.unpause(handle, fence=6),
        lambda: driver.stop(handle, fence=6, grace=0),
        lambda: driver.destroy(handle, fence=6),
    ):
        with pytest.raises(StaleFence):
            await act()
    assert (await driver.inspect(handle)).condition is Condition.RUNNING


async def test_creating_again_under_a_lower_fence_is_refused(house):
    spec = house.new_spec()
    await house.driver.create(spec, fence=5)
    with pytest.raises(StaleFence):
        await house.driver.create(spec, fence=4)


async def test_a_list_holds_its_own_installation_only(house):
    ours = [await house.driver.create(house.new_spec(), fence=1) for _ in range(3)]
    await house.driver.create(house.new_spec(installation="elsewhere"), fence=1)
    listed = await house.driver.list("here")
    assert {handle.name for handle in listed} == {handle.name for handle in ours}


async def test_a_restarted_orchestrator_finds_and_ends_what_runs(house):
    handle, endpoint = await house.started()
    await house.driver.close()
    after = house.second()
    assert await after.list("here") == [handle]
    assert await after.find(handle.name) == handle
    assert (await after.inspect(handle)).endpoint == endpoint
    assert await after.start(handle, fence=2, init_key=KEY) == endpoint
    with pytest.raises(StaleFence):
        await after.stop(handle, fence=1, grace=0)
    await after.destroy(handle, fence=2)
    assert not await house.alive(endpoint)
    await after.close()


async def test_a_killed_runtime_is_seen_as_crashed(house):
    handle, _ = await house.started()
    house.kill(handle)

    async def exited() -> bool:
        return (await house.driver.inspect(handle)).condition is Condition.EXITED

    await house.until(exited)
    seen = await house.driver.inspect(handle)
    assert seen.cause is ExitCause.CRASHED
    assert seen.exit_code not in (0, None)
    again = house.second()
    assert await again.inspect(handle) == seen
    await again.close()


async def test_the_end_of_a_runtime_is_hinted(house):
    handle, _ = await house.started()
    hints = house.driver.events()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:

            async def kill_when_listened() -> None:
                await anyio.wait_all_tasks_blocked()
                house.kill(handle)

            group.start_soon(kill_when_listened)
            assert (await anext(hints)).name == handle.name
    await hints.aclose()


async def test_the_last_lines_of_its_output_can_be_read(house):
    handle, endpoint = await house.started()

    async def printed() -> bool:
        return any(str(endpoint.port) in line for line in await house.driver.logs(handle))

    await house.until(printed)
    assert len(await house.driver.logs(handle, lines=1)) == 1
    assert list(await house.driver.logs(handle, lines=0)) == []
    await house.driver.destroy(handle, fence=1)
    assert list(await house.driver.logs(handle)) == []


async def test_a_paused_runtime_is_silent_until_it_goes_on(house):
    handle, endpoint = await house.started()
    await house.driver.pause(handle, fence=1)
    await house.driver.pause(handle, fence=1)
    assert (await house.driver.inspect(handle)).condition is Condition.PAUSED
    assert not await house.alive(endpoint, timeout=0.3)
    assert await house.driver.unpause(handle, fence=1) == endpoint
    assert await house.driver.unpause(handle, fence=1) == endpoint
    await house.until(lambda: house.alive(endpoint))
    assert (await house.driver.inspect(handle)).condition is Condition.RUNNING


async def test_a_paused_runtime_can_be_stopped(house):
    handle, endpoint = await house.started()
    await house.driver.pause(handle, fence=1)
    await house.driver.stop(handle, fence=1, grace=5)
    assert (await house.driver.inspect(handle)).cause is ExitCause.CLEAN
    assert not await house.alive(endpoint)


async def test_a_paused_runtime_can_be_destroyed(house):
    handle, endpoint = await house.started()
    await house.driver.pause(handle, fence=1)
    await house.driver.destroy(handle, fence=1)
    assert not await house.alive(endpoint)


async def test_what_does_not_run_can_neither_be_paused_nor_found(house):
    handle = await house.driver.create(house.new_spec(), fence=1)
    with pytest.raises(RuntimeNotFound):
        await house.driver.pause(handle, fence=1)
    await house.driver.destroy(handle, fence=1)
    for act in (
        lambda: house.driver.start(handle, fence=1, init_key=KEY),
        lambda: house.driver.stop(handle, fence=1, grace=0),
        lambda: house.driver.pause(handle, fence=1),
    ):
        with pytest.raises(RuntimeNotFound):
            await act()


async def test_a_volume_is_made_once_and_removed_once(house):
    labels = house.new_spec().labels
    assert await house.driver.ensure_volume(labels, fence=1) is True
    assert await house.driver.ensure_volume(labels, fence=2) is False
    with pytest.raises(StaleFence):
        await house.driver.remove_volume(labels, fence=1)
    await house.driver.remove_volume(labels, fence=2)
    await house.driver.remove_volume(labels, fence=1)  # gone already: fine
    assert await house.driver.ensure_volume(labels, fence=1) is True
    await house.driver.remove_volume(labels, fence=1)


async def test_a_volume_belongs_to_one_tenant(house):
    labels = house.new_spec().labels
    await house.driver.ensure_volume(labels, fence=1)
    stranger = replace(labels, tenant=TenantId("somebody-else"))
    with pytest.raises(ClaimTaken):
        await house.driver.ensure_volume(stranger, fence=2)
    with pytest.raises(ClaimTaken):
        await house.driver.remove_volume(stranger, fence=2)


async def test_a_volume_outlives_its_runtime(house):
    handle, _ = await house.started()
    await house.driver.destroy(handle, fence=1)
    assert await house.driver.ensure_volume(handle.labels, fence=1) is False


def spares_of(house) -> Spareable | None:
    """The driver, if it has spares. Those that do not say so by their capabilities, and are asked for none."""
    driver = house.driver
    assert isinstance(driver, Spareable) or not driver.capabilities.spares
    return driver if driver.capabilities.spares and isinstance(driver, Spareable) else None


def a_spare() -> RuntimeSpec:
    id = RuntimeId(str(uuid.uuid4()))
    return RuntimeSpec(f"nestor-spare-{id}", spare_labels("here", id))


async def test_what_a_spare_would_be_is_told_in_the_same_words_again(house):
    driver = spares_of(house)
    if driver is not None:
        kind = await driver.spare_kind(None)
        assert kind
        assert kind == await driver.spare_kind(None)
        assert kind == await house.second().spare_kind(None)


async def test_a_spare_is_started_for_nobody_and_its_storage_becomes_that_of_the_first_who_names_it(house):
    if spares_of(house) is None:
        return
    driver, spec = house.driver, a_spare()
    assert await driver.ensure_volume(spec.labels, fence=0)
    handle = await driver.create(spec, fence=0)
    endpoint = await driver.start(handle, fence=0, init_key=KEY)
    await house.until(lambda: house.alive(endpoint))
    assert (await driver.find(spec.name)).labels == spec.labels
    assert handle in await driver.list("here")
    await driver.destroy(handle, fence=5)

    owner = replace(house.new_spec().labels, volume=spec.labels.runtime)
    assert not await driver.ensure_volume(owner, fence=6), "it is there already"
    with pytest.raises(ClaimTaken):
        await driver.ensure_volume(replace(owner, tenant=TenantId(str(uuid.uuid4()))), fence=7)
    with pytest.raises(ClaimTaken):
        await driver.remove_volume(spec.labels, fence=8)
    again = RuntimeSpec(house.new_spec().name, owner)
    endpoint = await driver.start(await driver.create(again, fence=9), fence=9, init_key=KEY)
    await house.until(lambda: house.alive(endpoint))
    assert (await driver.find(again.name)).labels == owner
    await driver.destroy(await driver.find(again.name), fence=10)
    await driver.remove_volume(owner, fence=11)
    assert await driver.ensure_volume(owner, fence=12), "it was removed"
    await driver.remove_volume(owner, fence=12)


async def test_the_storage_of_a_spare_that_nobody_took_goes_with_it(house):
    if spares_of(house) is None:
        return
    spec = a_spare()
    await house.driver.ensure_volume(spec.labels, fence=0)
    await house.driver.remove_volume(spec.labels, fence=1)
    assert await house.driver.ensure_volume(spec.labels, fence=1)
    with pytest.raises(StaleFence):
        await house.driver.remove_volume(spec.labels, fence=0)
    await house.driver.remove_volume(spec.labels, fence=1)
