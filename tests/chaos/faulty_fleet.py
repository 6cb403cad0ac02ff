"""A fleet whose every road leads through a fault proxy: replica to Redis, to the engine and to runtimes, and the pushes
of runtimes to their replica. Each replica has fronts of its own; a runtime has one, for all."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from support.ports import lasting_port

from chaos.faults import Rates
from chaos.fleet import Fleet, Replica, begin, client, listening_process, redis_server, variables_of
from orchestrator.drivers import fake_wire

#: How often what goes wrong. The state server is asked a hundred times as often as an engine or a runtime.
RATES: Mapping[str, Rates] = {
    "redis": Rates(latency=0.004, cut=0.0005, reset=0.001, lost_reply=0.001, refused=0.02, slowest=0.2, longest=1.5),
    "engine": Rates(latency=0.06, cut=0.02, reset=0.03, lost_reply=0.04, refused=0.02, slowest=0.4, longest=2.0),
    "runtime": Rates(latency=0.06, cut=0.02, reset=0.03, lost_reply=0.04, refused=0.02, slowest=0.4, longest=2.0),
    "push": Rates(latency=0.06, cut=0.02, reset=0.03, lost_reply=0.05, refused=0.02, slowest=0.4, longest=2.0),
}
STARTS = 10


class Restarted(Replica):
    """Started again when it could not start, as a service is: it looks at its engine and its state server first."""

    def begin(self) -> None:
        for _ in range(STARTS):
            try:
                super().begin()
            except AssertionError:
                self.crash()  # it may be on its way still, and would keep the port
            else:
                return
        super().begin()


@dataclass
class FaultyFleet(Fleet):
    """`engine` and `redis` are the real sockets: what a test asks of them passes no proxy."""

    proxy: Path = Path()

    async def rates(self, rates: Mapping[str, Rates]) -> None:
        """From now on things go wrong that often."""
        for group, chosen in rates.items():
            await fake_wire.call(self.proxy, "rates", group=group, rates=asdict(chosen))

    async def calm(self, calm: bool) -> None:
        """Whether faults rest: then none begins; one that lasts ends within its seconds."""
        await fake_wire.call(self.proxy, "calm", calm=calm)

    async def done(self) -> dict[str, Any]:
        """What the proxy did, by place and kind."""
        found: dict[str, Any] = await fake_wire.call(self.proxy, "counts")
        return found


@asynccontextmanager
async def faulty_fleet(
    *, seed: int, replicas: int = 3, lease_seconds: float = 2.0, logs: Path | None = None, **variables: str
) -> AsyncIterator[FaultyFleet]:
    """Nothing goes wrong until `rates` is called. The replicas' logs are kept in the folder `logs`."""
    folder = Path(tempfile.mkdtemp(prefix="nst-", dir="/tmp"))  # a socket's path must be short
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if logs is not None:
            stack.callback(_keep, folder, logs)
        redis = stack.enter_context(redis_server(folder))
        proxy, engine = folder / "proxy", folder / "engine"
        stack.enter_context(listening_process(proxy, "chaos.fault_proxy", str(proxy), str(seed)))
        stack.enter_context(listening_process(engine, "chaos.fronted_engine", str(engine), str(proxy)))
        members = []
        for number in range(replicas):
            own = await _roads(folder, number, redis, engine, proxy, lease_seconds)
            members.append(Restarted(folder / f"replica-{number}", driver="fake", **own | variables))
        await asyncio.to_thread(begin, stack, members)
        async with client() as http:
            spares = int(variables.get("NESTOR_WARM_POOL", "0"))
            yield FaultyFleet(members, engine, redis, http, random.Random(seed), spares=spares, proxy=proxy)


def _keep(folder: Path, logs: Path) -> None:
    logs.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log"):
        shutil.copy(log, logs)


async def _roads(
    folder: Path, number: int, redis: Path, engine: Path, proxy: Path, lease_seconds: float
) -> dict[str, str]:
    """The environment of one replica, which knows nothing but fronts."""

    async def front(place: str, upstream: str, address: str | None = None) -> str:
        given = {} if address is None else {"address": address}
        return str(await fake_wire.call(proxy, "front", place=f"{place}/{number}", upstream=upstream, **given))

    facing = f"127.0.0.1:{lasting_port()}"
    own_engine = await front("engine", str(engine), str(folder / f"engine-{number}"))
    own = variables_of(folder, f"redis://{await front('redis', str(redis))}", Path(own_engine), lease_seconds)
    own["NESTOR_RUNTIME_FACING"] = facing
    own["NESTOR_RUNTIME_FACING_URL"] = f"http://{await front('push', facing)}"
    return own
