"""What others notice of a runtime that tells the orchestrator things as fast as it can.

    python bench/storm.py [--seconds 2] [--rounds 12] [--connections 32]

An orchestrator with the fake driver in this process (API and runtime-facing listener, as shipped, on one loop, and the
fake runtime as well), a client of another tenant that reads its conversation in a process of its own, and a hostile
runtime in a third one. It knows its key, and posts small batches or the largest; or it does not know it; or, as a
control, it storms a server in a process of its own, which refuses as the orchestrator does: what is noticed of that one
is the machine's doing, not the orchestrator's. Rounds of all kinds take turns, so that what else the machine does meets
all of them. Each storm is some seconds old when its measuring begins: what a runtime may do at once is spent by then.
Told are the other client's p50 and p95 (the middle one of the rounds'), the middle of its p95 by the quiet one of the
same round with the quarters on both sides of it, how long the orchestrator's thread worked in a second, and what became
of the storm's posts. That middle is judged: from one minute to the next a machine may move by more than the limit
allows, and from one round to its neighbour it moves less. A missed limit makes the exit status 1.

Where there are two processors or more, the orchestrator has the first one for itself, and all others have the rest; the
storm takes what nobody else wants of it (SCHED_IDLE). On a machine that does other things at the same time the ratios
say nothing, unless this goes before those: `chrt -r 10 python bench/storm.py`, as root.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path

import anyio
import uvicorn
import uvloop
from anyio.streams.buffered import BufferedByteReceiveStream
from furnished import Site, furnish, open_site

from orchestrator.api import runtime_facing
from orchestrator.domain.ids import ConversationId

LIMIT = 1.2  #: p95 of others beside a storm, by theirs without one
_STORMS = {"wrong key": (False, 20), "right key": (True, 20), "all it holds": (True, 2000)}  #: its key, events each
_HELPERS = str(Path(__file__).with_name("storm_clients.py"))
_SETTLING_SECONDS = 2  # lines of the storm, which tells one each second


def _helper(*arguments: str) -> list[str]:
    """Of another process, on processors that this one leaves alone."""
    rest = sorted(_ALLOWED)[1:]
    return [sys.executable, _HELPERS, ",".join(map(str, rest)) or "-", *arguments]


_ALLOWED = os.sched_getaffinity(0)


@asynccontextmanager
async def stormed(command: list[str] | None, told: Counter[str]) -> AsyncIterator[None]:
    """While that runs; afterwards its last words are added to `told`."""
    if command is None:
        await anyio.sleep(_SETTLING_SECONDS)
        yield
        return
    async with await anyio.open_process(command, stderr=None) as child:
        assert child.stdout is not None
        lines = BufferedByteReceiveStream(child.stdout)
        for _ in range(_SETTLING_SECONDS):
            began = json.loads(await lines.receive_until(b"\n", 1000))
        yield
        child.kill()
        rest = b"".join([part async for part in lines]).splitlines()
        ended = Counter(json.loads(rest[-1]) if rest else {})
        ended.subtract(began)
        told.update({status: count for status, count in ended.items() if count})


async def measured(port: int, path: str, key: str, seconds: float) -> list[float]:
    done = await anyio.run_process(_helper("others", str(port), path, key, str(seconds)))
    return [float(one) for one in json.loads(done.stdout)]


async def run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        async with open_site(Path(folder) / "site") as site:
            await furnish(site, tenants=2, live=4)
            return await compared(site, options)


async def compared(site: Site, options: argparse.Namespace) -> int:
    house, hostile, victim = site.house, site.owners[0], site.owners[1]
    record = await house.store.conversations.get(hostile.tenant, ConversationId(site.ready[0]))
    assert record is not None
    assert record.runtime is not None
    assert house.facing is not None
    key = await house.services.keys.inner_key(record)
    assert key is not None
    page = await site.call("GET", "/api/v2/conversations?limit=1", victim.key)
    path = f"/api/v2/conversations/{page['items'][0]['id']}"
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(site.app, log_config=None, access_log=False, lifespan="off"))
    here = f"{house.facing.url}/runtimes/{record.runtime.id}"
    found: dict[str, list[list[float]]] = {what: [] for what in ("quiet", "elsewhere", *_STORMS)}
    busy = dict.fromkeys(found, 0.0)
    answers: dict[str, Counter[str]] = {what: Counter() for what in found}
    async with await anyio.open_process(_helper("refuse"), stderr=None) as refuser, anyio.create_task_group() as tasks:
        assert refuser.stdout is not None
        elsewhere = f"http://127.0.0.1:{int(await refuser.stdout.receive())}/runtimes/{record.runtime.id}"
        if len(_ALLOWED) > 1:
            os.sched_setaffinity(0, {min(_ALLOWED)})
        tasks.start_soon(server.serve, [listener])
        tasks.start_soon(house.facing.serve, runtime_facing.build(house.intake))
        port = listener.getsockname()[1]
        for _ in range(options.rounds):
            for what in found:
                shown, events = _STORMS.get(what, (False, 20))
                posts = [elsewhere if what == "elsewhere" else here, key.open() if shown else "wrong", record.id]
                command = _helper("storm", *posts, str(options.connections), str(events))
                async with stormed(command if what != "quiet" else None, answers[what]):
                    worked = time.thread_time()
                    found[what].append(await measured(port, path, victim.key, options.seconds))
                    busy[what] += time.thread_time() - worked
        tasks.cancel_scope.cancel()
        refuser.kill()
    return _told(found, busy, answers, options)


def _told(
    found: dict[str, list[list[float]]],
    busy: dict[str, float],
    answers: dict[str, Counter[str]],
    options: argparse.Namespace,
) -> int:
    p95 = {what: [statistics.quantiles(one, n=20)[-1] for one in rounds] for what, rounds in found.items()}
    missed = 0
    for what, rounds in found.items():
        times = sorted(chain.from_iterable(rounds))
        ratios = [mine / quiet for mine, quiet in zip(p95[what], p95["quiet"], strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        judged = what in _STORMS
        missed += judged and ratio > LIMIT
        sys.stdout.write(
            f"{what:12} p50 {statistics.median(times):6.2f} ms   p95 {statistics.median(p95[what]):6.2f} ms   "
            f"ratio {ratio:5.2f} ({low:.2f} to {high:.2f}) {f'(<= {LIMIT})' if judged else '(control)'}"
            f"{'  MISSED' if judged and ratio > LIMIT else ''}   "
            f"{busy[what] / options.seconds / options.rounds * 1000:4.0f} ms/s   {dict(answers[what])}\n"
        )
    return 1 if missed else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--connections", type=int, default=32)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
