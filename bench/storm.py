"""What others notice of a runtime that tells the orchestrator things as fast as it can.

    python bench/storm.py [--seconds 5] [--rounds 3] [--connections 32]

An orchestrator with the fake driver in this process (API and runtime-facing listener, as shipped, on one loop), a
client of another tenant that reads its conversation in a process of its own, and a hostile runtime in a third one. It
knows its key, and posts batches; or it does not. Rounds with a storm alternate with quiet ones. Told are p50 and p95 of
the other client's requests, and what became of the storm's. A missed limit makes the exit status 1.
"""

import argparse
import asyncio
import json
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import uvicorn
import uvloop
from population import Site, furnish, open_site

from orchestrator.api import runtime_facing
from orchestrator.domain.ids import ConversationId

LIMIT = 1.2  #: p95 of others beside a storm, by theirs without one
_EVENT = {"id": "e", "timestamp": "2026-01-01T00:00:00", "source": "agent", "kind": "MessageEvent"}


async def storm(url: str, key: str, conversation: str, connections: int) -> None:
    """Until killed; each second a line of how many answers of each status came."""
    told: Counter[str] = Counter()
    there = urlsplit(url)
    body = json.dumps([_EVENT] * 20).encode()
    head = (
        f"POST {there.path}/events/{conversation} HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    text = head.encode() + body

    async def one() -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection(there.hostname, there.port)
                while True:
                    writer.write(text)
                    answer = await reader.readuntil(b"\r\n\r\n")
                    told[answer[9:12].decode()] += 1
                    length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
                    await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError):
                told["cut"] += 1

    tasks = [asyncio.create_task(one()) for _ in range(connections)]
    while tasks:
        await asyncio.sleep(1)
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


async def others(port: int, path: str, key: str, seconds: float) -> None:
    """A client of another tenant, one request after the other; prints their times in ms."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    text = f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        writer.write(text)
        answer = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(answer.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))
        times.append((time.monotonic() - began) * 1000)
        assert answer[9:12] == b"200", answer
        await asyncio.sleep(0.005)
    sys.stdout.write(json.dumps(times))


@asynccontextmanager
async def stormed(command: list[str] | None) -> AsyncIterator[Counter[str]]:
    """While that runs; afterwards its last words are in what it gave."""
    told: Counter[str] = Counter()
    if command is None:
        yield told
        return
    async with await anyio.open_process(command, stderr=None) as child:
        yield told
        child.kill()
        assert child.stdout is not None
        lines = b"".join([part async for part in child.stdout]).splitlines()
        told.update(json.loads(lines[-1]) if lines else {})


async def measured(port: int, path: str, key: str, seconds: float) -> list[float]:
    command = [sys.executable, __file__, "others", str(port), path, key, str(seconds)]
    done = await anyio.run_process(command)
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
    found: dict[str, list[float]] = {"quiet": [], "right key": [], "wrong key": []}
    answers: dict[str, Counter[str]] = {}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        tasks.start_soon(house.facing.serve, runtime_facing.build(house.intake))
        port = listener.getsockname()[1]
        for _ in range(options.rounds):
            for what in found:
                url = f"{house.facing.url}/runtimes/{record.runtime.id}"
                shown = key.open() if what == "right key" else "wrong"
                command = [sys.executable, __file__, "storm", url, shown, record.id, str(options.connections)]
                async with stormed(command if what != "quiet" else None) as answers[what]:
                    await anyio.sleep(1)
                    found[what] += await measured(port, path, victim.key, options.seconds)
        tasks.cancel_scope.cancel()
    p95 = {what: statistics.quantiles(times, n=20)[-1] for what, times in found.items()}
    missed = 0
    for what, times in found.items():
        ratio = p95[what] / p95["quiet"]
        missed += ratio > LIMIT
        told = dict(answers.get(what, {}))
        sys.stdout.write(
            f"{what:10} p50 {statistics.median(times):7.2f} ms   p95 {p95[what]:7.2f} ms   ratio {ratio:6.2f} "
            f"(<= {LIMIT}){'  MISSED' if ratio > LIMIT else ''}   {told}\n"
        )
    return 1 if missed else 0


def main() -> None:
    if sys.argv[1:2] == ["storm"]:
        asyncio.run(storm(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])))
    elif sys.argv[1:2] == ["others"]:
        asyncio.run(others(int(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5])))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--seconds", type=float, default=5)
        parser.add_argument("--rounds", type=int, default=3)
        parser.add_argument("--connections", type=int, default=32)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            sys.exit(runner.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
