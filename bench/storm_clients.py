"""The other processes of `bench/storm.py`: a runtime that storms, a client that reads, and a server that only refuses.

    python bench/storm_clients.py PROCESSORS storm URL KEY CONVERSATION CONNECTIONS EVENTS
    python bench/storm_clients.py PROCESSORS others PORT PATH KEY SECONDS
    python bench/storm_clients.py PROCESSORS refuse

Each runs on the processors that it is told first (as 0,1; - for any), before it imports anything that takes time.
"""

import os
import sys

if __name__ == "__main__" and sys.argv[1] != "-":
    os.sched_setaffinity(0, [int(one) for one in sys.argv[1].split(",")])

import asyncio
import json
import time
from collections import Counter
from urllib.parse import urlsplit

_EVENT = {"id": "e", "timestamp": "2026-01-01T00:00:00", "source": "agent", "kind": "MessageEvent"}
_FAR = (
    10**9
)  #: no log is so long: all that such a batch holds is looked at, none is kept, and the runtime's log is read


async def storm(url: str, key: str, conversation: str, connections: int, events: int) -> None:
    """Until killed; each second a line of how many answers of each status came. It takes only what time of a processor
    nobody else wants: a hostile runtime's own work is no part of what is measured."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    told: Counter[str] = Counter()
    there = urlsplit(url)
    body = json.dumps([_EVENT] * events).encode()
    numbers = f"X-Nestor-Sequence-First: {_FAR}\r\nX-Nestor-Sequence-Last: {_FAR + events - 1}\r\n"
    head = (
        f"POST {there.path}/events/{conversation} HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {key}\r\n"
        f"{numbers}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
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
                    await reader.readexactly(_length(answer))
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
        await reader.readexactly(_length(answer))
        times.append((time.monotonic() - began) * 1000)
        assert answer[9:12] == b"200", answer
        await asyncio.sleep(0.005)
    sys.stdout.write(json.dumps(times))


async def refuse() -> None:
    """Until killed; prints its port. The turnstile as shipped around nothing: who knocks is refused as by the
    orchestrator, which has no part in it."""
    import socket

    import uvicorn
    from starlette.responses import Response

    from orchestrator.api.turnstile import Turnstile

    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    app = Turnstile(Response(status_code=401))
    await uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")).serve([listener])


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)


def main() -> None:
    match sys.argv[2:]:
        case ["storm", url, key, conversation, connections, events]:
            asyncio.run(storm(url, key, conversation, int(connections), int(events)))
        case ["others", port, path, key, seconds]:
            asyncio.run(others(int(port), path, key, float(seconds)))
        case ["refuse"]:
            asyncio.run(refuse())


if __name__ == "__main__":
    main()
