"""An engine whose answers are lost, are failures, come late or never: nothing is made twice, left, or guessed."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from support import containers
from support.docker_nestor import nestor_in
from support.engine_relay import Relay, relay

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import new_secret
from orchestrator.drivers import docker_engine
from orchestrator.drivers.docker import DockerDriver
from orchestrator.drivers.docker_engine import Refused
from orchestrator.drivers.errors import ImageUnavailable
from orchestrator.drivers.values import Condition, OwnerLabels, RuntimeSpec

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


@pytest.fixture
def engine(folder: Path) -> Iterator[Relay]:
    with relay(folder / "engine.sock") as made:
        yield made


def new_spec(installation: str) -> RuntimeSpec:
    conversation = str(uuid.uuid4())
    labels = OwnerLabels(
        installation, TenantId(str(uuid.uuid4())), ConversationId(conversation), RuntimeId(str(uuid.uuid4())), 1
    )
    return RuntimeSpec(name=f"nestor-{conversation}-g1", labels=labels)


async def test_every_lost_answer_is_made_good_by_looking(folder: Path, engine: Relay):
    installation = str(uuid.uuid4())
    driver = DockerDriver(
        folder / "data", installation=installation, image=containers.standin_image(), host=engine.host
    )
    assert (await driver.fingerprint()).usable
    spec = new_spec(installation)

    engine.lose("POST /volumes/create")
    with pytest.raises(DriverUnavailable):
        await driver.ensure_volume(spec.labels, fence=1)
    await driver.ensure_volume(spec.labels, fence=1)

    engine.lose("POST /containers/create")
    handle = await driver.create(spec, fence=1)
    assert [one.name for one in await driver.list(installation)] == [spec.name]
    assert await driver.create(spec, fence=1) == handle

    started = f"POST /containers/{handle.reference}/start"
    engine.lose(started)
    endpoint = await driver.start(handle, fence=1, init_key=new_secret())
    assert (await driver.inspect(handle)).endpoint == endpoint

    engine.lose(f"GET /containers/{handle.reference}/json")
    with pytest.raises(DriverUnavailable):  # not: there is no such runtime
        await driver.inspect(handle)

    engine.lose(f"POST /containers/{handle.reference}/stop")
    with pytest.raises(DriverUnavailable):
        await driver.stop(handle, fence=1, grace=5)
    await driver.stop(handle, fence=1, grace=5)
    assert (await driver.inspect(handle)).condition is Condition.EXITED

    engine.lose(f"DELETE /containers/{handle.reference}")
    with pytest.raises(DriverUnavailable):
        await driver.destroy(handle, fence=1)
    await driver.destroy(handle, fence=1)
    assert await driver.find(spec.name) is None

    engine.lose(f"DELETE /volumes/nestor-{spec.labels.runtime}-workspace")
    with pytest.raises(DriverUnavailable):
        await driver.remove_volume(spec.labels, fence=1)
    await driver.remove_volume(spec.labels, fence=1)
    assert not containers.docker("volume", "ls", "--quiet", "--filter", f"name={spec.labels.conversation}")
    assert len(engine.lost) == 7
    await driver.close()


async def test_what_happens_while_the_stream_of_events_is_cut_is_told_afterwards(folder: Path, engine: Relay):
    installation = str(uuid.uuid4())
    driver = DockerDriver(
        folder / "data", installation=installation, image=containers.standin_image(), host=engine.host
    )
    assert (await driver.fingerprint()).usable
    handles = []
    for _ in range(3):
        spec = new_spec(installation)
        await driver.ensure_volume(spec.labels, fence=1)
        handles.append(await driver.create(spec, fence=1))
        await driver.start(handles[-1], fence=1, init_key=new_secret())
    heard: list[str] = []

    async def listen() -> None:
        async for event in driver.events():
            heard.append(event.name)

    async def until(name: str) -> None:
        with anyio.fail_after(30):
            while name not in heard:
                await anyio.sleep(0.05)

    first, second, third = (handle.name for handle in handles)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        with anyio.fail_after(30):
            while not any(asked.startswith("GET /events") for _, asked in engine.seen):
                await anyio.sleep(0.05)
        await anyio.to_thread.run_sync(containers.kill, first)
        await until(first)
        engine.delay("GET /events", 3)  # longer than the kill takes
        assert engine.cut("GET /events") == 1
        await anyio.to_thread.run_sync(containers.kill, second)  # nobody listens now
        await until(second)
        await anyio.to_thread.run_sync(lambda: containers.docker("rename", third, f"{third}-x"))
        await until(f"{third}-x")
        tasks.cancel_scope.cancel()
    for handle in handles:
        await driver.destroy(handle, fence=1)
        await driver.remove_volume(handle.labels, fence=1)
    await driver.close()


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ("POST /containers/create", 500, DriverUnavailable),  # may pass: the step tries again within its time
        ("POST /containers/create", 409, DriverUnavailable),  # the name was taken, and by now is nobody's
        ("GET /images/", 404, ImageUnavailable),
        ("GET /images/", 500, DriverUnavailable),
        ("POST /containers/create", 400, Refused),
    ],
)
async def test_what_the_engine_answers_instead_is_told_apart_and_the_next_try_counts(
    folder: Path, engine: Relay, asked: str, status: int, told: type[Exception]
):
    installation = str(uuid.uuid4())
    driver = DockerDriver(
        folder / "data", installation=installation, image=containers.standin_image(), host=engine.host
    )
    assert (await driver.fingerprint()).usable
    spec = new_spec(installation)
    engine.answer(asked, status)
    with pytest.raises(told) as refused:
        await driver.create(spec, fence=1)
    assert "told by the relay" not in str(refused.value)
    assert await driver.find(spec.name) is None
    handle = await driver.create(spec, fence=1)
    await driver.destroy(handle, fence=1)
    await driver.close()


async def test_an_engine_that_hangs_costs_one_wait_and_then_nothing_until_it_answers_again(
    folder: Path, engine: Relay, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(docker_engine, "_PING_SECONDS", 1)
    asking = docker_engine.Engine(engine.host)

    def look(seconds: int) -> float:
        began = time.monotonic()
        asking.ask("look", lambda client: client.containers(), seconds=seconds)
        return time.monotonic() - began

    assert look(10) < 5
    engine.silent.set()
    with pytest.raises(DriverUnavailable, match="Timeout"):
        look(1)
    began = time.monotonic()
    with ThreadPoolExecutor(16) as threads:
        failures = [each.exception() for each in [threads.submit(look, 30) for _ in range(64)]]
    assert time.monotonic() - began < 4  # one of them pinged; none waited for its thirty seconds
    assert {type(failure) for failure in failures} == {DriverUnavailable}
    engine.silent.clear()
    with anyio.fail_after(10):
        while True:
            try:
                assert look(10) < 5
                break
            except DriverUnavailable:
                await anyio.sleep(0.1)
    asking.close()


async def test_a_start_whose_container_takes_longer_than_the_lease_is_made_once(folder: Path, engine: Relay):
    told = {"NESTOR_DOCKER_HOST": engine.host, "NESTOR_LEASE_SECONDS": "2"}
    async with nestor_in(folder, **told) as nestor:
        key = await nestor.tenant()
        engine.delay("POST /containers/create", 5)
        created = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
        again = await nestor.call("POST", f"/api/v2/conversations/{created['id']}/start", key, status=202)
        assert again["operation"] == created["operation"]
        assert (await nestor.until(key, created["id"], "ready"))["attempt"] == 1
    assert sum(asked.startswith("POST /containers/create") for _, asked in engine.seen) == 1
