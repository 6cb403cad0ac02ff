"""What a runtime uses, as the engine tells it, and what becomes of one whose storage is too large."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from support import containers

from orchestrator.domain.errors import RuntimeNotFound
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import new_secret
from orchestrator.drivers import storage
from orchestrator.drivers.docker import Choices, DockerDriver
from orchestrator.drivers.docker_spec import Hardening
from orchestrator.drivers.values import Condition, ExitCause, Handle, Limits, OwnerLabels, RuntimeSpec
from orchestrator.services.disk_watch import DiskWatch
from orchestrator.services.shares import Shares

pytestmark = [pytest.mark.docker, pytest.mark.anyio]

MEGABYTE = 1_000_000


@dataclass
class Watched:
    """A runtime, and the watch of its storage."""

    driver: DockerDriver
    handle: Handle
    watch: DiskWatch

    def agent(self, command: str, *, detached: bool = False) -> str:
        """As a shell of the agent does it."""
        words = ["--detach"] if detached else []
        return containers.docker("exec", *words, self.handle.reference, "sh", "-c", command)


@asynccontextmanager
async def watched(folder: Path, *, megabytes: int) -> AsyncIterator[Watched]:
    installation, conversation = str(uuid.uuid4()), str(uuid.uuid4())
    driver = DockerDriver(folder, installation=installation, image=containers.standin_image())
    ids = TenantId(str(uuid.uuid4())), ConversationId(conversation), RuntimeId(str(uuid.uuid4()))
    labels = OwnerLabels(installation, *ids, 1)
    watch = DiskWatch(installation, driver, Shares(None, "a replica"), limit_bytes=megabytes * MEGABYTE)
    try:
        assert (await driver.fingerprint()).usable
        await driver.ensure_volume(labels, fence=1)
        handle = await driver.create(RuntimeSpec(f"nestor-{conversation}-g1", labels), fence=1)
        await driver.start(handle, fence=1, init_key=new_secret())
        yield Watched(driver, handle, watch)
    finally:
        for left in await driver.list(installation):
            await driver.destroy(left, fence=9)
        await driver.remove_volume(labels, fence=9)
        await driver.close()


async def test_empty_files_are_not_free(tmp_path: Path):
    """A file system that is made has a place for so many files: whoever takes all of them leaves nobody else one."""
    async with watched(tmp_path, megabytes=20) as one:
        one.agent("cd /workspace; seq 500 | xargs touch")
        assert await one.watch.tick() == 0
        one.agent("cd /state; seq 3000 | xargs touch")
        assert await one.watch.tick() == 1


async def test_what_has_no_name_any_more_counts_while_it_is_open(tmp_path: Path):
    """`df` knows of it, `du` does not."""
    async with watched(tmp_path, megabytes=20) as one:
        hide = "exec 3>/workspace/x; rm /workspace/x; head -c 40000000 /dev/zero >&3; touch /workspace/hidden; sleep 60"
        one.agent(hide, detached=True)
        with anyio.fail_after(20):
            while "hidden" not in one.agent("ls /workspace"):
                await anyio.sleep(0.1)
        used = await one.driver.usage(one.handle)
        assert used.disk_bytes is not None
        assert used.disk_bytes > 40 * MEGABYTE
        assert await one.watch.tick() == 1


async def test_who_has_more_files_than_can_be_counted_is_not_left_alone(tmp_path: Path, monkeypatch):
    async with watched(tmp_path, megabytes=20) as one:
        monkeypatch.setattr(storage, "_SECONDS", 0.0)
        assert [await one.watch.tick() for _ in range(2)] == [0, 0]
        monkeypatch.undo()
        assert await one.watch.tick() == 0  # it was only slow for a while
        monkeypatch.setattr(storage, "_SECONDS", 0.0)
        assert [await one.watch.tick() for _ in range(3)] == [0, 0, 1]


async def test_usage_is_told_and_a_storage_over_the_limit_ends_the_runtime_for_that_reason(tmp_path: Path):
    installation = str(uuid.uuid4())
    choices = Choices(hardening=Hardening(file_bytes=15 * MEGABYTE // 2))
    driver = DockerDriver(tmp_path, installation=installation, image=containers.standin_image(), choices=choices)
    conversation = str(uuid.uuid4())
    ids = TenantId(str(uuid.uuid4())), ConversationId(conversation), RuntimeId(str(uuid.uuid4()))
    labels = OwnerLabels(installation, *ids, 1)
    limits = Limits(memory_bytes=128 * 1024**2).times(2)  # the limits of disk and files are for size 1
    watch = DiskWatch(installation, driver, Shares(None, "a replica"), limit_bytes=10 * MEGABYTE)
    try:
        assert (await driver.fingerprint()).usable
        await driver.ensure_volume(labels, fence=1)
        handle = await driver.create(RuntimeSpec(f"nestor-{conversation}-g1", labels, limits=limits), fence=1)
        await driver.start(handle, fence=1, init_key=new_secret())
        used = await driver.usage(handle)
        assert 0 < used.memory_bytes < used.memory_limit_bytes == 256 * 1024**2
        assert used.processes >= 1
        assert used.cpu_seconds > 0
        assert used.disk_bytes is not None
        assert used.disk_bytes < MEGABYTE
        assert (used.size, used.disk_limit_bytes) == (2, 15 * MEGABYTE)

        fill(handle, "/workspace/one", 14)
        fill(handle, "/state/two", 12)  # both count, and together they are within the grace
        assert await watch.tick() == 0
        refused = containers.docker(
            "exec", handle.reference, "sh", "-c", f"{writing('/workspace/large', 16)} 2>&1; rm /workspace/large"
        )
        assert "limit exceeded" in refused  # no single file may be larger than the limit of files
        fill(handle, "/workspace/three", 10)
        assert await watch.tick() == 1
        with anyio.fail_after(10):
            while (seen := await driver.inspect(handle)).condition is not Condition.EXITED:
                await anyio.sleep(0.05)
        assert seen.cause is ExitCause.DISK
        assert await watch.tick() == 0
        with pytest.raises(RuntimeNotFound):
            await driver.disk(handle)
        # Started again it has time for clearing up, and its next end has a cause of its own.
        await driver.start(handle, fence=1, init_key=new_secret())
        containers.docker("exec", handle.reference, "sh", "-c", "rm /workspace/*")
        assert await watch.tick() == 0
        containers.kill(handle.reference)
        assert (await driver.inspect(handle)).cause is ExitCause.CRASHED
    finally:
        for left in await driver.list(installation):
            await driver.destroy(left, fence=9)
        await driver.remove_volume(labels, fence=9)
        await driver.close()


def writing(path: str, megabytes: int) -> str:
    return f"dd if=/dev/zero of={path} bs=1000000 count={megabytes}"


def fill(handle: Handle, path: str, megabytes: int) -> None:
    containers.docker("exec", handle.reference, "sh", "-c", f"{writing(path, megabytes)} 2>/dev/null")
