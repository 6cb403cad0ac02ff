"""A bridge of the demo's own on a Docker engine: made before its servers listen on the gateway, removed at the end.

`place.py` enters it when the demo starts an orchestrator with the docker driver.
"""

import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.to_thread

from orchestrator.demo.options import DemoFailed
from orchestrator.domain.errors import NestorError
from orchestrator.drivers import docker_network
from orchestrator.drivers.docker_engine import Engine
from orchestrator.drivers.docker_pool import make_in, pool_of

_POOL, _LENGTH = "10.214.0.0/16", 24


@contextlib.asynccontextmanager
async def bridge(host: str) -> AsyncIterator[tuple[str, str]]:
    """Its name and its gateway's address. What is connected to it has to be gone when the block ends: DemoFailed."""
    engine, name = Engine(host), f"nestor-demo-{uuid.uuid4().hex[:10]}"
    try:
        with _told_as_failure():
            made = await anyio.to_thread.run_sync(
                lambda: make_in(engine, pool_of(_POOL), name, length=_LENGTH, installation=name)
            )
        yield name, made.gateway
    finally:
        with anyio.CancelScope(shield=True), _told_as_failure():
            await anyio.to_thread.run_sync(lambda: _remove(engine, name))
        engine.close()


def _remove(engine: Engine, name: str) -> None:
    docker_network.remove(engine, name)
    if docker_network.find(engine, name) is not None:
        raise DemoFailed(f"a container is left on the bridge {name}")


@contextlib.contextmanager
def _told_as_failure() -> Iterator[None]:
    try:
        yield
    except NestorError as exc:
        raise DemoFailed(f"{exc.message}; {exc.hint}" if exc.hint else exc.message) from exc
