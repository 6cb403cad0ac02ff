"""What a runtime costs beside the stock agent server of the same release: both in one run, in turns, medians.

    python bench/runtime.py [--peer PYTHON] [--rounds 5] [--rows boot,request,...] [--json FILE]

PYTHON is an interpreter that has `openhands-agent-server` (scripts/install --sdk makes `.venv-sdk`). Trust the ratios,
not the times: the machine does other things too. Each row says its ratio, what it may be at most and what was aimed at;
a MISS ends the program with status 1. In the rows about growth "peer" is ours when small. What only counts is told by
`bench/kills.py` and `bench/no_egress.py`.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from listeners import event_to_frame
from rows import MESSAGE, Row, create, median, pair, quiet, spent, wakings
from servers import Client, Kind, Server, free_port, leave, ours, peer, serving
from stall import percentile, waits

HERE = Path(__file__).parent
LEASE_RENEWED_SECONDS = 15  # a third of what OH_LEASE_TTL_SECONDS is by default


def boot(kinds: Sequence[Kind], rounds: int) -> Iterator[Row]:
    walls: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    cpus: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    idle: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            server = Server(kind)
            try:
                wall, cpu = server.start()
                walls[kind.name].append(wall * 1000)
                cpus[kind.name].append(cpu * 1000)
                time.sleep(2)  # what goes on after /ready belongs to the idle state
                idle[kind.name].append(server.pss())
            finally:
                server.stop()
    yield pair("start to /ready, wall", walls, "ms", 0.20, 0.13)
    yield pair("start to /ready, CPU", cpus, "ms", 0.20, 0.13)
    yield pair("memory idle (PSS)", idle, "MiB", 0.20, 0.15)


def requests(kinds: Sequence[Kind], rounds: int) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        servers = {kind.name: stack.enter_context(serving(kind)) for kind in kinds}
        clients = {name: Client(server) for name, server in servers.items()}
        ids = {name: create(clients[name], servers[name], "requests") for name in servers}
        for name, id in ids.items():  # ours imports the model library now, once: `stall` has what that costs
            clients[name].call("POST", f"/api/conversations/{id}/events", MESSAGE)
        quiet(servers.values())
        rows: list[tuple[str, int, float, float, Callable[[str], tuple[str, str, Any]]]] = [
            ("CPU of GET /health", 300, 0.20, 0.10, lambda name: ("GET", "/health", None)),
            ("CPU of GET /api/settings", 200, 0.10, 0.05, lambda name: ("GET", "/api/settings", None)),
            ("CPU of GET conversation", 200, 0.15, 0.10, lambda name: ("GET", f"/api/conversations/{ids[name]}", None)),
            (
                "CPU of POST event",
                100,
                0.15,
                0.08,
                lambda name: ("POST", f"/api/conversations/{ids[name]}/events", MESSAGE),
            ),
        ]
        for title, count, target, aim, request in rows:
            found: dict[str, list[float]] = {name: [] for name in servers}
            waits: dict[str, list[float]] = {name: [] for name in servers}
            for turn in range(rounds + 1):
                for name, server in servers.items():
                    method, path, body = request(name)
                    clients[name].connect()
                    began = time.perf_counter()
                    cost = spent(server, count, lambda: clients[name].call(method, path, body))  # noqa: B023
                    if turn:  # the first one is the warm-up
                        found[name].append(cost)
                        waits[name].append((time.perf_counter() - began) / count * 1000)
            walls = " / ".join(f"{statistics.median(waits[name]):.2f}" for name in servers)
            yield pair(title, found, "us", target, aim, note=f"ms a request: {walls}")
        yield from idle(servers)


def idle(servers: dict[str, Server], seconds: float = 40) -> Iterator[Row]:
    """What goes on when nothing does, with one conversation in memory: its lease is renewed every fifteen seconds, and
    for nothing else may a thread wake up. Most of that time goes to what the processor's caches no longer have."""
    for server in servers.values():
        quiet([server], 30)  # what was posted is written a second later
    time.sleep(6)  # a connection without requests is closed after five seconds
    before = {name: (wakings(server), server.cpu()) for name, server in servers.items()}
    time.sleep(seconds)
    after = {name: (wakings(server), server.cpu()) for name, server in servers.items()}
    woken = {name: after[name][0] - before[name][0] for name in servers}
    used = {name: (after[name][1] - before[name][1]) * 1000 for name in servers}
    note = f"beside as many renewals as there can be; of the peer {woken['peer']}"
    renewals = seconds // LEASE_RENEWED_SECONDS + 1
    yield Row(f"wakings in {seconds:.0f} s idle", renewals, woken["ours"], "", 1.0, 1.0, note)
    yield Row(f"CPU of {seconds:.0f} s idle", used["peer"], used["ours"], "ms", 0.10, 0.05)


