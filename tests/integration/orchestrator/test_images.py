"""A conversation stays on the image that it got, and each image's starts and deaths are counted apart."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from support.orchestrators import Nestor
from support.replica import Ground, Replica

from orchestrator.domain.conversation import Conversation, Phase, Pin
from orchestrator.domain.errors import Conflict, DriverUnavailable
from orchestrator.domain.ids import TenantId, new_uuid
from orchestrator.domain.images import Catalogue
from orchestrator.domain.spares import Stock
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.nested.client import RuntimeClients
from orchestrator.security.master_keys import MasterKeys
from orchestrator.services.images import Images
from orchestrator.services.pool import WarmPool
from orchestrator.telemetry import metrics

pytestmark = pytest.mark.anyio
OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
PLAIN = Catalogue("runtime:latest")


async def _nobody(tenant: TenantId) -> Mapping[str, str] | None:
    return None


async def replica_of(engine: FakeEngine, folder: Path, catalogue: Catalogue = PLAIN) -> tuple[Replica, Images]:
    engine.images = {"runtime:latest": OLD} if engine.images is None else engine.images
    images = Images(FakeDriver(engine), catalogue, _nobody)
    await images.look()
    return Replica(Ground(engine, folder), images=images), images


def is_in(*phases: Phase):  # type: ignore[no-untyped-def]
    return lambda stored: stored is not None and stored.phase in phases


async def ready(replica: Replica, conversation: Conversation) -> Conversation:
    found = await replica.settle(conversation, is_in(Phase.READY, Phase.FAILED))
    assert found is not None
    assert found.phase is Phase.READY, found.why
    return found


async def stopped(replica: Replica, conversation: Conversation) -> None:
    await replica.service.stop(conversation.tenant, None, conversation.id)
    assert await replica.settle(conversation, is_in(Phase.STOPPED)) is not None


def running(engine: FakeEngine) -> list[str | None]:
    return [runtime.spec.image for runtime in engine.runtimes.values()]


def counted(image: str, outcome: str) -> float:
    return metrics.REGISTRY.get_sample_value("nestor_image_starts_total", {"image": image, "outcome": outcome}) or 0.0


async def test_a_name_given_to_another_image_changes_nothing_until_it_is_upgraded(
    engine: FakeEngine, tmp_path: Path
) -> None:
    replica, images = await replica_of(engine, tmp_path)
    conversation = await replica.created(new_uuid())
    assert conversation.image == Pin("runtime:latest", OLD)
    engine.images = {"runtime:latest": NEW, "old": OLD}
    await images.look()
    await ready(replica, conversation)
    with pytest.raises(Conflict, match="ready"):
        await replica.service.upgrade(conversation.tenant, None, conversation.id, image=None)
    await stopped(replica, conversation)
    await replica.service.start(conversation.tenant, None, conversation.id)
    await ready(replica, conversation)
    assert running(engine) == [OLD]
    await stopped(replica, conversation)
    changed = await replica.service.upgrade(conversation.tenant, None, conversation.id, image=None)
    assert (changed.image, changed.phase) == (Pin("runtime:latest", NEW), Phase.STOPPED)
    await replica.service.start(conversation.tenant, None, conversation.id)
    assert (await ready(replica, conversation)).image == Pin("runtime:latest", NEW)
    assert running(engine) == [NEW]


async def test_one_whose_image_is_gone_says_which_and_what_to_do(engine: FakeEngine, tmp_path: Path) -> None:
    replica, _ = await replica_of(engine, tmp_path)
    conversation = await replica.created(new_uuid())
    engine.images = {"runtime:latest": NEW}
    failed = await replica.settle(conversation, is_in(Phase.FAILED))
    assert failed is not None
    assert (failed.why.reason, failed.why.retryable) == ("image_pull", False)
    assert "runtime:latest" in failed.why.message
    assert OLD in failed.why.message
    assert f"{conversation.id}/upgrade" in failed.why.hint
    await replica.service.upgrade(conversation.tenant, None, conversation.id, image=None)
    await replica.service.start(conversation.tenant, None, conversation.id)
    await ready(replica, conversation)
    assert running(engine) == [NEW]


async def test_one_that_came_while_the_engine_was_away_gets_its_image_with_its_start(
    engine: FakeEngine, tmp_path: Path
) -> None:
    engine.images = {"runtime:latest": OLD}
    replica = Replica(Ground(engine, tmp_path), images=Images(FakeDriver(engine), PLAIN, _nobody))
    conversation = await replica.created(new_uuid())
    assert conversation.image is None
    engine.fail("image_id", DriverUnavailable("it is away"))
    assert (await ready(replica, conversation)).image == Pin("runtime:latest", OLD)


async def test_the_canary_and_the_rest_are_counted_apart(engine: FakeEngine, tmp_path: Path) -> None:
    engine.images = {"runtime:latest": OLD, "runtime:next": NEW}
    catalogue = Catalogue("runtime:latest", canary="runtime:next", percent=100)
    replica, images = await replica_of(engine, tmp_path, catalogue)
    before = counted("canary", "ready"), counted("default", "ready"), counted("canary", "failed")
    tried = await ready(replica, await replica.created(new_uuid()))
    assert tried.image == Pin("runtime:next", NEW, canary=True)
    images.catalogue = replace(catalogue, percent=0.0)
    plain = await ready(replica, await replica.created(new_uuid()))
    assert plain.image == Pin("runtime:latest", OLD)
    assert (counted("canary", "ready"), counted("default", "ready")) == (before[0] + 1, before[1] + 1)
    images.catalogue = catalogue
    bad = await replica.created(new_uuid())
    engine.script.fail("POST", "/api/settings", 422, times=None, body={"detail": "no"})
    await replica.settle(bad, is_in(Phase.FAILED))
    assert counted("canary", "failed") == before[2] + 1
    lost = {"image": "canary"}
    deaths = metrics.REGISTRY.get_sample_value("nestor_image_runtimes_lost_total", lost) or 0.0
    (name,) = [name for name, runtime in engine.runtimes.items() if runtime.spec.image == NEW]
    engine.crash(name)
    await replica.settle(tried, is_in(Phase.FAILED))
    assert metrics.REGISTRY.get_sample_value("nestor_image_runtimes_lost_total", lost) == deaths + 1


async def test_spares_are_of_the_image_that_the_name_stood_for_and_follow_it(
    engine: FakeEngine, tmp_path: Path
) -> None:
    replica, images = await replica_of(engine, tmp_path)
    master = MasterKeys([bytes(32)])
    pool = WarmPool(
        "here",
        FakeDriver(engine),
        replica.ground.store.spares,
        RuntimeClients(),
        master,
        (Stock(None, 1, 1, 2),),
        images=images,
    )
    await pool.tick()
    conversation = await replica.created(new_uuid())
    taken = await replica.ground.store.conversations.claim(
        conversation.tenant, conversation.id, "a test", lease_ms=60_000
    )
    assert taken is not None
    assert running(engine) == [OLD]
    assert await pool.claim(taken[0], NEW) is None, "a spare of another image"
    engine.images = {"runtime:latest": NEW, "old": OLD}
    await images.look()
    pool._looked = float("-inf")
    await pool.tick()
    await pool.tick()
    assert running(engine) == [NEW]
    assert await pool.claim(taken[0], OLD) is None
    assert await pool.claim(taken[0], NEW) is not None


async def test_without_images_it_is_said(nestor: Nestor) -> None:
    tenant, _ = await nestor.tenant()
    where = f"/api/v2/tenants/{tenant}"
    for body, status, words in (
        ({"images": ["runtime:latest"]}, 422, "the driver in use has no images"),
        ({"images": []}, 422, "images"),
        ({"images": ["two words"]}, 422, "images"),
        ({"limits": None}, 422, "limits"),
    ):
        answer = await nestor.call("PATCH", where, json=body, status=status)
        assert words in str(answer), (body, answer)


async def test_an_upgrade_without_images_is_refused(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    assert record["image"] is None
    answer = await nestor.call("POST", f"/api/v2/conversations/{record['id']}/upgrade", key, status=422)
    assert answer["detail"] == "the driver in use has no images"
