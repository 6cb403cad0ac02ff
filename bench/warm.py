"""What a spare saves: from a start's first step to ready, warm beside cold, in turns, in one run.

    python bench/warm.py [--rounds 9] [--kinds executed,forked,containers,fake] [--image nestor-runtime:latest]

For each way in which runtimes are made (`executed`, `forked` from a zygote, `containers` of an engine) two
orchestrators, one with a warm pool and one without. A round starts a conversation on each of them when the pools are
full, one after the other, and then makes the calls of a warm start on a dormant runtime of a zygote with nothing around
them: the same client and the same bodies on a spare of nobody, which is the least that a claim can take. Told are
medians of

    steps    the stages of the operation, which is claim to ready
    request  the whole `POST ?wait=ready`
    cpu      what the orchestrator, its state server, zygote and runtimes used of the processors until then; containers
             are not in it

`fake` is the driver that runs nothing, where a spare has nothing to save: it shows what the claim itself costs. A ratio
above its target ends in `*`, and so does the program, with status 1.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.domain.ids import ConversationId
from orchestrator.domain.secrets import SecretText
from orchestrator.nested import wire
from orchestrator.nested.client import RuntimeClients

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from servers import tree
from support.models import scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for
from support.zygotes import ZygoteProcess, zygote_at

TO_COLD = 1 / 5
TO_CALLS = 1.5
SPARES = 2
SETTLE_SECONDS = 2.0  # what the refill and the deletions began is over, and spares have worked ahead
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
    stages: dict[str, list[float]] = field(default_factory=dict)
    hits: int = 0

    def median(self, what: str) -> float:
        return statistics.median(getattr(self, what))


@dataclass
class Side:
    """One orchestrator of the run."""

    nestor: OrchestratorProcess
    key: str
    pooled: bool
    into: Measured = field(default_factory=Measured)
    hits: int = 0

    def settle(self) -> None:
        """Until its pool is full."""
        if self.pooled:
            wait_for(lambda: self.nestor.log.read_text().count('"spare.ready"') >= SPARES + self.hits, 120)

    def start(self, *, counts: bool) -> None:
        into, nestor = self.into if counts else Measured(), self.nestor
        used, began = cpu_of(nestor.pid), time.perf_counter()
        record = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", self.key, json={}, status=200)
        into.request.append(time.perf_counter() - began)
        into.cpu.append(since(used, cpu_of(nestor.pid)))
        path = f"/api/v2/operations/{record['operation']}"
        operation = wait_for(lambda: (found := nestor.call("GET", path, self.key))["state"] != "running" and found, 20)
        into.steps.append(sum(stage["seconds"] for stage in operation["stages"]))
        for stage in operation["stages"]:
            into.stages.setdefault(stage["name"], []).append(stage["seconds"])
            hit = str(stage.get("message")).startswith("hit")
            into.hits, self.hits = into.hits + hit, self.hits + hit
        nestor.call("DELETE", f"/api/v2/conversations/{record['id']}?purge=true", self.key)


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


class Calls:
    """The calls of a warm start on a spare, and nothing else."""

    def __init__(self, zygote: ZygoteProcess, folder: Path, model: str) -> None:
        self._zygote, self._folder, self._model = zygote, folder, model
        self.seconds: list[float] = []

    def make(self, *, counts: bool) -> None:
        folder = self._folder / f"spare-{len(self.seconds)}-{time.monotonic_ns()}"
        runtime = self._zygote.fork(folder, environment={"OH_DEFERRED_INIT": "1"})
        try:
            assert runtime.let_go() == ""
            seconds = asyncio.run(self._made(f"http://127.0.0.1:{runtime.port}"))
        finally:
            runtime.close()
            os.kill(runtime.pid, 9)
        if counts:
            self.seconds.append(seconds)

    async def _made(self, origin: str) -> float:
        init_key, inner = SecretText("sealing-key-of-the-zygote-tests"), SecretText("inner-key-of-the-bench-012345")
        llm = {"model": "openai/scripted", "api_key": SecretText("k"), "base_url": self._model, "num_retries": 0}
        settings = {"agent_settings": {"llm": llm}}
        init = {
            "session_api_keys": [inner.open()],
            "secret_key": "state-key-of-the-bench",
            "public_urls": ["http://127.0.0.1:1"],
            "generation": 1,
            "allow_set_conversation_id": True,
            "webhooks": [{"base_url": "http://127.0.0.1:9/events", "headers": {"Authorization": "Bearer x"}}],
        }
        started = {"conversation_id": ConversationId("6e9f5f0e-6f5b-4a0a-9c39-0a8b3b1d7f10")}
        async with RuntimeClients().open(origin, init_key) as client:
            await client.wait_dormant()
        await asyncio.sleep(SETTLE_SECONDS)
        async with RuntimeClients().open(origin, inner, fence=1, generation=1) as client:
            began = time.perf_counter()
            await client.init(init_key, init)
            await client.post_settings(wire.settings_body(settings))
            await client.patch_settings(wire.settings_rest(settings))
            await client.create_conversation(started, timeout=30)
            return time.perf_counter() - began


def measure(kinds: Sequence[str], rounds: int, image: str) -> tuple[dict[str, tuple[Measured, Measured]], float]:
    """Of each kind cold and warm; and seconds of the calls alone."""
    sides: list[Side] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nst-")))
        model = stack.enter_context(scripted_model())
        calls = Calls(stack.enter_context(zygote_at(folder / "zygote")), folder, model)
        for kind in kinds:
            driver, variables = KINDS[kind]
            for pool in ("0", str(SPARES)):
                at = folder / f"{kind}-{pool}"
                told = {"NESTOR_WARM_POOL": pool, "NESTOR_RUNTIME_IMAGE": image, **variables}
                nestor = stack.enter_context(orchestrator_at(at, driver=driver, **told))
                if variables.get("NESTOR_ZYGOTE") == "auto":
                    nestor.zygote_ready()
                sides.append(Side(nestor, nestor.tenant("bench", model), pool != "0"))
        for turn in range(rounds + 1):  # the first of each is not counted
            for side in sides:
                side.settle()
            time.sleep(SETTLE_SECONDS)
            for side in sides:
                side.start(counts=turn > 0)
                time.sleep(0.5)
            calls.make(counts=turn > 0)
    pairs = {kind: (sides[2 * at].into, sides[2 * at + 1].into) for at, kind in enumerate(kinds)}
    return pairs, statistics.median(calls.seconds)


def shown(value: float, target: float | None) -> tuple[str, bool]:
    above = target is not None and value > target
    return f"{value:.2f}{' *' if above else ''}", above


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--kinds", default="executed,forked", help=f"comma-separated: {', '.join(KINDS)}")
    parser.add_argument("--image", default="nestor-runtime:latest", help="of containers (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write every single figure there")
    options = parser.parse_args(arguments)
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}")
    found, calls = measure(kinds, options.rounds, options.image)
    missed = False
    print(f"rounds {options.rounds}, medians; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    for kind, (cold, warm) in found.items():
        for what in ("steps", "request", "cpu"):
            target = TO_COLD if what == "steps" and kind != "fake" else None
            ratio, above = shown(warm.median(what) / cold.median(what), target)
            missed = missed or above
            ours, base = (1000 * one.median(what) for one in (warm, cold))
            print(f"{kind:9} {what:8} cold {base:6.0f} ms   warm {ours:6.0f} ms   ratio {ratio}   hits {warm.hits}")
        for name, one in (("cold", cold), ("warm", warm)):
            stages = "  ".join(f"{stage} {statistics.median(s) * 1000:.0f}" for stage, s in one.stages.items())
            print(f"          {name} stages, ms: {stages}", flush=True)
    if "forked" in found:
        ratio, above = shown(found["forked"][1].median("steps") / calls, TO_CALLS)
        missed = missed or above
        least = calls / found["forked"][0].median("steps")
        print(f"its own calls, forked, nothing around them: {calls * 1000:.0f} ms; warm is {ratio} times that")
        print(f"          they alone are {least:.2f} of the cold start of a forked runtime")
    if options.json:
        raw = {kind: {"cold": vars(cold), "warm": vars(warm)} for kind, (cold, warm) in found.items()}
        options.json.write_text(json.dumps({"calls": calls, "kinds": raw}, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
