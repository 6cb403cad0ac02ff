"""Conversations in containers beside what the engine alone takes, and beside the stock agent server's image.

    .venv/bin/python bench/containers.py [--rounds 9] [--rows cold,stock,burst,cycles,memory] [--cycles 500]

All of it goes through one orchestrator with the docker driver as it comes (its own bridge, rules and forward proxy, no
warm pool), and is compared within this run:

    cold     POST to ready, with settings, a git token and a secret, beside `create`, `start` and the first byte of the
             same image in the same network, with volumes that exist: of a new conversation, whose volumes are made
             within, and of a stopped one, whose volumes exist as well. The engine alone is measured before and after
             each of ours, and the middle of the ratios to these two is judged; and, without a limit, beside the
             engine's own bridge without any volume (`engine_floor.py`)
    stock    the same beside a conversation with the stock agent server's image
    burst    32 at once: none may fail; starts a second beside the engine's best, and how far they are apart
    cycles   conversations made and deleted; what is left of containers, networks, volumes, rules and files
    memory   of one idle runtime (PSS of its processes) beside the stock agent server's

A ratio above its limit is a MISS, and so the program ends with status 1. It needs root, an engine with the images of
`scripts/images`, and for `stock` and `memory` the stock agent server's:
`docker build -f tests/docker/Dockerfile.stock -t nestor-test-stock requirements`. What a spare saves, and a wake, are
told by `warm.py --kinds containers`.
"""

import argparse
import math
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from docker.errors import ImageNotFound

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from engine_floor import Floor
from leftovers import Leftovers
from rows import Row, neighbours, pair
from servers import leave, tree
from support.containers import STOCK, inspect
from support.models import scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for

ENGINE = "unix:///var/run/docker.sock"
AT_ONCE = 32
SETTLE_SECONDS = 1.0
_TRIES = 4
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Place:
    """The orchestrator, a tenant's key, and the engine without it."""

    nestor: OrchestratorProcess
    http: httpx.Client
    floor: Floor
    rounds: int
    cycles: int

    def start(self, **body: Any) -> tuple[float, dict[str, Any]]:
        """Seconds from the POST to ready, and the record."""
        return self._started("/api/v2/conversations", body)

    def _started(self, path: str, body: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
        began = time.perf_counter()
        answer = self.http.post(f"{path}?wait=ready&timeout=120", json=body)
        took = time.perf_counter() - began
        if answer.status_code != 200:
            raise RuntimeError(f"a start failed: {answer.text}")
        record: dict[str, Any] = answer.json()
        if record["phase"] != "ready":
            raise RuntimeError(
                f"a start failed at {record.get('step')}: {record.get('reason')}: {record.get('message')}"
            )
        return took, record

    def stop(self, id: str) -> None:
        self.http.post(f"/api/v2/conversations/{id}/stop").raise_for_status()
        path = f"/api/v2/conversations/{id}"
        wait_for(lambda: self.http.get(path).json()["phase"] == "stopped", 60)
        time.sleep(SETTLE_SECONDS)

    def start_again(self, id: str) -> tuple[float, dict[str, Any]]:
        """As `start`, of one that is stopped: what it has on disk is there."""
        return self._started(f"/api/v2/conversations/{id}/start", {})

    def eventually(self, **body: Any) -> dict[str, Any]:
        """The record of a start where its time is no matter: on a busy machine the stock server takes longer than the
        minute that it is given, and is quicker when its files have been read."""
        for _ in range(_TRIES - 1):
            try:
                return self.start(**body)[1]
            except RuntimeError as exc:
                print(f"{exc}; once more", file=sys.stderr)
        return self.start(**body)[1]

    def delete(self, id: str) -> None:
        self.http.delete(f"/api/v2/conversations/{id}?purge=true").raise_for_status()
        wait_for(lambda: container(id) is None, 60)

    def stages(self, record: Mapping[str, Any]) -> Mapping[str, float]:
        """Seconds of each stage of the start."""
        path = f"/api/v2/operations/{record['operation']}"
        found = wait_for(lambda: (now := self.http.get(path).json())["state"] != "running" and now, 20)
        return {stage["name"]: stage["seconds"] for stage in found["stages"]}


def container(conversation: str) -> str | None:
    """The id of its container, if there is one."""
    filters = {"label": [f"io.nestor.conversation={conversation}"]}
    with Floor(ENGINE, "").client() as client:
        found = client.containers(all=True, filters=filters)
    return str(found[0]["Id"]) if found else None


def each(items: Iterable[T], work: Callable[[T], R], *, at_once: int) -> list[R]:
    """What `work` answers for each. The first failure is raised when those under way are over, without the others."""
    pool = ThreadPoolExecutor(at_once)
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)


