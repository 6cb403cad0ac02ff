"""A state server in a container, as compose has it."""

from collections.abc import Iterator
from contextlib import contextmanager

from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

IMAGE = "redis:7-bookworm"
COMMAND = "redis-server --protected-mode no --appendonly yes --save '' --dir /data --appendfsync"


@contextmanager
def redis_container(*, fsync: str = "always") -> Iterator[DockerContainer]:
    """For the length of the block. It answers soon, and not at once."""
    testcontainers_config.ryuk_disabled = True  # its image cannot be had everywhere; the block removes the container
    with DockerContainer(IMAGE).with_command(f"{COMMAND} {fsync}") as container:
        yield container


def url_of(redis: DockerContainer) -> str:
    """By the container's own address: nothing is published on this machine."""
    wrapped = redis.get_wrapped_container()
    wrapped.reload()
    return f"redis://{wrapped.attrs['NetworkSettings']['IPAddress']}:6379/0"
