"""What nginx as the data plane costs, beside plain nginx, in one run.

    python bench/data_plane.py [--seconds 3] [--rounds 3] [--first]

Plain nginx passes everything on to one runtime and asks nobody. The data plane checks a key, removes and adds headers,
and finds the runtime by the orchestrator's decision: asked each time, or kept for a quarter of a second. HAProxy looks
the runtime up in a map of a thousand and leaves the key to the runtime. Load and upstream are on one processor, the
proxy and whoever decides on the other; CPU counts both.
"""

import argparse
import asyncio
import hashlib
import shutil
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import uvloop
from proxy import ahead_of_others, cpu_seconds, load, running
from proxy_servers import KEY, RUNTIME, commands
from servers import free_port

Round = dict[str, float]


async def deciding(port: int, behind: int, cached: int) -> None:
    """nginx and whoever decides for it, as `nestor up --data-plane nginx` has them; without a store."""
    import socket

    from orchestrator.app.nginx_child import Nginx, claimed
    from orchestrator.app.nginx_plan import Plan
    from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
    from orchestrator.domain.secrets import SecretText
    from orchestrator.proxy import decision
    from orchestrator.proxy.cache import RouteCache
    from orchestrator.proxy.context import FrontContext
    from orchestrator.proxy.limits import FrontLimits
    from orchestrator.proxy.route import Found, Route

    hashed = hashlib.sha256(KEY.encode()).hexdigest()
    place = (TenantId("t"), ConversationId("c"), 1, "127.0.0.1", behind, hashed, SecretText("inner"))

    async def load_route(runtime: RuntimeId) -> Found:
        return Route(runtime, *place)

    used: set[tuple[str, str]] = set()
    cache = RouteCache(load_route)
    limits = FrontLimits(connections_per_runtime=20_000, connections_per_tenant=20_000)
    context = FrontContext(
        cache.resolve,
        lambda route: used.add((route.tenant, route.conversation)),
        cache.invalidate,
        known=cache.known,
        limits=limits,
    )
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as run:
        plan = Plan(Path(folder), Path(run), cached=bool(cached), workers=1, drain_seconds=1, limits=limits)
        async with claimed(plan):
            server = await decision.listen(context, str(plan.decision))
            nginx = Nginx(plan, socket.create_server(("127.0.0.1", port), backlog=4096))
            await nginx.start()
            ended = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
            try:
                await ended.wait()
            finally:
                server.close()
                await nginx.stop()


def haproxy_command(folder: Path, port: int, behind: int) -> list[str]:
    """`deploy/haproxy/haproxy.cfg` on a port, with a map of a thousand runtimes."""
    names = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(999)]
    table = folder / "runtimes.map"
    table.write_text("".join(f"{name} 127.0.0.1:{behind}\n" for name in [*names, RUNTIME]))
    template = Path(__file__).parents[1] / "deploy/haproxy/haproxy.cfg"
    config = folder / f"haproxy-{port}.cfg"
    config.write_text(template.read_text().replace("@listen@", f"127.0.0.1:{port}").replace("@map@", str(table)))
    return ["haproxy", "-f", str(config)]


def family(pid: int) -> list[int]:
    """The process and all that it has started."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*"):
            found += map(int, (task / "children").read_text().split())
    return found


def spent(pid: int) -> float:
    return sum(map(cpu_seconds, family(pid)))


def one_round(port: int, pid: int, seconds: float) -> Round:
    load("small", port, 0.5, 4)
    before = spent(pid)
    told = load("small", port, seconds, 32)
    found = {"cpu": (spent(pid) - before) / told["count"] * 1e6, "rate": told["rate"]}
    before = spent(pid)
    bodies = load("big", port, seconds, 4)
    return found | {
        "big_cpu": (spent(pid) - before) / bodies["count"] * 1e6,
        "big_rate": bodies["rate"],
        "p50": load("small", port, seconds / 2, 1)["p50_ms"],
    }


def planes(folder: Path, behind: int) -> dict[str, Callable[[int], list[str]]]:
    me = [sys.executable, __file__, "deciding"]
    found = {
        "nginx": commands(folder, behind, "")["nginx"],
        "asked each time": lambda port: [*me, str(port), str(behind), "0"],
        "kept for a moment": lambda port: [*me, str(port), str(behind), "1"],
    }
    if shutil.which("haproxy") and (Path(__file__).parents[1] / "deploy/haproxy").exists():
        found["HAProxy with a map"] = lambda port: haproxy_command(folder, port, behind)
    return found


LIMITS = {"asked each time": 4.0, "kept for a moment": 2.0, "HAProxy with a map": 1.3}


def measure(seconds: float, rounds: int) -> dict[str, Round]:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    behind = free_port()
    upstream = [sys.executable, str(Path(__file__).with_name("proxy_servers.py")), "upstream", str(behind)]
    with tempfile.TemporaryDirectory() as folder, running(upstream, behind, 0):
        for _ in range(rounds):
            for name, command in planes(Path(folder), behind).items():
                port = free_port()
                with running(command(port), port, 1) as pid:
                    for what, value in one_round(port, pid, seconds).items():
                        found[name][what].append(value)
    return {name: {what: statistics.median(values) for what, values in all_.items()} for name, all_ in found.items()}


def lines(found: dict[str, Round]) -> Iterator[tuple[str, bool]]:
    plain = found["nginx"]
    yield f"{'':24}{'CPU us':>8}{'x nginx':>9}{'limit':>7}{'req/s':>9}{'x':>6}{'p50 ms':>8}{'1 MiB/s':>9}{'x':>6}", True
    for name, one in found.items():
        ratio, limit = one["cpu"] / plain["cpu"], LIMITS.get(name)
        good = limit is None or ratio <= limit
        yield (
            (
                f"{name:24}{one['cpu']:8.1f}{ratio:9.2f}{f'{limit:g}' if limit else '':>7}{one['rate']:9.0f}"
                f"{one['rate'] / plain['rate']:6.2f}{one['p50']:8.3f}{one['big_rate']:9.0f}"
                f"{one['big_rate'] / plain['big_rate']:6.2f}{'' if good else '  MISSED'}"
            ),
            good,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--first", action="store_true", help="ahead of the machine's other work; needs the right to")
    arguments = parser.parse_args()
    if arguments.first:
        ahead_of_others()
    good = True
    for line, holds in lines(measure(arguments.seconds, arguments.rounds)):
        print(line)
        good &= holds
    return 0 if good else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["deciding"]:
        uvloop.run(deciding(*map(int, sys.argv[2:])))
    else:
        sys.exit(main())
