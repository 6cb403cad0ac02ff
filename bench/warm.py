"""What a spare saves: from a start's first step to ready, warm beside cold, in turns, in one run.

    python bench/warm.py [--rounds 7] [--driver fake] [--driver process] [--driver forked]

Two orchestrators for each driver, one with a warm pool and one without. A round starts a conversation on each, when the
pool is full: what is told is the sum of the stages of the operation, which is claim to ready, and the whole request
(`POST ?wait=ready`). `process` executes runtimes, `forked` forks them from a zygote; `fake` runs nothing, so there a
spare has nothing to save: it shows what the claim itself costs. A line above its target ends in `*`, and so does the
program, with status 1.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.models import scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for

TARGET = 1 / 5
SPARES = 2
#: driver -> (name for nestor, variables, whether the target holds)
DRIVERS: Mapping[str, tuple[str, Mapping[str, str], bool]] = {
    "fake": ("fake", {}, False),
    "process": ("process", {"NESTOR_ZYGOTE": "off"}, True),
    "forked": ("process", {"NESTOR_ZYGOTE": "auto"}, True),
}


@dataclass
class Measured:
    """Seconds of each start, and how long its stages took."""

    steps: list[float] = field(default_factory=list)
    request: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    hits: int = 0


def start(nestor: OrchestratorProcess, key: str, into: Measured) -> None:
    began = time.perf_counter()
    record = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json={}, status=200)
    into.request.append(time.perf_counter() - began)
    path = f"/api/v2/operations/{record['operation']}"
    operation = wait_for(lambda: (found := nestor.call("GET", path, key))["state"] != "running" and found, 20)
    into.steps.append(sum(stage["seconds"] for stage in operation["stages"]))
    for stage in operation["stages"]:
        into.stages.setdefault(stage["name"], []).append(stage["seconds"])
        into.hits += str(stage.get("message")).startswith("hit")
    nestor.call("DELETE", f"/api/v2/conversations/{record['id']}?purge=true", key)


def full(nestor: OrchestratorProcess, hits: int) -> None:
    """Wait until the pool is."""
    wait_for(lambda: nestor.log.read_text().count('"spare.ready"') >= SPARES + hits, 90)


def measure(driver: str, rounds: int) -> tuple[Measured, Measured]:
    name, variables, _ = DRIVERS[driver]
    warm, cold = Measured(), Measured()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nst-")))
        model = stack.enter_context(scripted_model())
        pooled = stack.enter_context(
            orchestrator_at(folder / "warm", driver=name, NESTOR_WARM_POOL=str(SPARES), **variables)
        )
        plain = stack.enter_context(orchestrator_at(folder / "cold", driver=name, **variables))
        if variables.get("NESTOR_ZYGOTE") == "auto":
            for one in (pooled, plain):
                one.zygote_ready()
        keys = [one.tenant("bench", model) for one in (pooled, plain)]
        for turn in range(rounds + 1):  # the first of each is not counted
            full(pooled, warm.hits + (1 if turn else 0))
            time.sleep(1.0)  # what the refill and the deletions began is over
            start(pooled, keys[0], warm if turn else Measured())
            start(plain, keys[1], cold if turn else Measured())
    return warm, cold


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--driver", action="append", choices=sorted(DRIVERS), help="default: all")
    options = parser.parse_args(arguments)
    missed = False
    for driver in options.driver or DRIVERS:
        warm, cold = measure(driver, options.rounds)
        for what in ("steps", "request"):
            ours, base = (statistics.median(getattr(one, what)) for one in (warm, cold))
            above = DRIVERS[driver][2] and what == "steps" and ours / base > TARGET
            missed = missed or above
            print(
                f"{driver:8} {what:8} cold {base * 1000:7.0f} ms   warm {ours * 1000:7.0f} ms   "
                f"ratio {ours / base:.2f}   rounds {options.rounds}, hits {warm.hits}{' *' if above else ''}"
            )
        for name, one in (("cold", cold), ("warm", warm)):
            shown = "  ".join(f"{stage} {statistics.median(s) * 1000:.0f}" for stage, s in one.stages.items())
            print(f"         {name} stages, ms: {shown}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
