"""`python -m chaos.fronted_engine SOCKET CONTROL`: the fake engine, whose runtimes are reached through a fault proxy.

What it tells of a runtime's address is that of a front, which the proxy at CONTROL makes. It also notes what every
runtime was handed, for the invariant that no key or secret comes to the wrong one (`handed`).
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.drivers import fake_server, fake_wire
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.drivers.fake_script import Received
from orchestrator.drivers.values import Endpoint


@dataclass
class _Handed:
    """What came to one runtime under a key that is its own; strangers' requests are counted, as it refuses them."""

    keys: set[str] = field(default_factory=set)
    generations: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    conversations: set[str] = field(default_factory=set)
    strangers: int = 0


class Ledger(deque[Received]):
    """In the place of the engine's list of requests: of each only what it handed over is kept."""

    def __init__(self) -> None:
        super().__init__(maxlen=10_000)
        self.handed: dict[str, _Handed] = {}

    def append(self, received: Received) -> None:
        super().append(received)
        handed = self.handed.setdefault(received.runtime, _Handed())
        body = received.body if isinstance(received.body, dict) else {}
        if (received.method, received.path) == ("POST", "/api/init"):
            handed.keys |= {_digest(str(key)) for key in body.get("session_api_keys", ())}
            handed.generations.add(str(body.get("generation")))
            return
        key = received.headers.get("x-session-api-key")
        if key is None:
            return
        if _digest(key) not in handed.keys:
            handed.strangers += 1
            return
        if (generation := received.headers.get("x-generation")) is not None:
            handed.generations.add(generation)
        if (received.method, received.path) == ("POST", "/api/secrets"):
            handed.secrets |= {str(value) for value in _values(body.get("secrets", {}))}
        if (received.method, received.path) == ("POST", "/api/conversations"):
            handed.conversations.add(str(body.get("conversation_id")))

    def plain(self) -> Mapping[str, Any]:
        """By runtime."""
        return {
            name: {"strangers": one.strangers}
            | {what: sorted(getattr(one, what)) for what in ("keys", "generations", "secrets", "conversations")}
            for name, one in self.handed.items()
        }


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _values(secrets: Mapping[str, Any]) -> list[Any]:
    return [one.get("value", one) if isinstance(one, dict) else one for one in secrets.values()]


class FrontedServer(fake_server.FakeServer):
    """See the module."""

    def __init__(self, engine: FakeEngine, proxy: Path) -> None:
        super().__init__(engine)
        self._proxy = proxy
        engine.script.received = self._ledger = Ledger()

    async def _do_start(self, asked: Mapping[str, Any]) -> Any:
        return await self._fronted(await super()._do_start(asked))

    async def _do_unpause(self, asked: Mapping[str, Any]) -> Any:
        return await self._fronted(await super()._do_unpause(asked))

    async def _do_inspect(self, asked: Mapping[str, Any]) -> Any:
        observed = await super()._do_inspect(asked)
        if observed.endpoint is None:
            return observed
        return replace(observed, endpoint=await self._fronted(observed.endpoint))

    async def _do_handed(self, asked: Mapping[str, Any]) -> Any:
        """What every runtime was handed, by its name."""
        return self._ledger.plain()

    async def _fronted(self, endpoint: Endpoint) -> Endpoint:
        upstream = f"{endpoint.host}:{endpoint.port}"
        host, _, port = str(await fake_wire.call(self._proxy, "front", place="runtime", upstream=upstream)).rpartition(
            ":"
        )
        return replace(endpoint, host=host, port=int(port))


if __name__ == "__main__":
    control = Path(sys.argv[2])
    asyncio.run(fake_server.serve(Path(sys.argv[1]), lambda engine: FrontedServer(engine, control)))
