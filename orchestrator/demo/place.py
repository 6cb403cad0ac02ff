"""Where the demo's model and git server listen, so that runtimes reach them and nobody else does.

`house.py` enters it first. Processes reach loopback; containers reach the gateway of their bridge, which a running
orchestrator names in `/server_info`, and which the demo makes itself when it starts one with the docker driver.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import httpx

from orchestrator.demo.options import DemoFailed, DemoOptions

_LOOPBACK = "127.0.0.1"
#: Those that runtimes of `deploy/compose.yaml` may reach, and on a bridge of the demo's own there is nobody else.
PORTS = (8790, 8791)
_ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Place:
    """The address to listen on, and what an orchestrator that the demo starts has to be told about it."""

    host: str
    model_port: int = 0  #: 0 for a free one
    git_port: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def place_for(options: DemoOptions) -> AsyncIterator[Place]:
    """The place for this run. Raises DemoFailed when it cannot be found out, or when a runtime is left on it."""
    if options.url is not None:
        host = options.servers_host or await _gateway_of(options.url)
        yield Place(host) if host == _LOOPBACK else Place(host, *PORTS)
    elif options.driver == "docker":
        from orchestrator.demo.bridge import bridge  # its SDK is one that the other drivers do without

        async with bridge(options.engine) as (name, gateway):
            host = options.servers_host or gateway
            yield Place(host, *PORTS, settings=_told(options, name, host))
    else:
        yield Place(options.servers_host or _LOOPBACK)


async def _gateway_of(url: str) -> str:
    try:
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS) as client:
            about = (await client.get(url.rstrip("/") + "/server_info")).json()
    except (httpx.HTTPError, ValueError) as exc:
        raise DemoFailed(f"{url} is no orchestrator that runs: {type(exc).__name__}") from exc
    gateway = about.get("gateway") if isinstance(about, dict) else None
    return gateway if isinstance(gateway, str) else _LOOPBACK


def _told(options: DemoOptions, bridge: str, host: str) -> Mapping[str, str]:
    return {
        "NESTOR_DOCKER_HOST": options.engine,
        "NESTOR_RUNTIME_IMAGE": options.image,
        "NESTOR_RUNTIME_NETWORK": bridge,
        "NESTOR_ALLOW_HTTP_HOSTS": host,
        "NESTOR_RUNTIME_REACHES": ",".join(f"{host}:{port}" for port in PORTS),
    }