def frames(kinds: Sequence[Kind], rounds: int) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        servers = {kind.name: stack.enter_context(serving(kind)) for kind in kinds}
        clients = {name: Client(server) for name, server in servers.items()}
        for name, server in servers.items():
            create(clients[name], server, "first")
        quiet(servers.values())
        for sockets in (1, 10, 200):
            found: dict[str, list[float]] = {name: [] for name in servers}
            told: dict[str, tuple[int, int]] = dict.fromkeys(servers, (sockets, 0))
            for turn in range(rounds + 1):
                for name, server in servers.items():
                    clients[name].connect()
                    id = create(clients[name], server, f"frames-{sockets}-{turn}")
                    times, kept, lost = event_to_frame(server, id, sockets=sockets, messages=20)
                    told[name] = (min(kept, told[name][0]), lost + told[name][1])
                    if turn:
                        found[name] += [seconds * 1000 for seconds in times]
            note = "served/lost " + " : ".join(f"{kept}/{lost}" for kept, lost in told.values())
            yield pair(f"event to frame, {sockets} listeners", found, "ms", 0.30, 0.1, note=note)


def growth(kinds: Sequence[Kind], rounds: int) -> Iterator[Row]:
    small: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    large: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    made: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    most = {"ours": 300, "peer": 100}  # the peer's list is 26 ms at 100 already; three hundred would take minutes
    with contextlib.ExitStack() as stack:
        servers = {kind.name: stack.enter_context(serving(kind)) for kind in kinds}
        for name, server in servers.items():
            client = Client(server)
            for number in range(10):
                create(client, server, f"c{number}")
            quiet([server])
            client.connect()
            path = "/api/conversations/search?limit=10"
            small[name] = [spent(server, 20, lambda: client.call("GET", path)) for _ in range(rounds + 1)][1:]  # noqa: B023
            # By tens, because the kernel counts ended children in hundredths of seconds.
            for first in range(10, most[name], 10):
                before = server.cpu()
                for number in range(first, first + 10):
                    create(client, server, f"c{number}")
                made[name].append((server.cpu() - before) * 100)
            quiet([server])  # as before the small one: records are written a second later
            client.connect()
            large[name] = [spent(server, 20, lambda: client.call("GET", path)) for _ in range(rounds + 1)][1:]  # noqa: B023
    yield pair("CPU of create conversation", made, "ms", 0.25, 0.1)
    yield pair("CPU of a list page of 10, of 10", small, "us", 0.25, 0.1)
    grown = {"peer": small["ours"], "ours": large["ours"]}
    note = f"peer, 100 against 10: {statistics.median(large['peer']) / statistics.median(small['peer']):.2f}"
    yield pair("the same page, ours, 300 against 10", grown, "us", 1.3, 1.1, note=note)


def log_pages(kinds: Sequence[Kind], rounds: int) -> Iterator[Row]:
    del kinds  # the peer cannot be filled in the time there is
    server = Server(ours())
    try:
        server.start()
        client = Client(server)
        others = [create(client, server, f"other-{number}") for number in range(8)]
        pairs = [{name: create(client, server, f"{name}-{number}") for name in ("peer", "ours")} for number in range(4)]
        ids = pairs[0]
        for pair_of in pairs:
            for _ in range(100):
                client.call("POST", f"/api/conversations/{pair_of['peer']}/events", MESSAGE)
        client.close()
        server.stop(remove=False)
        grown = [pair_of["ours"] for pair_of in pairs] + others[::2]  # what comes first after a start meets both kinds
        long = [server.folder / "conversations" / id.replace("-", "") for id in grown]
        subprocess.run([sys.executable, "-P", str(HERE / "long_log.py"), str(long[0]), "100000"], check=True)
        for folder in long[1:]:
            for file in long[0].glob("events.*"):
                shutil.copy(file, folder)
        server.start()  # takes the events up into the record, as after a crash
        opening: dict[str, list[float]] = {name: [] for name in ids}
        appending: dict[str, list[float]] = {name: [] for name in ids}
        for _ in range(rounds):
            server.stop(remove=False)
            server.start()
            client = Client(server)
            # The first message has the model library imported; what else only the first ones after a start pay, and the
            # first ones after the import, is paid by these.
            for some in (others[:2], others[2:]):
                for id in some:
                    client.call("GET", f"/api/conversations/{id}/events/search?limit=1")
                    client.call("POST", f"/api/conversations/{id}/events", MESSAGE)
                quiet([server])
                client.connect()
            for number, pair_of in enumerate(pairs):  # each of the two is first as often as the other
                for name in pair_of if number % 2 else reversed(pair_of):
                    path = f"/api/conversations/{pair_of[name]}/events"
                    opening[name].append(spent(server, 1, lambda: client.call("GET", f"{path}/search?limit=1")))  # noqa: B023
                    appending[name].append(spent(server, 1, lambda: client.call("POST", path, MESSAGE)))  # noqa: B023
        yield pair("opening, 100,000 against 100 events", opening, "us", 1.3, 1.1)
        yield pair("first POST event, 100,000 against 100", appending, "us", 1.3, 1.1)
        at = {
            name: client.json("GET", f"/api/conversations/{id}/events/search?limit=100&sort_order=TIMESTAMP_DESC")[
                "items"
            ][-1]["id"]
            for name, id in ids.items()
        }
        titles: list[tuple[str, Callable[[str], tuple[str, Any]]]] = [
            ("a page of 100", lambda name: (f"/events/search?limit=100&page_id={at[name]}", None)),
            ("the newest page", lambda name: ("/events/search?limit=100&sort_order=TIMESTAMP_DESC", None)),
            ("a count", lambda name: ("/events/count", None)),
            ("POST event", lambda name: ("/events", MESSAGE)),
        ]
        for title, request in titles:
            found: dict[str, list[float]] = {name: [] for name in ids}
            for turn in range(rounds * 2 + 1):
                for name, id in ids.items():
                    path, body = request(name)
                    method = "GET" if body is None else "POST"
                    cost = spent(server, 50, lambda: client.call(method, f"/api/conversations/{id}{path}", body))  # noqa: B023
                    if turn:
                        found[name].append(cost)
            yield pair(f"{title}, 100,000 against 100", found, "us", 1.3, 1.1)
    finally:
        server.stop()