def cold(place: Place) -> Iterator[Row]:
    keeper = place.start()[1]  # so that there is a network
    shown = inspect("container", container(keeper["id"]) or "")
    network = next(iter(shown["NetworkSettings"]["Networks"]))
    joined = place.floor.joined(
        network, [mount["Destination"] for mount in shown["Mounts"] if mount["Type"] == "volume"]
    )
    found: dict[str, list[float]] = {}
    stages: dict[str, dict[str, list[float]]] = {"new": {}, "again": {}}
    for turn in range(place.rounds + 1):
        took = {"alone": least(place.floor), "first": least(joined)}
        took["new"], record = place.start()
        told = {"new": place.stages(record)}
        took["second"] = least(joined)
        place.stop(record["id"])
        took["again"], record = place.start_again(record["id"])
        told["again"] = place.stages(record)
        place.delete(record["id"])
        time.sleep(SETTLE_SECONDS)
        took["third"] = least(joined)
        if turn:  # the first one is the warm-up
            for name, seconds in took.items():
                found.setdefault(name, []).append(seconds * 1000)
            for what, spent in told.items():
                for name, seconds in spent.items():
                    stages[what].setdefault(name, []).append(seconds * 1000)
    place.delete(keeper["id"])
    notes = {
        what: " ".join(f"{name} {statistics.median(ms):.0f}" for name, ms in spent.items())
        for what, spent in stages.items()
    }
    between = {"before": found["first"], "ours": found["new"], "after": found["second"]}
    yield neighbours("cold start, beside the engine alone", between, "ms", 1.10, 1.05, note=notes["new"])
    between = {"before": found["second"], "ours": found["again"], "after": found["third"]}
    yield neighbours("the same where its volumes exist", between, "ms", 1.10, 1.05, note=notes["again"])
    beside = {"peer": found["alone"], "ours": found["new"]}
    yield pair("the first beside its own bridge, no volume", beside, "ms", math.inf, math.inf)


def least(floor: Floor) -> float:
    """Seconds of the least start."""
    made = floor.start()
    floor.remove(made.reference)
    time.sleep(SETTLE_SECONDS)
    return made.answered


