"""State in a Redis that runs in a container, as compose has it, and that is killed and comes back."""

from collections.abc import Iterator

import anyio
import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from orchestrator.domain.errors import StoreUnavailable
from orchestrator.state.redis_store import RedisStore

pytestmark = [pytest.mark.docker, pytest.mark.anyio, pytest.mark.slow]

IMAGE = "redis:7-bookworm"
COMMAND = "redis-server --protected-mode no --appendonly yes --appendfsync always --save '' --dir /data"


@pytest.fixture
def redis() -> Iterator[DockerContainer]:
    testcontainers_config.ryuk_disabled = True  # its image cannot be had everywhere; the block removes the container
    with DockerContainer(IMAGE).with_command(COMMAND) as container:
        yield container


def url_of(redis: DockerContainer) -> str:
    """By the container's own address: nothing is published on this machine."""
    wrapped = redis.get_wrapped_container()
    wrapped.reload()
    return f"redis://{wrapped.attrs['NetworkSettings']['IPAddress']}:6379/0"


async def opened(url: str) -> RedisStore:
    store = RedisStore(url)
    with anyio.fail_after(20):
        while True:
            try:
                await store.check()
                return store
            except StoreUnavailable:
                await anyio.sleep(0.1)


async def test_what_was_accepted_is_there_after_a_kill(redis: DockerContainer):
    store = await opened(url_of(redis))
    installation = await store.installation()
    await store.close()
    redis.get_wrapped_container().kill()
    redis.get_wrapped_container().start()
    again = await opened(url_of(redis))
    assert await again.installation() == installation
    await again.close()
