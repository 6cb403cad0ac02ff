"""Hints from the engine's own event stream: a container of ours ended, froze, went on, or was renamed.

`docker.py` offers them as `Driver.events`. The stream may break at any time and is then opened again where it broke;
still nothing may depend on a hint. Over httpx instead of the SDK, because a stream in a thread cannot be cancelled.
"""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx

from orchestrator.drivers.docker_spec import RUNTIME
from orchestrator.drivers.values import DriverEvent
from orchestrator.security.connecting import Transport

_AGAIN_SECONDS = 1.0
_UNIX = "unix://"
_FILTERS = json.dumps(
    {"type": ["container"], "label": [RUNTIME], "event": ["die", "oom", "pause", "unpause", "destroy", "rename"]}
)


async def hints(host: str) -> AsyncIterator[DriverEvent]:
    """One hint an event, for as long as it is read. `host` is unix:///path or tcp://address:port."""
    since = time.time()
    while True:
        try:
            async with _client(host) as client, client.stream("GET", "/events", params=_query(since)) as answer:
                async for line in answer.aiter_lines():
                    event = _parsed(line)
                    since = max(since, float(event.get("timeNano", 0)) / 1e9)
                    name = event.get("Actor", {}).get("Attributes", {}).get("name")
                    if name:
                        yield DriverEvent(str(name))
        except httpx.HTTPError:
            pass  # the engine restarts, or is gone: whoever asks it something is told so
        await anyio.sleep(_AGAIN_SECONDS)


def _client(host: str) -> httpx.AsyncClient:
    timeout = httpx.Timeout(10.0, read=None)  # silence is what a quiet engine sounds like
    if host.startswith(_UNIX):
        transport = Transport(uds=host.removeprefix(_UNIX))
        return httpx.AsyncClient(base_url="http://engine", transport=transport, timeout=timeout, trust_env=False)
    url = host.replace("tcp://", "http://", 1)
    return httpx.AsyncClient(base_url=url, transport=Transport(), timeout=timeout, trust_env=False)


def _query(since: float) -> dict[str, str]:
    return {"since": f"{since:.9f}", "filters": _FILTERS}


def _parsed(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
