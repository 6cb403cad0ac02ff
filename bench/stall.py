"""How long requests wait while the model library is imported beside them, after the first message.

    python bench/stall.py [--rounds 3]

One client asks /health again and again, every three milliseconds: for a while before the first message, and from
then on until the process rests. `bench/runtime.py` has this as its row `stall`.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass

from listeners import work_folder
from rows import MESSAGE
from servers import Client, Server, ours, serving

_PAUSE = 0.003
_AT_REST = 0.1  #: seconds with hardly any use of the processor beyond our own requests, when it is over


@dataclass(frozen=True)
class Waits:
    """Milliseconds of each request."""

    before: list[float]
    during: list[float]
    seconds: float  #: how long the import took


def waits(server: Server) -> Waits:
    """Of one server that has no conversation yet."""
    client = Client(server)
    asked(client, 0.5)
    before = asked(client, 2)
    body = {
        "agent": {"kind": "Agent", "llm": {"model": "openai/x", "api_key": "k", "usage_id": "agent"}, "tools": []},
        "workspace": {"kind": "LocalWorkspace", "working_dir": work_folder(server, "stall")},
    }
    id = client.json("POST", "/api/conversations", body)["id"]
    client.call("POST", f"/api/conversations/{id}/events", MESSAGE)
    during: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < 60:
        used, at = server.cpu(), time.perf_counter()
        piece = asked(client, 0.2)
        if len(piece) > 10 and (server.cpu() - used) / (time.perf_counter() - at) < _AT_REST * 2:
            break
        during += piece
    client.close()
    return Waits(before, during, time.perf_counter() - began)


def asked(client: Client, seconds: float) -> list[float]:
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        client.call("GET", "/health")
        found.append((time.perf_counter() - began) * 1000)
        time.sleep(_PAUSE)
    return found


def percentile(found: list[float], part: float) -> float:
    return sorted(found)[min(len(found) - 1, int(len(found) * part))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    before: list[float] = []
    during: list[float] = []
    seconds: list[float] = []
    for _ in range(parser.parse_args().rounds):
        with serving(ours()) as server:
            found = waits(server)
        before += found.before
        during += found.during
        seconds.append(found.seconds)
    for name, times in (("before", before), ("during the import", during)):
        said = " ".join(f"p{part * 100:.0f} {percentile(times, part):.2f}" for part in (0.5, 0.9, 0.99))
        print(f"{name}: {len(times)} requests, ms: {said} max {max(times):.2f}")
    print(f"the import: {statistics.median(seconds):.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
