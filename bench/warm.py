"""What a spare saves: from a start's first step to ready, warm beside cold, in turns, in one run.

    .venv/bin/python bench/warm.py [--rounds 9] [--kinds executed,forked] [--image nestor-runtime:latest]

For each way in which runtimes are made (`executed`, `forked` from a zygote, `containers` of an engine) two
orchestrators, one with a warm pool and one without. A round starts a conversation on each of them when the pools are
full, one after the other. Told are medians of

    steps    the stages of the operation, which is claim to ready
    request  the whole `POST ?wait=ready`
    cpu      what the orchestrator, its state server, zygote and runtimes used of the processors until then; containers
             are not in it
    posts    the calls of the same start that bind and configure its runtime (settings, a git token and a secret), as
             its orchestrator measured them (`nestor_runtime_call_seconds`), without what they wait for

A spare is judged beside a cold start: one that executes a program and imports what it needs. Where runtimes are forked,
the start without a spare is warm itself, because the zygote has done both before anybody asked: such a start is told,
as `forked`, and the ratio to it, but judged is a spare of a zygote beside the start that neither has one, which is
`executed` of the same run (it is measured too where `forked` is asked for), and beside its own POSTs.

With containers also: what the engine was asked between the claim and ready, and how long a conversation that policy
paused takes from a message to ready (`wake`, beside the `request` of a cold start).

`fake` is the driver that runs nothing, where a spare has nothing to save: it shows what the claim itself costs. A ratio
above its limit ends in `*`, and so does the program, with status 1.
"""

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from servers import tree
from support.engine_relay import Relay, relay
from support.models import scripted_model
from support.processes import OPERATOR_KEY, OrchestratorProcess, orchestrator_at, wait_for

TO_COLD = 1 / 5
TO_COLD_CONTAINERS = 0.05
TO_POSTS = 1.5
TO_COLD_WAKE = 0.15
SPARES = 2
SETTLE_SECONDS = 2.0  # what the refill and the deletions began is over, and spares have worked ahead
IDLE = {"settings": {"limits": {"idle_pause_seconds": 2}}}
CALL = re.compile(r'nestor_runtime_call_seconds_sum\{call="((?:POST|PATCH) /api/[^"]+)"\} (\S+)')
#: kind -> (driver, variables)
KINDS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "executed": ("process", {"NESTOR_ZYGOTE": "off"}),
    "forked": ("process", {"NESTOR_ZYGOTE": "auto"}),
    "containers": ("docker", {"NESTOR_EPHEMERAL": "1"}),
    "fake": ("fake", {}),
}


@dataclass
class Measured:
    """Seconds of each start, how long its stages took, and how often a spare was claimed."""

    steps: list[float] = field(default_factory=list)
    request: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    posts: list[float] = field(default_factory=list)
    above: list[float] = field(default_factory=list)  #: steps as a multiple of posts
    stages: dict[str, list[float]] = field(default_factory=dict)
    calls: dict[str, list[float]] = field(default_factory=dict)
    wakes: list[float] = field(default_factory=list)
    engine: list[list[str]] = field(default_factory=list)  #: what was asked between a claim and ready
    hits: int = 0

    def median(self, what: str) -> float:
        return statistics.median(getattr(self, what))


