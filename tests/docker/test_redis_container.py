"""State in a Redis that runs in a container, as compose has it, and that is killed and comes back."""

from collections.abc import Iterator

import anyio
import pytest
from support.redis_container import redis_container, url_of
from testcontainers.core.container import DockerContainer

from orchestrator.domain.errors import StoreUnavailable
from orchestrator.state.redis_store import RedisStore

pytestmark = [pytest.mark.docker, pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def redis() -> Iterator[DockerContainer]:
    with redis_container() as container:
        yield container


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