def stall(kinds: Sequence[Kind], rounds: int) -> Iterator[Row]:
    del kinds  # the peer imports the library before it answers at all
    before: list[float] = []
    during: list[float] = []
    for _ in range(min(rounds, 3)):
        with serving(ours()) as server:
            found = waits(server)
        before += found.before
        during += found.during
    for part in (0.5, 0.99):
        name = f"/health during the import, p{part * 100:.0f}"
        note = f"beside before it; longest {max(during):.0f} ms"
        yield Row(name, percentile(before, part), percentile(during, part), "ms", math.inf, math.inf, note)


def turn(kinds: Sequence[Kind], rounds: int) -> Iterator[Row]:
    memory: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    firsts: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    port = free_port()
    model = subprocess.Popen([sys.executable, "-P", "-m", "orchestrator.demo.model_server", "--port", str(port)])
    try:
        for number in range(min(rounds, 3)):
            for kind in kinds:
                with serving(kind) as server:
                    client = Client(server)
                    id = create(client, server, f"turn-{number}", f"http://127.0.0.1:{port}/v1")
                    body = {**MESSAGE, "content": [{"type": "text", "text": 'SCRIPT:[{"text":"done"}]'}], "run": True}
                    began = time.perf_counter()
                    client.call("POST", f"/api/conversations/{id}/events", body)
                    until = time.monotonic() + 120
                    while (status := client.json("GET", f"/api/conversations/{id}")["execution_status"]) != "finished":
                        assert status in ("idle", "running"), status
                        assert time.monotonic() < until, "the turn did not end"
                        time.sleep(0.01)
                    firsts[kind.name].append((time.perf_counter() - began) * 1000)
                    time.sleep(2)
                    memory[kind.name].append(server.pss())
    finally:
        model.terminate()
        model.wait()
    yield pair("memory after one turn (PSS)", memory, "MiB", 0.70, 0.60)
    note = "ours imports the model library here, the peer before /ready"
    yield Row("first turn, wall", median(firsts, "peer"), median(firsts, "ours"), "ms", math.inf, math.inf, note)


ROWS = {
    "boot": boot,
    "request": requests,
    "frames": frames,
    "growth": growth,
    "log": log_pages,
    "turn": turn,
    "stall": stall,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peer", type=os.path.abspath, default=str(HERE.parent / ".venv-sdk/bin/python"), metavar="PYTHON"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, leave)
    kinds = [peer(options.peer), ours()]
    if not os.access(options.peer, os.X_OK):
        parser.error(f"{options.peer} is no interpreter: name one that has the peer with --peer")
    print(f"{'':40}{'peer':>10}{'ours':>10}  {'':4}{'ratio':>8}{'at most':>9}{'aim':>6}")
    rows: list[Row] = []
    for name in options.rows.split(","):
        for row in ROWS[name](kinds, options.rounds):
            rows.append(row)
            wanted = f"{row.target:9.2f}{row.aim:6.2f}" if row.verdict else " " * 15
            print(
                f"{row.name:40}{row.base:10.2f}{row.value:10.2f}  {row.unit:4}"
                f"{row.ratio:8.3f}{wanted}  {row.verdict:4} {row.note}",
                flush=True,
            )
    if options.json is not None:
        options.json.write_text(json.dumps([{**asdict(row), "ratio": row.ratio} for row in rows], indent=1))
    return int(any(row.verdict == "MISS" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
