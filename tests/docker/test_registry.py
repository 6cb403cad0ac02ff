"""Images from a registry: pulled when Nestor starts, by tag and by digest, told when that breaks, fetched again."""

import io
import secrets
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support import containers
from support.docker_nestor import nestor_in
from support.registry import Registry, registry

from orchestrator.domain.images import Catalogue
from orchestrator.drivers.docker import DockerDriver
from orchestrator.drivers.errors import ImageUnavailable
from orchestrator.services.images import Images

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One for all tests here; the engine keeps nothing of it."""
    with registry(tmp_path_factory.mktemp("registry")) as made:
        yield made
        names = containers.docker("image", "ls", "--format", "{{.ID}}", "--filter", f"reference={made.address}/*/*")
        if names:
            containers.docker("image", "rm", "--force", *set(names.split()))


def pushed(served: Registry, name: str) -> tuple[str, str]:
    """A small image that nobody has, in the registry alone: its id at the engine that made it, and its digest."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        content = secrets.token_bytes(64 * 1024)
        entry = tarfile.TarInfo("what")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    command = ["docker", "import", "--change", 'ENTRYPOINT ["/what"]', "-"]
    id = subprocess.run(command, input=packed.getvalue(), capture_output=True, check=True).stdout.decode().strip()
    digest = served.push(id, name)
    with suppress(AssertionError):  # gone with its last name on some engines
        containers.docker("image", "rm", "--force", id)
    return id, digest


@pytest.fixture
async def driver(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = DockerDriver(tmp_path, installation="a-test", image="nestor-runtime:latest")
    yield made
    await made.close()


async def test_by_tag_it_is_what_the_tag_is_now_and_by_digest_what_was_meant(
    served: Registry, driver: DockerDriver
) -> None:
    name = f"{served.address}/test/moving"
    first, digest = pushed(served, "test/moving:1")
    with pytest.raises(ImageUnavailable):
        await driver.image_id(f"{name}:1")
    await driver.pull(f"{name}:1")
    assert await driver.image_id(f"{name}:1") == await driver.image_id(f"{name}@{digest}") == first
    containers.docker("image", "rm", "--force", first)
    second, _ = pushed(served, "test/moving:1")
    await driver.pull(f"{name}:1")
    assert await driver.image_id(f"{name}:1") == second
    with pytest.raises(ImageUnavailable):
        await driver.image_id(f"{name}@{digest}")
    await driver.pull(f"{name}@{digest}")
    assert await driver.image_id(f"{name}@{digest}") == first


def lost(path: Path) -> None:
    path.unlink()


def damaged(path: Path) -> None:
    path.write_bytes(secrets.token_bytes(path.stat().st_size))


@pytest.mark.parametrize("harm", [lost, damaged])
async def test_a_pull_that_breaks_is_told_and_leaves_nothing_half(
    served: Registry, driver: DockerDriver, harm: Callable[[Path], None]
) -> None:
    name = f"test/{harm.__name__}:1"
    pushed(served, name)
    harm(served.layer_of(name))
    full = f"{served.address}/{name}"
    with pytest.raises(ImageUnavailable, match="could not pull") as raised:
        await driver.pull(full)
    assert full in raised.value.message
    assert raised.value.hint
    with pytest.raises(ImageUnavailable):
        await driver.image_id(full)
    with pytest.raises(ImageUnavailable, match="could not pull"):
        await driver.pull(f"{served.address}/test/no-such:1")
    with pytest.raises(ImageUnavailable, match="could not pull"):
        await driver.pull(f"{served.address}/test/moving@sha256:{'0' * 64}")


async def test_one_that_the_engine_lost_is_fetched_again_and_others_are_left(
    served: Registry, driver: DockerDriver
) -> None:
    id, digest = pushed(served, "test/kept:1")
    kept, missing = f"{served.address}/test/kept@{digest}", f"{served.address}/test/missing:1"

    async def nobody(_: object) -> None:
        return None

    images = Images(driver, Catalogue("nestor-runtime:latest", further={kept, missing}), nobody)
    await images.look()
    assert kept not in images.known
    assert await images.fetch() == 1  # what cannot be had does not keep the other from coming
    assert images.known[kept] == id
    assert await images.fetch() == 0
    containers.docker("image", "rm", "--force", id)
    await images.look()
    assert kept not in images.known
    assert await images.fetch() == 1


async def test_nestor_fetches_what_it_is_told_of_and_a_tenant_may_have_it_by_digest_alone(
    served: Registry, folder: Path
) -> None:
    id, digest = pushed(served, "test/tools:4")
    name = f"{served.address}/test/tools"
    settings = {"NESTOR_ALLOWED_IMAGES": f"{name}@{digest}", "NESTOR_PULL_IMAGES": "missing"}
    async with nestor_in(folder, **settings) as client:
        key = await client.tenant()
        tenant = (await client.call("GET", "/api/v2/tenants", client.operator_key, status=200))["items"][0]["id"]
        refused = await client.call("POST", "/api/v2/conversations", key, json={"image": f"{name}:4"}, status=422)
        assert refused["code"] == "image_refused"  # the tag may be moved; what was meant is the digest
        limited = {"images": [f"{name}@{digest}"]}
        path = f"/api/v2/tenants/{tenant}"
        assert (await client.call("PATCH", path, client.operator_key, json=limited, status=200))["images"] == [
            {"name": f"{name}@{digest}", "id": id}
        ]
        served.end()
        try:
            containers.docker("image", "rm", "--force", id)
            made = await client.call("POST", "/api/v2/conversations", key, json={}, status=202)
            gone = await client.until(key, made["id"], "failed")
            assert (gone["reason"], gone["retryable"]) == ("image_pull", False)
            assert digest in gone["message"]
            assert gone["hint"]
        finally:
            served.start()