@dataclass
class Side:
    """One orchestrator of the run."""

    nestor: OrchestratorProcess
    key: str
    pooled: bool
    engine: Relay | None = None
    into: Measured = field(default_factory=Measured)
    hits: int = 0

    def __post_init__(self) -> None:
        self._http = httpx.Client(base_url=self.nestor.url, timeout=90, trust_env=False)

    def call(self, method: str, path: str, *, key: str = "", **more: Any) -> Any:
        answer = self._http.request(method, path, headers={"Authorization": f"Bearer {key or self.key}"}, **more)
        assert answer.is_success, answer.text
        return answer.json() if answer.headers.get("content-type") == "application/json" else answer.text

    def settle(self) -> None:
        """Until its pool is full."""
        if self.pooled:
            wait_for(lambda: self.nestor.log.read_text().count('"spare.ready"') >= SPARES + self.hits, 120)

    def start(self, *, counts: bool) -> None:
        into, nestor = self.into if counts else Measured(), self.nestor
        asked, used, began = self._calls(), cpu_of(nestor.pid), time.perf_counter()
        record = self.call("POST", "/api/v2/conversations?wait=ready&timeout=60", json={})
        into.request.append(time.perf_counter() - began)
        into.cpu.append(since(used, cpu_of(nestor.pid)))
        took = {name: seconds - asked.get(name, 0.0) for name, seconds in self._calls().items()}
        for name, seconds in took.items():
            into.calls.setdefault(name, []).append(seconds)
        into.posts.append(sum(took.values()))
        path = f"/api/v2/operations/{record['operation']}"
        operation = wait_for(lambda: (found := self.call("GET", path))["state"] != "running" and found, 20)
        into.steps.append(sum(stage["seconds"] for stage in operation["stages"]))
        into.above.append(into.steps[-1] / into.posts[-1])
        for stage in operation["stages"]:
            into.stages.setdefault(stage["name"], []).append(stage["seconds"])
            hit = str(stage.get("message")).startswith("hit")
            into.hits, self.hits = into.hits + hit, self.hits + hit
        if self.engine is not None:
            at = {one["name"]: datetime.fromisoformat(one["started_at"]).timestamp() for one in operation["stages"]}
            into.engine.append([what for seen, what in self.engine.seen if at["claim"] <= seen <= at["publish"]])
        self.call("DELETE", f"/api/v2/conversations/{record['id']}?purge=true")

    def wake(self, *, counts: bool) -> None:
        """A conversation that idles is paused by policy, and is ready again for a message."""
        record = self.call("POST", "/api/v2/conversations?wait=ready&timeout=60", json=IDLE)
        path = f"/api/v2/conversations/{record['id']}"
        wait_for(lambda: self.call("GET", path)["phase"] == "paused", 60)
        time.sleep(0.5)
        began = time.perf_counter()
        self.call("POST", f"{path}/messages", json={"content": "wake up"})
        wait_for(lambda: self.call("GET", path)["phase"] == "ready", 60, pause=0.002)
        if counts:
            self.into.wakes.append(time.perf_counter() - began)
        self.call("DELETE", f"{path}?purge=true")

    def _calls(self) -> dict[str, float]:
        """Seconds that calls to runtimes have taken so far."""
        told = self.call("GET", "/metrics", key=OPERATOR_KEY)
        return {name: float(seconds) for name, seconds in CALL.findall(told)}


def cpu_of(pid: int) -> dict[int, float]:
    """Seconds of a processor that each process of this tree has used, to the nanosecond."""
    used = {}
    for one in tree(pid):
        threads = Path(f"/proc/{one}/task")
        try:
            used[one] = sum(int((task / "schedstat").read_text().split()[0]) for task in threads.iterdir()) / 1e9
        except OSError:
            continue  # it has just ended
    return used


def since(before: Mapping[int, float], now: Mapping[int, float]) -> float:
    """What was used between the two; processes that ended in between are left out."""
    return sum(max(0.0, used - before.get(pid, 0.0)) for pid, used in now.items())


@contextmanager
def measured(kinds: Sequence[str], rounds: int, image: str) -> Iterator[dict[str, tuple[Measured, Measured]]]:
    """Of each kind cold and warm. What was started for it ends after the block."""
    sides: list[Side] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nst-")))
        model = stack.enter_context(scripted_model())
        for kind in kinds:
            driver, variables = KINDS[kind]
            for pool in ("0", str(SPARES)):
                told = {"NESTOR_WARM_POOL": pool, "NESTOR_RUNTIME_IMAGE": image, **variables}
                engine = stack.enter_context(relay(folder / "engine")) if driver == "docker" and pool != "0" else None
                if engine is not None:
                    told["NESTOR_DOCKER_HOST"] = engine.host
                nestor = stack.enter_context(orchestrator_at(folder / f"{kind}-{pool}", driver=driver, **told))
                if variables.get("NESTOR_ZYGOTE") == "auto":
                    nestor.zygote_ready()
                key = nestor.tenant("bench", model)
                nestor.call("PUT", "/api/v2/secrets/DEPLOY_KEY", key, json={"value": "a-secret"}, status=200)
                nestor.call("PUT", "/api/v2/git-providers/github", key, json={"token": "a-token"}, status=200)
                sides.append(Side(nestor, key, pool != "0", engine))
        for turn in range(rounds + 1):  # the first of each is not counted
            for side in sides:
                side.settle()
            time.sleep(SETTLE_SECONDS)
            for side in sides:
                side.start(counts=turn > 0)
                time.sleep(0.5)
            for kind, side in zip(kinds, sides[::2], strict=True):
                if kind == "containers":
                    side.wake(counts=turn > 0)
        yield {kind: (sides[2 * at].into, sides[2 * at + 1].into) for at, kind in enumerate(kinds)}


