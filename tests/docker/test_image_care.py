"""Images on a real engine: allowed by digest for a tenant, pinned for a conversation, told at once where they lack."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support import containers
from support.docker_nestor import Client, container_of, nestor_in

from orchestrator.domain.ids import new_uuid
from orchestrator.domain.images import in_share
from orchestrator.drivers.docker import DockerDriver
from orchestrator.drivers.errors import ImageUnavailable

pytestmark = [pytest.mark.docker, pytest.mark.anyio]
MOVING, NEXT = "nestor-test-moving:latest", "nestor-test-next:latest"


def derived(tag: str, text: str) -> str:
    """The runtime's image once more with another label, which makes it another image; its id."""
    containers.docker("build", "-q", "-t", tag, "-", stdin=f"FROM nestor-runtime\nLABEL io.nestor.test={text}\n")
    return str(containers.inspect("image", tag)["Id"])


@pytest.fixture
def two_images() -> Iterator[tuple[str, str]]:
    ids = derived(MOVING, new_uuid()), derived(NEXT, new_uuid())
    yield ids
    for name in (MOVING, NEXT, *ids):
        if containers.docker("image", "ls", "-q", name):
            containers.docker("image", "rm", "-f", name)


def image_of(conversation: str) -> str:
    return str(containers.inspect("container", container_of(conversation))["Image"])


async def tenant_of(client: Client, name: str) -> dict[str, Any]:
    tenants = await client.call("GET", "/api/v2/tenants", client.operator_key, status=200)
    return next(item for item in tenants["items"] if item["name"] == name)


async def test_allowed_for_a_tenant_pinned_for_a_conversation_and_tried_out_on_a_share(
    folder: Path, two_images: tuple[str, str]
) -> None:
    old, new = two_images
    settings = {"NESTOR_RUNTIME_IMAGE": MOVING, "NESTOR_CANARY_IMAGE": NEXT, "NESTOR_CANARY_PERCENT": "50"}
    async with nestor_in(folder, **settings) as client:
        key = await client.tenant()
        tried = next(id for id in iter(new_uuid, "") if in_share(id, 50))
        plain = next(id for id in iter(new_uuid, "") if not in_share(id, 50))
        first = await client.conversation(key, id=plain)
        assert first["image"] == {"name": MOVING, "id": old, "canary": False}
        assert (await client.conversation(key, id=tried))["image"] == {"name": NEXT, "id": new, "canary": True}
        assert (image_of(plain), image_of(tried)) == (old, new)
        figures = (await client.http.get(client.url + "/metrics", headers=_bearer(client.operator_key))).text
        assert 'nestor_image_starts_total{image="canary",outcome="ready"} 1.0' in figures
        assert f'nestor_image_info{{id="{new}",image="canary",name="{NEXT}"}} 1.0' in figures
        await client.call("DELETE", f"/api/v2/conversations/{tried}?purge=true", key)

        containers.docker("tag", NEXT, MOVING)  # the same name, another image
        path = f"/api/v2/conversations/{plain}"
        refused = await client.call("POST", f"{path}/upgrade", key, status=409)
        assert "stop it" in refused["hint"]
        await client.call("POST", f"{path}/stop", key, status=202)
        await client.until(key, plain, "stopped", past="ready")
        await client.call("POST", f"{path}/start", key, status=202)
        again = await client.until(key, plain, "ready", past="stopped")
        assert (again["image"]["id"], image_of(plain)) == (old, old)

        tenant = await tenant_of(client, "acme")
        where = f"/api/v2/tenants/{tenant['id']}"
        answer = await client.call("PATCH", where, client.operator_key, json={"images": ["no-such:1"]}, status=422)
        assert "no-such:1" in answer["detail"]
        limited = await client.call("PATCH", where, client.operator_key, json={"images": [NEXT]}, status=200)
        assert limited["images"] == [{"name": NEXT, "id": new}]
        body = {"image": MOVING}
        answer = await client.call("POST", "/api/v2/conversations", key, json=body, status=422)
        assert answer["code"] == "image_refused"
        made = await client.call("POST", "/api/v2/conversations", key, json={"title": "by list"}, status=202)
        assert made["image"] == {"name": NEXT, "id": new, "canary": False}

        await client.call("POST", f"{path}/stop", key, status=202)
        await client.until(key, plain, "stopped", past="ready")
        containers.docker("image", "rm", "-f", old)
        await client.call("POST", f"{path}/start", key, status=202)
        gone = await client.until(key, plain, "failed", past="stopped")
        assert gone["reason"] == "image_pull"
        assert MOVING in gone["message"]
        assert old in gone["message"]
        upgraded = await client.call("POST", f"{path}/upgrade", key, status=200)
        assert upgraded["image"] == {"name": NEXT, "id": new, "canary": False}
        await client.call("POST", f"{path}/start", key, status=202)
        await client.until(key, plain, "ready", past="failed")
        assert image_of(plain) == new


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_missing_image_and_one_that_cannot_be_pulled_are_told_by_name(tmp_path: Path) -> None:
    driver = DockerDriver(tmp_path, installation="a-test", image="nestor-runtime:latest")
    try:
        with pytest.raises(ImageUnavailable, match="no-such-image:1"):
            await driver.image_id("no-such-image:1")
        with pytest.raises(ImageUnavailable, match=r"no name of an image|no image"):
            await driver.image_id("a//b")
        with anyio.fail_after(60), pytest.raises(ImageUnavailable, match=r"could not pull 127\.0\.0\.1:1/nothing:1"):
            await driver.pull("127.0.0.1:1/nothing:1")
    finally:
        await driver.close()


@pytest.mark.parametrize("pull", ["never", "missing"])
async def test_nestor_does_not_come_up_without_the_image_that_is_to_be_tried_out(folder: Path, pull: str) -> None:
    settings = {"NESTOR_CANARY_IMAGE": "127.0.0.1:1/next:1", "NESTOR_CANARY_PERCENT": "5", "NESTOR_PULL_IMAGES": pull}
    with pytest.raises(Exception, match=r"127\.0\.0\.1:1/next:1") as raised:
        async with nestor_in(folder, **settings):
            pass
    assert "pull" in str(raised.value)
