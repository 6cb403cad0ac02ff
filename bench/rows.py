"""One line of the table that `bench/runtime.py` prints, and how its figures are taken from a server."""

import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from listeners import work_folder
from servers import Client, Server

MESSAGE = {"role": "user", "content": [{"type": "text", "text": "x" * 200}], "run": False}


@dataclass(frozen=True)
class Row:
    """A line of the table. `base` is what `value` is compared with: the peer, or ours when small."""

    name: str
    base: float
    value: float
    unit: str
    target: float
    aim: float
    note: str = ""
    pairs: tuple[float, ...] = ()
    """Ratios of neighbours, where each value has a base of its own beside it: their middle is judged."""

    @property
    def verdict(self) -> str:
        """Whether the ratio is what it has to be; nothing where there is no target."""
        if math.isinf(self.target):
            return ""
        return "aim" if self.ratio <= self.aim else "pass" if self.ratio <= self.target else "MISS"

    @property
    def ratio(self) -> float:
        if self.pairs:
            return statistics.median(self.pairs)
        if self.value == 0:
            return 0.0
        return self.value / self.base if self.base else math.inf


def start_body(server: Server, name: str, model: str) -> dict[str, Any]:
    llm = {"model": "openai/scripted", "api_key": "k", "base_url": model, "usage_id": "agent", "num_retries": 0}
    return {
        "agent": {"kind": "Agent", "llm": llm, "tools": []},
        "workspace": {"kind": "LocalWorkspace", "working_dir": work_folder(server, name)},
    }


def create(client: Client, server: Server, name: str, model: str = "http://127.0.0.1:1/v1") -> str:
    return str(client.json("POST", "/api/conversations", start_body(server, name, model))["id"])


def quiet(servers: Iterable[Server], seconds: float = 60) -> None:
    """Wait until no server works any more: after the first message ours imports the model library."""
    until = time.monotonic() + seconds
    for server in servers:
        calm = 0
        while calm < 3 and time.monotonic() < until:
            before = server.cpu()
            time.sleep(0.3)
            calm = calm + 1 if server.cpu() - before < 0.02 else 0


def spent(server: Server, count: int, action: Callable[[], object]) -> float:
    """CPU microseconds of the server for one call of many."""
    before = server.cpu()
    for _ in range(count):
        action()
    return (server.cpu() - before) / count * 1e6


def wakings(server: Server) -> int:
    """How often its threads have gone to sleep, which is as often as they woke up and ended what there was to do."""
    found = 0
    for task in Path(f"/proc/{server.pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:"))
    return found


def median(found: dict[str, list[float]], name: str) -> float:
    return statistics.median(found[name]) if found.get(name) else float("nan")


def pair(title: str, found: dict[str, list[float]], unit: str, target: float, aim: float, *, note: str = "") -> Row:
    return Row(title, median(found, "peer"), median(found, "ours"), unit, target, aim, note)


def neighbours(
    title: str, found: dict[str, list[float]], unit: str, target: float, aim: float, *, note: str = ""
) -> Row:
    """Of rounds in which the peer was measured before and after ours (`before`, `ours`, `after`): from one minute to
    the next a machine may move by more than a limit allows, and from one to its neighbour it moves less."""
    bases = [(one + other) / 2 for one, other in zip(found["before"], found["after"], strict=True)]
    pairs = tuple(ours / base for ours, base in zip(found["ours"], bases, strict=True))
    low, _, high = statistics.quantiles(pairs, n=4) if len(pairs) > 1 else pairs * 3
    told = f"quarters {low:.2f} to {high:.2f} {note}"
    return Row(title, statistics.median(bases), median(found, "ours"), unit, target, aim, told, pairs)
