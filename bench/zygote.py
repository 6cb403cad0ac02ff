"""Is forking runtimes safe, and what does it save? A real zygote, real runtimes, real model calls, in one run.

    python bench/zygote.py [--forks 1000] [--seed 1] [--at-once 3] [--rounds 7] [--json FILE]

First as many runtimes as asked for are forked from one zygote; each must get ready and finish a turn of one to three
calls of litellm to a scripted model on loopback, streamed or not as the seed says. One that does not in 60 seconds
hangs. Then the figures: fork to /ready beside a cold import of the same modules, in turns, medians; and the memory that
belongs to one runtime alone (USS, of all its processes) beside all that the zygote holds (RSS), before and after a
turn; once as plain processes, once in namespaces of their own where bubblewrap shows that this host has them. A line
above its target ends in `*`, and so does the program, with status 1, as it does after a failure. Needs the kernel's
permission to read the memory of other processes: run it as root.
"""

import argparse
import json
import os
import queue
import random
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from servers import free_port, leave, tree

from orchestrator.drivers.namespaces import HOSTNAME, Namespaces, NamespacesUnavailable, PrivateFolders, probe
from orchestrator.drivers.process_birth import SYSTEM_PATH
from orchestrator.drivers.process_interpreter import ask

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.zygotes import Forked, ZygoteProcess, turn, zygote_at

COLD = """
import time
began = time.perf_counter()
from runtime.zygote.preload import preload
preload()
print(time.perf_counter() - began)
"""


@dataclass
class Tally:
    """What became of the forks."""

    forks: int
    seed: int
    done: int = 0
    calls: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    most_threads: int = 0


@dataclass(frozen=True)
class Row:
    name: str
    base: float
    value: float
    unit: str
    target: float

    @property
    def ratio(self) -> float:
        return self.value / self.base


def forked(zygote: ZygoteProcess, folder: Path, **fields: Any) -> Forked:
    runtime = zygote.fork(folder, **fields)
    assert runtime.pid, f"the zygote did not fork: {runtime.answer}"
    said = runtime.let_go()
    assert not said, said
    return runtime


