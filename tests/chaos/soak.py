"""`scripts/soak`: the scenarios at length. Ledgers of one file add up over runs, so that a long soak may be many.

scripts/soak races --count 10000 --seed 1 --ledger soak.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from chaos import kills, messages, races, storm
from chaos.faulty_fleet import faulty_fleet
from chaos.fleet import Fleet, Violation, fleet

Scenario = Callable[[Fleet, int], Awaitable[dict[str, Any]]]
SCENARIOS: Mapping[str, Scenario] = {
    "races": lambda fleet, count: races.run(fleet, races=count),
    "kills": lambda fleet, count: kills.run(fleet, kills=count),
    "kills_warm": lambda fleet, count: kills.run(fleet, kills=count),
    "races_warm": lambda fleet, count: races.run(fleet, races=count),
    "messages": lambda fleet, count: messages.run(fleet, messages=count),
    "events": lambda fleet, count: messages.run(fleet, messages=count // 50, said=49),
}
FAULTS = ("faults", "faults_warm")  #: over a fleet with a fault proxy on every road; their count is of conversations
WARM_POOL = "5"  #: of the scenarios whose names end in `_warm`


async def _soak(scenario: str, count: int, seed: int, lease_seconds: float, logs: Path | None) -> dict[str, Any]:
    began = time.monotonic()
    variables = {"NESTOR_EVENTS_HELD": str(messages.HELD)}
    if scenario.endswith("_warm"):
        variables["NESTOR_WARM_POOL"] = WARM_POOL
    if scenario in FAULTS:
        async with faulty_fleet(seed=seed, lease_seconds=lease_seconds, logs=logs, **variables) as faulty:
            found = await storm.run(faulty, conversations=count)
    else:
        async with fleet(seed=seed, lease_seconds=lease_seconds, **variables) as members:
            found = await SCENARIOS[scenario](members, count)
    return {"seed": seed, "seconds": round(time.monotonic() - began, 1), **found}


def _sum(total: dict[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Counts add up; of times of recovery the longest run's is kept."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            total[name] = _sum(dict(total.get(name, {})), value)
        elif name.startswith("recovery"):
            total[name] = max(value, total.get(name, 0))
        elif name != "seed" and isinstance(value, int | float):
            total[name] = total.get(name, 0) + value
    return total


def main() -> int:
    """Exit status 1 on the first broken promise; the seed that shows it is printed."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("scenario", choices=sorted([*SCENARIOS, *FAULTS]))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lease-seconds", type=float, default=2.0)
    parser.add_argument("--ledger", type=Path, help="a JSON file whose counts this run adds to")
    parser.add_argument("--logs", type=Path, help="faults: a folder in which the replicas' logs are kept")
    options = parser.parse_args()
    try:
        found = asyncio.run(_soak(options.scenario, options.count, options.seed, options.lease_seconds, options.logs))
    except Violation as violation:
        print(f"VIOLATION (seed {options.seed}): {violation}")
        return 1
    print(json.dumps({options.scenario: found}, indent=1))
    if options.ledger is not None:
        ledger = json.loads(options.ledger.read_text()) if options.ledger.exists() else {}
        entry = ledger.setdefault(options.scenario, {"runs": 0, "seeds": []})
        _sum(entry, found)
        entry["runs"] += 1
        entry["seeds"].append(options.seed)
        options.ledger.write_text(json.dumps(ledger, indent=1))
        print(f"{options.ledger}: {json.dumps(entry)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