def report(kind: str, cold: Measured, warm: Measured, executed: Measured | None = None) -> bool:
    """Print its rows. Whether a limit was missed. `executed` is the cold start that a forked spare is judged by."""
    missed = False
    of_cold = TO_COLD_CONTAINERS if kind == "containers" else None if kind in ("fake", "forked") else TO_COLD
    if executed is not None:
        ratio, missed = shown(warm.median("steps") / executed.median("steps"), TO_COLD)
        print(f"{kind:10} a spare of a zygote beside a start that executes and imports: ratio {ratio}")
        print(f"{kind:10} beside a fork of that zygote, which is a warm start itself, and has no limit:")
    for what, limit in (("steps", of_cold), ("request", None), ("cpu", None), ("posts", None)):
        ratio, above = shown(warm.median(what) / cold.median(what), limit)
        missed = missed or above
        ours, base = (1000 * one.median(what) for one in (warm, cold))
        print(f"{kind:10} {what:8} cold {base:6.0f} ms   warm {ours:6.0f} ms   ratio {ratio}   hits {warm.hits}")
    ratio, above = shown(statistics.median(warm.above), TO_POSTS if kind != "fake" else None)
    missed = missed or above
    least = warm.median("posts") / cold.median("steps")
    print(f"{kind:10} warm is {ratio} times its own POSTs; they alone are {least:.2f} of the cold start")
    if warm.engine:
        changing = sum(not what.startswith("GET ") for asked in warm.engine for what in asked)
        looking = sum(map(len, warm.engine)) - changing
        missed = missed or changing > 0
        print(
            f"{kind:10} engine, claim to ready: {changing} calls that change something{' *' if changing else ''}, ",
            end="",
        )
        print(f"{looking} looks of the reconciler and the pool, in {len(warm.engine)} claims")
    if cold.wakes:
        woken, base = statistics.median(cold.wakes), cold.median("request")
        ratio, above = shown(woken / base, TO_COLD_WAKE)
        missed = missed or above
        print(f"{kind:10} wake     cold {base * 1000:6.0f} ms   wake {woken * 1000:6.0f} ms   ratio {ratio}")
    for name, one in (("cold", cold), ("warm", warm)):
        for title, parts in (("stages", one.stages), ("calls", one.calls)):
            told = "  ".join(f"{part} {statistics.median(s) * 1000:.0f}" for part, s in parts.items())
            print(f"           {name} {title}, ms: {told}", flush=True)
    return missed


def shown(value: float, limit: float | None) -> tuple[str, bool]:
    above = limit is not None and value > limit
    return f"{value:.3f}" + (f" (limit {limit:g}){' *' if above else ''}" if limit is not None else ""), above


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="starts on each side (default %(default)s)")
    parser.add_argument(
        "--kinds",
        default="executed,forked",
        help=f"comma-separated: {', '.join(KINDS)}; containers need root and an engine (default %(default)s)",
    )
    parser.add_argument("--image", default="nestor-runtime:latest", help="of containers (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write every single figure there")
    options = parser.parse_args(arguments)
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}")
    if "forked" in kinds and "executed" not in kinds:
        kinds.insert(0, "executed")
    with measured(kinds, options.rounds, options.image) as found:
        print(f"rounds {options.rounds}, medians; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        imports = found["executed"][0] if "executed" in found else None
        missed = [
            report(kind, cold, warm, imports if kind == "forked" else None) for kind, (cold, warm) in found.items()
        ]
        if options.json:
            raw = {kind: {"cold": vars(cold), "warm": vars(warm)} for kind, (cold, warm) in found.items()}
            options.json.write_text(json.dumps(raw, indent=1))
    return 1 if any(missed) else 0


if __name__ == "__main__":
    sys.exit(main())