def end(runtime: Forked, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal it and wait until it is gone; its files go too."""
    runtime.close()
    watch = os.pidfd_open(runtime.pid)
    try:
        signal.pidfd_send_signal(watch, number)
        if not wait_readable(watch, 20):
            signal.pidfd_send_signal(watch, signal.SIGKILL)
            raise AssertionError(f"it did not end after {number.name}")
    finally:
        os.close(watch)
        shutil.rmtree(runtime.folder, ignore_errors=True)


def wait_readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def storm(zygote: ZygoteProcess, folder: Path, model: str, tally: Tally, at_once: int) -> None:
    """Fork as often as the tally says, and note every one that fails."""
    choose = random.Random(tally.seed)
    waiting: queue.SimpleQueue[tuple[int, bool, int, signal.Signals] | None] = queue.SimpleQueue()
    for number in range(tally.forks):
        ending = signal.SIGTERM if choose.random() < 0.2 else signal.SIGKILL
        waiting.put((number, choose.random() < 0.5, choose.choice([1, 1, 2, 3]), ending))
    for _ in range(at_once):
        waiting.put(None)
    noting = threading.Lock()

    def work() -> None:
        while (job := waiting.get()) is not None:
            number, stream, calls, ending = job
            script = [*({"tool": "think", "args": {"thought": "again"}} for _ in range(calls - 1)), {"text": "done"}]
            problem = one(zygote, folder / f"r{number}", model, stream, script, ending)
            with noting:
                tally.done += 1
                tally.calls += calls
                if problem:
                    tally.failures.append(f"fork {number}: {problem}")
                    print(tally.failures[-1], flush=True)
                if tally.done % 100 == 0:
                    tally.most_threads = max(tally.most_threads, len(os.listdir(f"/proc/{zygote.pid}/task")))
                    print(f"  {tally.done} forks, {len(tally.failures)} failures", flush=True)

    began = time.perf_counter()
    workers = [threading.Thread(target=work) for _ in range(at_once)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    tally.seconds = time.perf_counter() - began


def one(
    zygote: ZygoteProcess, folder: Path, model: str, stream: bool, script: Sequence[object], ending: signal.Signals
) -> str:
    runtime = None
    try:
        runtime = forked(zygote, folder)
        runtime.ready(60)
        turn(runtime, model, stream=stream, script=script)
    except Exception as error:  # noqa: BLE001 - whatever it is, this fork failed, and the next one is tried
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        if runtime is not None and runtime.pid:
            end(runtime, ending)
    return ""


def memory(pid: int) -> tuple[float, float]:
    """Mebibytes that no other process has, and all of it (USS, RSS)."""
    own = whole = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Private_Clean", "Private_Dirty"):
            own += int(rest.split()[0])
        elif name == "Rss":
            whole = int(rest.split()[0])
    return own / 1024, whole / 1024


def figures(zygote: ZygoteProcess, folder: Path, model: str, rounds: int) -> list[Row]:
    cold: list[float] = []
    places: dict[str, Callable[[Path], dict[str, Any]]] = {"": lambda _: {}}
    if (namespaces := namespaces_here(folder)) is not None:
        places[", in namespaces"] = lambda home: inside(namespaces, home)
    ready: dict[str, list[float]] = {name: [] for name in places}
    idle: dict[str, list[float]] = {name: [] for name in places}
    after: dict[str, list[float]] = {name: [] for name in places}
    for number in range(rounds):
        done = subprocess.run([sys.executable, "-I", "-c", COLD], env={}, check=True, capture_output=True, text=True)
        cold.append(float(done.stdout) * 1000)
        for turns in range(3):
            for name, place in places.items():
                home = folder / f"f{number}-{turns}-{len(name)}"
                fields = place(home)
                began = time.perf_counter()
                runtime = forked(zygote, home, **fields)
                try:
                    runtime.ready()
                    ready[name].append((time.perf_counter() - began) * 1000)
                    if turns == 0:
                        time.sleep(1)
                        idle[name].append(own(runtime.pid))
                        runtime.folder = Path("/workspace") if fields else home
                        turn(runtime, model, stream=bool(number % 2))
                        runtime.folder = home
                        time.sleep(1)
                        after[name].append(own(runtime.pid))
                finally:
                    end(runtime)
    whole = memory(zygote.pid)[1]
    base = statistics.median(cold)
    rows = [Row(f"fork to /ready{name}", base, statistics.median(ready[name]), "ms", 0.05) for name in places]
    rows += [Row(f"USS idle{name}", whole, statistics.median(idle[name]), "MiB", 0.15) for name in places]
    rows += [Row(f"USS after one turn{name}", whole, statistics.median(after[name]), "MiB", 0.25) for name in places]
    return rows


def namespaces_here(scratch: Path) -> Namespaces | None:
    interpreter = ask(sys.executable)
    readable = [*interpreter.folders, *interpreter.package]
    try:
        return probe(SYSTEM_PATH, readable=readable, hidden=[], scratch=scratch)
    except NamespacesUnavailable as exc:
        print(f"no namespaces here: {exc}")
        return None


def inside(namespaces: Namespaces, home: Path) -> dict[str, Any]:
    """What the zygote is asked for a runtime that sees nothing but its own folders."""
    parts = [home / name for name in ("workspace", "state", "temporary", "home")]
    for part in parts:
        part.mkdir(parents=True)
    steps = [list(step) for step in namespaces.steps(PrivateFolders(*parts))]
    environment = {
        "HOME": "/home/agent",
        "TMPDIR": "/tmp",  # noqa: S108 - the runtime's own
        "OH_CONVERSATIONS_PATH": "/state/conversations",
        "OH_PERSISTENCE_DIR": "/state/persistence",
        "OH_BASH_EVENTS_DIR": "/state/bash_events",
        "OH_WORKSPACE_PATH": "/workspace",
    }
    return {"view": {"hostname": HOSTNAME, "steps": steps}, "directory": "/state", "environment": environment}


def own(pid: int) -> float:
    """What the processes of one runtime have for themselves; in namespaces there is a small one beside the server."""
    return sum(memory(one)[0] for one in tree(pid))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7, help="of the figures; 0 leaves them out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, leave)
    port = free_port()
    model = subprocess.Popen([sys.executable, "-P", "-m", "orchestrator.demo.model_server", "--port", str(port)])
    tally = Tally(options.forks, options.seed)
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory(prefix="nestor-bench-") as name, zygote_at(Path(name) / "zygote") as zygote:
            folder, url = Path(name), f"http://127.0.0.1:{port}/v1"
            print(f"zygote: {zygote.about['modules']} modules, {zygote.about['threads']} thread", flush=True)
            if options.forks:
                storm(zygote, folder, url, tally, options.at_once)
                print(
                    f"{tally.forks} forks, seed {tally.seed}: {tally.calls} model calls in {tally.seconds:.0f} s, "
                    f"{len(tally.failures)} failures, {tally.most_threads or 1} thread in the zygote"
                )
            if options.rounds:
                rows = figures(zygote, folder, url, options.rounds)
    finally:
        model.terminate()
        model.wait()
    print(f"{'':36}{'base':>10}{'runtime':>10}     {'ratio':>8}{'target':>8}   (base: a cold import; the zygote's RSS)")
    for row in rows:
        mark = "*" if row.ratio > row.target else ""
        print(f"{row.name:36}{row.base:10.1f}{row.value:10.1f} {row.unit:4}{row.ratio:8.3f}{row.target:8.2f} {mark}")
    if options.json is not None:
        found = {"forks": asdict(tally), "rows": [{**asdict(row), "ratio": row.ratio} for row in rows]}
        options.json.write_text(json.dumps(found, indent=1))
    return int(bool(tally.failures) or any(row.ratio > row.target for row in rows))


if __name__ == "__main__":
    sys.exit(main())
