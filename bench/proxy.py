"""What the embedded proxy costs, beside nginx, configurable-http-proxy and FastAPI with httpx, in one run.

    python bench/proxy.py [--seconds 3] [--rounds 3] [--first] [--chp node_modules/.bin/configurable-http-proxy]

Each proxy is a process on one processor, the load and the upstream are on another; rounds alternate between them, and
the median of the rounds counts. CPU is user and system time of the proxy's process. Every line says its limit, and one
that is missed makes the exit status 1. A peer that is not installed leaves its lines out, by name.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from proxy_servers import commands
from servers import free_port

TICK = os.sysconf("SC_CLK_TCK")
HERE = Path(__file__).parent
GIGABYTE_MEBIBYTES = 1000
FLAT_MEGABYTES = 24.0
Figures = dict[str, dict[str, float]]  #: proxy -> what was measured of it


def pinned(command: list[str], processor: int) -> list[str]:
    return ["taskset", "-c", str(processor), *command] if shutil.which("taskset") and os.cpu_count() != 1 else command


def ahead_of_others() -> None:
    """From now on this process, and all that it starts, runs before what has no such rank (SCHED_RR): rates that are
    told on a busy machine are those of the proxies. Raises PermissionError."""
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


@contextlib.contextmanager
def running(command: list[str], port: int, processor: int) -> Iterator[int]:
    process = subprocess.Popen(pinned(command, processor))
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def load(name: str, port: int, *numbers: float) -> dict[str, float]:
    command = [sys.executable, str(HERE / "proxy_load.py"), name, str(port), *map(str, numbers)]
    done = subprocess.run(pinned(command, 0), check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


@contextlib.contextmanager
def held(name: str, port: int, count: int) -> Iterator[None]:
    command = [sys.executable, str(HERE / "proxy_load.py"), name, str(port), str(count)]
    with subprocess.Popen(pinned(command, 0), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.communicate()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid: int, field: str = "VmRSS") -> float:
    """In megabytes: what is resident now, or (`VmHWM`) was at most since `forget_peak`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1000


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def loaded(pid: int, name: str, port: int, seconds: float, connections: int) -> tuple[dict[str, float], float]:
    """What the load says, and the proxy's CPU microseconds for one of its requests."""
    before = cpu_seconds(pid)
    told = load(name, port, seconds, connections)
    return told, (cpu_seconds(pid) - before) / told["count"] * 1e6


def one_round(name: str, port: int, pid: int, behind: int, seconds: float) -> dict[str, float]:
    load("small", port, 0.3, 4)
    small, found = loaded(pid, "small", port, seconds, 32), {}
    found |= {"small_cpu": small[1], "small_rate": small[0]["rate"]}
    direct = load("small", behind, 0.5, 1)["p50_ms"]
    found["added_p50"] = load("small", port, seconds / 2, 1)["p50_ms"] - direct
    if name == "FastAPI + httpx":
        return found
    for what in ("fresh", "strange"):
        found[f"{what}_cpu"] = loaded(pid, what, port, seconds, 32)[1]
    frames = loaded(pid, "socket", port, seconds, 32)
    found |= {"socket_cpu": frames[1], "socket_rate": frames[0]["rate"]}
    for what in ("big", "push"):
        bodies = loaded(pid, what, port, seconds, 4)
        found |= {f"{what}_cpu": bodies[1], f"{what}_rate": bodies[0]["rate"]}
    return found


def idle_sockets(pid: int, port: int) -> float:
    before = memory(pid)
    with held("idle", port, 1000):
        return memory(pid) - before


def endurance(pid: int, port: int) -> dict[str, float]:
    """Of the front alone: large bodies, slow clients, cut connections."""
    found = {}
    for way in ("up", "down"):
        before = memory(pid)
        forget_peak(pid)
        load(way, port, GIGABYTE_MEBIBYTES)
        found[f"gigabyte_{way}"] = memory(pid, "VmHWM") - before
    before, open_before = memory(pid), descriptors(pid)
    with held("slow", port, 100):
        found["slow_memory"] = (memory(pid) - before) / 100
        found["served_meanwhile"] = load("small", port, 1, 4)["p50_ms"]
    load("cut", port, 5000)  # once for the allocator to know the load, once to see whether it grows
    settle(pid, open_before)
    before = memory(pid)
    load("cut", port, 5000)
    settle(pid, open_before)
    return found | {"cut_memory": memory(pid) - before, "cut_descriptors": descriptors(pid) - open_before}


def workers(command: list[str], port: int, seconds: float) -> float:
    """CPU of a small request through two workers of one port, each on a processor of its own and both at once, by that
    through one. The load is on both processors too, so no rate says anything here: what a request costs does, since
    nothing else is shared. The inverse is how it scales, 1 is linear."""

    def cost(pids: list[int], processors: tuple[int, ...]) -> float:
        load("small", port, 0.3, 32)
        before = sum(map(cpu_seconds, pids))
        me = [sys.executable, str(HERE / "proxy_load.py"), "small", str(port), str(seconds), "16"]
        asking = [subprocess.Popen(pinned(me, one), stdout=subprocess.PIPE, text=True) for one in processors]
        count = sum(json.loads(one.communicate()[0])["count"] for one in asking)
        return (sum(map(cpu_seconds, pids)) - before) / count

    with running(command, port, 1) as first:
        alone = cost([first], (0, 0))
        with running(command, port, 0) as second:
            time.sleep(2)  # the port answers already, by the first one
            used = cpu_seconds(second)
            together = cost([first, second], (0, 1))
            assert cpu_seconds(second) > used, "the second worker got no connection"
    return together / alone