def stock(place: Place) -> Iterator[Row]:
    found: dict[str, list[float]] = {"peer": [], "ours": []}
    for turn in range(max(2, place.rounds // 2) + 1):
        for name, body in (("peer", {"image": STOCK}), ("ours", {})):
            took, record = place.start(**body)
            place.delete(record["id"])
            time.sleep(SETTLE_SECONDS)
            if turn:
                found[name].append(took * 1000)
    yield pair("cold start beside the stock image", found, "ms", 0.30, 0.22)


def burst(place: Place) -> Iterator[Row]:
    best: list[float] = []
    ours: list[float] = []
    spread: list[float] = []
    cores = os.cpu_count() or 2
    for _ in range(max(1, min(3, place.rounds // 3))):
        rates = []
        for at_once in (cores, 2 * cores, 4 * cores):
            seconds, made = place.floor.burst(AT_ONCE, at_once)
            rates.append(AT_ONCE / seconds)
            for one in made:
                place.floor.remove(one.reference)
            time.sleep(SETTLE_SECONDS)
        best.append(max(rates))
        began = time.perf_counter()
        started = each(range(AT_ONCE), lambda _: place.start(), at_once=AT_ONCE)  # raises when one failed
        ours.append(AT_ONCE / (time.perf_counter() - began))
        took = sorted(seconds for seconds, _ in started)
        spread.append(took[-1] / statistics.median(took))
        each(started, lambda one: place.delete(one[1]["id"]), at_once=4)
        time.sleep(2 * SETTLE_SECONDS)
    note = f"none of {AT_ONCE * len(ours)} failed; the limit is the inverse of 0.9"
    rates_of = {"peer": ours, "ours": best}  # higher is better, so the other way round
    yield pair(f"{AT_ONCE} at once: the engine's rate beside ours", rates_of, "1/s", 1 / 0.9, 1.0, note=note)
    yield Row(f"{AT_ONCE} at once: slowest beside median", 1.0, statistics.median(spread), "", 2.5, 2.0)


def cycles(place: Place) -> Iterator[Row]:
    _, first = place.start()
    labels = inspect("container", container(first["id"]) or "")["Config"]["Labels"]
    place.delete(first["id"])
    left = Leftovers(ENGINE, place.nestor.data_dir, labels["io.nestor.installation"])
    time.sleep(2 * SETTLE_SECONDS)
    before = left.counted()
    each(range(place.cycles), lambda _: place.delete(place.start()[1]["id"]), at_once=2)
    after = left.settled(before)
    told = ", ".join(f"{name} {count} then {after[name]}" for name, count in before.items())
    more = sum(max(0, after[name] - count) for name, count in before.items())
    yield Row(f"left of {place.cycles} conversations", 1.0, more, "", 0, 0, told)


def memory(place: Place) -> Iterator[Row]:
    found: dict[str, list[float]] = {"peer": [], "ours": []}
    for _ in range(max(1, min(3, place.rounds // 3))):
        for name, body in (("peer", {"image": STOCK}), ("ours", {})):
            record = place.eventually(**body)
            time.sleep(10)  # what it does after its start is over
            pid = int(inspect("container", container(record["id"]) or "")["State"]["Pid"])
            found[name].append(sum(map(pss, tree(pid))))
            place.delete(record["id"])
    yield pair("memory of an idle runtime (PSS)", found, "MiB", 0.20, 0.12)


def pss(pid: int) -> float:
    """Mebibytes; a page that others have too counts as its share."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0  # it has just ended
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


ROWS: Mapping[str, Callable[[Place], Iterator[Row]]] = {
    "cold": cold,
    "stock": stock,
    "burst": burst,
    "cycles": cycles,
    "memory": memory,
}


def wanting(image: str, rows: Sequence[str]) -> Mapping[str, str]:
    """Images that the engine lacks for these rows, and how each is made: none is missed after a quarter of an hour."""
    needed = {image: "scripts/images"}
    if {"stock", "memory"} & set(rows):
        needed[STOCK] = f"docker build -f tests/docker/Dockerfile.stock -t {STOCK} requirements"
    wanted = {}
    with Floor(ENGINE, "").client() as client:
        for name, how in needed.items():
            try:
                client.inspect_image(name)
            except ImageNotFound:
                wanted[name] = how
    return wanted


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="of each comparison (default %(default)s)")
    parser.add_argument("--cycles", type=int, default=500, help="conversations made and deleted (default %(default)s)")
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated (default: all)")
    parser.add_argument("--image", default="nestor-runtime:latest", help="of our runtimes (default %(default)s)")
    options = parser.parse_args(arguments)
    names = options.rows.split(",")
    if unknown := set(names) - set(ROWS):
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}")
    for image, how in wanting(options.image, names).items():
        parser.error(f"the engine has no image {image}: {how}")
    signal.signal(signal.SIGTERM, leave)
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nst-")))
        model = stack.enter_context(scripted_model())
        floor = Floor(ENGINE, options.image)
        stack.callback(floor.remove_all)
        told = {
            "NESTOR_EPHEMERAL": "1",
            "NESTOR_RUNTIME_IMAGE": options.image,
            "NESTOR_ALLOWED_IMAGES": STOCK,
            "NESTOR_LEASE_SECONDS": "30",
        }
        nestor = stack.enter_context(orchestrator_at(folder / "data", driver="docker", **told))
        stack.callback(floor.remove_all)  # before it ends: it keeps a network in which there is somebody else
        key = nestor.tenant("bench", model)
        nestor.call("PUT", "/api/v2/secrets/DEPLOY_KEY", key, json={"value": "a-secret"}, status=200)
        nestor.call("PUT", "/api/v2/git-providers/github", key, json={"token": "a-token"}, status=200)
        headers = {"Authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=AT_ONCE)
        http = httpx.Client(base_url=nestor.url, headers=headers, timeout=180, limits=limits, trust_env=False)
        place = Place(nestor, stack.enter_context(http), floor, options.rounds, options.cycles)
        print(f"{'':44}{'beside':>10}{'ours':>10}  {'':4}{'ratio':>8}{'at most':>9}{'aim':>6}")
        for name in names:
            for row in ROWS[name](place):
                rows.append(row)
                print(
                    f"{row.name:44}{row.base:10.2f}{row.value:10.2f}  {row.unit:4}{row.ratio:8.3f}"
                    f"{row.target:9.2f}{row.aim:6.2f}  {row.verdict:4} {row.note}",
                    flush=True,
                )
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    return int(any(row.verdict == "MISS" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
