"""The engine does its work and its answer is lost: nothing is made twice, nothing is left, nothing is guessed."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import containers
from support.engine_relay import Relay, relay

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import new_secret
from orchestrator.drivers.base import Condition, OwnerLabels, RuntimeSpec
from orchestrator.drivers.docker import DockerDriver

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