def settle(pid: int, descriptors_before: int) -> None:
    deadline = time.monotonic() + 10
    while descriptors(pid) > descriptors_before and time.monotonic() < deadline:
        time.sleep(0.1)


def measure(arguments: argparse.Namespace) -> Figures:
    rounds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    behind = free_port()
    me = [sys.executable, str(HERE / "proxy_servers.py"), "upstream", str(behind)]
    with tempfile.TemporaryDirectory() as folder, running(me, behind, 0):
        proxies = commands(Path(folder), behind, arguments.chp)
        for number in range(arguments.rounds):
            for name, command in proxies.items():
                port = free_port()
                with running(command(port), port, 1) as pid:
                    found = one_round(name, port, pid, behind, arguments.seconds)
                    if name in ("front", "nginx") and number == 0:
                        found["idle"] = idle_sockets(pid, port)
                    if name == "front" and number == 0:
                        found |= endurance(pid, port)
                if name == "front":
                    found["workers"] = workers(command(port := free_port()), port, arguments.seconds)
                for what, value in found.items():
                    rounds[name][what].append(value)
    return {name: {what: statistics.median(values) for what, values in all_.items()} for name, all_ in rounds.items()}


def lines(found: Figures) -> Iterator[tuple[str, float, str, float | None, float, bool]]:
    """What, ours, against whom, theirs, the limit of the ratio (or of ours), and whether the limit is a least."""
    for what, field, peer, limit, least in (
        ("CPU us per small request", "small_cpu", "nginx", 2.5, False),
        ("CPU us per small request", "small_cpu", "FastAPI + httpx", 0.03, False),
        ("CPU us per small request", "small_cpu", "configurable-http-proxy", 0.25, False),
        ("the same, another id each time", "fresh_cpu", "nginx", 2.2, False),  # this and the next: our own limits
        ("the same, no head twice", "strange_cpu", "nginx", 3.5, False),
        ("small requests a second, one core", "small_rate", "nginx", 0.60, True),
        ("small requests a second, one core", "small_rate", "configurable-http-proxy", 3.0, True),
        ("WebSocket messages a second", "socket_rate", "nginx", 0.9, True),
        ("CPU us per WebSocket message", "socket_cpu", "nginx", 1.3, False),
        ("1 MiB bodies down a second", "big_rate", "nginx", 1.5, True),
        ("1 MiB bodies up a second", "push_rate", "nginx", 1.5, True),
        ("CPU us per MiB down", "big_cpu", "nginx", 1 / 1.5, False),
        ("CPU us per MiB up", "push_cpu", "nginx", 1 / 1.5, False),
        ("added p50 at concurrency 1, ms", "added_p50", "nginx", 3.0, False),
        ("memory of 1,000 idle sockets, MB", "idle", "nginx", 0.5, False),
    ):
        if peer in found:
            yield what, found["front"][field], peer, found[peer][field], limit, least
    for what, field, most in (
        ("CPU of a request, two workers by one", "workers", 1.25),
        ("1 GB up, memory added, MB", "gigabyte_up", FLAT_MEGABYTES),
        ("1 GB down, memory added, MB", "gigabyte_down", FLAT_MEGABYTES),
        ("memory of a slow reader or writer, MB", "slow_memory", 1.0),
        ("p50 of others beside 100 slow ones, ms", "served_meanwhile", 50.0),
        ("memory after 5,000 cut connections, MB", "cut_memory", 4.0),
        ("descriptors after 5,000 cut connections", "cut_descriptors", 0.0),
    ):
        yield what, found["front"][field], "", None, most, False


def report(found: Figures) -> bool:
    """Print the table; whether every limit holds."""
    good = True
    print(f"{'':42}{'ours':>10}{'theirs':>10}{'ratio':>8}  {'limit':12}")
    for what, ours, peer, theirs, limit, least in lines(found):
        value = ours if theirs is None else ours / theirs
        holds = value >= limit if least else value <= limit
        good &= holds
        ratio, other = ("", "") if theirs is None else (f"{value:.3f}", f"{theirs:.2f}")
        bound = f"{'>=' if least else '<='} {limit:.3g}"
        print(f"{what:42}{ours:10.2f}{other:>10}{ratio:>8}  {bound:12}{'' if holds else 'MISSED  '}{peer}")
    for peer in ("nginx", "configurable-http-proxy"):
        if peer not in found:
            print(f"not compared: {peer} is not installed" + (" (--chp)" if peer != "nginx" else ""))
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chp", default="", help="the script of configurable-http-proxy, which node runs")
    parser.add_argument("--first", action="store_true", help="ahead of the machine's other work; needs the right to")
    arguments = parser.parse_args()
    if arguments.first:
        ahead_of_others()
    return 0 if report(measure(arguments)) else 1


if __name__ == "__main__":
    sys.exit(main())
