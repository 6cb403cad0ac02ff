"""`python -m chaos.fault_proxy SOCKET SEED`: a process that stands between others and does faults, until SIGTERM.

It is told by one JSON line a connection (`orchestrator.drivers.fake_wire`): `front` makes an address before another,
at a named place; `rates` says how often what goes wrong at places of one group (`redis/0` is of the group `redis`);
`calm` lets them rest; `counts` tells what was done. Without rates nothing goes wrong.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chaos.faults import Plan, Rates
from chaos.relay import Address, Front
from orchestrator.drivers import fake_wire


class FaultProxy:
    """All fronts of one process, by place; a place has one plan, however many fronts it has."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._plans: dict[str, Plan] = {}
        self._rates: dict[str, Rates] = {}
        self._counts: dict[str, Counter[str]] = {}
        self._fronts: dict[tuple[str, str], Front] = {}
        self._calm = False

    async def front(self, place: str, upstream: Address, address: Address = ("127.0.0.1", 0)) -> Address:
        """The address that stands before `upstream` at this place; the one that it has where there is one."""
        name = (place, str(upstream))
        if name not in self._fronts:
            group = place.split("/")[0]
            plan = self._plans.setdefault(place, Plan(self._seed, place, self._rates.get(group, Rates())))
            counts = self._counts.setdefault(group, Counter())
            self._fronts[name] = made = Front(upstream, plan, counts, lambda: self._calm)
            await made.open(address)
        return self._fronts[name].address

    def rates(self, group: str, rates: Rates) -> None:
        """From now on."""
        self._rates[group] = rates
        for place, plan in self._plans.items():
            if place.split("/")[0] == group:
                plan.rates = rates

    def calm(self, calm: bool) -> None:
        """Whether faults rest: then none begins, and no plan goes on."""
        self._calm = calm

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """What was done, by group and kind, with the connections and requests that were carried."""
        return {group: dict(sorted(counts.items())) for group, counts in sorted(self._counts.items())}

    async def close(self) -> None:
        await asyncio.gather(*(front.close() for front in self._fronts.values()))

    async def told(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One command, on a connection of its own."""
        try:
            if line := await reader.readline():
                writer.write(fake_wire.line({"answer": await self._do(json.loads(line))}))
                await writer.drain()
        finally:
            writer.close()

    async def _do(self, asked: Mapping[str, Any]) -> Any:
        match asked.get("verb"):
            case "front":
                given = [_address(asked[name]) for name in ("upstream", "address") if asked.get(name)]
                return _plain(await self.front(asked["place"], *given))
            case "rates":
                return self.rates(asked["group"], Rates(**asked["rates"]))
            case "calm":
                return self.calm(asked["calm"])
            case "counts":
                return self.counts()
        raise ValueError(asked.get("verb"))


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return (host, int(port)) if host else Path(text)


def _plain(address: Address) -> str:
    return str(address) if isinstance(address, Path) else f"{address[0]}:{address[1]}"


async def serve(control: Path, seed: int) -> None:
    """Until SIGTERM or SIGINT."""
    proxy, over = FaultProxy(seed), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    server = await asyncio.start_unix_server(proxy.told, control)
    await over.wait()
    server.close()
    await proxy.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
