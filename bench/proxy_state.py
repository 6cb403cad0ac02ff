"""What proxied requests ask of the state server, and how soon a route that is gone is refused everywhere.

    python bench/proxy_state.py [--requests 10000] [--withdrawals 5]

Two replicas on one state server, with real runtimes. Commands are counted by the server (INFO commandstats), once while
10,000 requests go over warm routes and once while nothing goes for as long; the difference is the requests'. Replicas
look around in bursts, so the fewest commands of several such windows are compared. Then
conversations are deleted and stopped on one replica while a client asks the other one without a rest: told is the
longest time from the accepted call to the first refusal. A missed limit makes the exit status 1.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
from redis import Redis
from redis.exceptions import RedisError

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.processes import OrchestratorProcess, wait_for

from orchestrator.state.embedded import find_server

COMMANDS, REFUSED_SECONDS = 10, 1.0
CONNECTIONS = 16
Origin = tuple[OrchestratorProcess, str, str]  #: a replica, a runtime, its session key


@contextmanager
def state_server(folder: Path) -> Iterator[str]:
    command = [str(find_server()), "--port", "0", "--unixsocket", str(folder / "s.sock"), "--dir", str(folder)]
    process = subprocess.Popen([*command, "--appendonly", "yes", "--logfile", str(folder / "redis.log")])

    def answers() -> bool:
        try:
            with Redis.from_url(f"unix://{folder}/s.sock") as client:
                return bool(client.ping())
        except RedisError:
            return False

    try:
        wait_for(answers, 30)
        yield f"unix://{folder}/s.sock"
    finally:
        process.terminate()
        process.wait()


def commands(client: "Redis[bytes]") -> int:
    stats = client.info("commandstats")
    return sum(one["calls"] for name, one in stats.items() if name not in ("cmdstat_info", "cmdstat_ping"))


async def ask(origin: Origin, count: int) -> None:
    """So many requests over a few connections that are kept."""
    replica, runtime, key = origin
    request = (
        f"GET /runtimes/{runtime}/server_info HTTP/1.1\r\nHost: h\r\nX-Session-API-Key: {key}\r\nAccept: */*\r\n\r\n"
    ).encode()

    async def one(times: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
        for _ in range(times):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r")[0]))
        writer.close()

    await asyncio.gather(*(one(count // CONNECTIONS) for _ in range(CONNECTIONS)))


def made(replica: OrchestratorProcess, key: str) -> tuple[str, Origin]:
    record = replica.call("POST", "/api/v2/conversations?wait=ready&timeout=90", key, json={}, status=200)
    return record["id"], (replica, record["runtime"]["id"], record["runtime"]["session_key"])


def counted(client: "Redis[bytes]", origin: Origin, requests: int) -> tuple[float, float, float]:
    """Commands with and without the requests, and the seconds that these took: the fewest of the windows."""
    busy, idle, lasted = [], [], []
    for _ in range(6):
        asyncio.run(ask(origin, CONNECTIONS))
        before, began = commands(client), time.monotonic()
        asyncio.run(ask(origin, requests))
        lasted.append(time.monotonic() - began)
        busy.append(commands(client) - before)
        time.sleep(2)  # the last activity is written
        before = commands(client)
        time.sleep(lasted[-1])
        idle.append(commands(client) - before)
    return min(busy), min(idle), statistics.median(lasted)


def refused_after(first: OrchestratorProcess, second: OrchestratorProcess, key: str, verb: str) -> float:
    """Seconds from the accepted call at one replica to the first refusal of the other."""
    id, (_, runtime, session) = made(first, key)
    url = f"{second.url}/runtimes/{runtime}/server_info"
    with httpx.Client(headers={"X-Session-API-Key": session}, trust_env=False, timeout=20) as client:
        assert client.get(url).status_code == 200
        if verb == "delete":
            first.call("DELETE", f"/api/v2/conversations/{id}", key)
        else:
            first.call("POST", f"/api/v2/conversations/{id}/{verb}", key, status=202)
        began = time.monotonic()
        with suppress(httpx.TransportError):  # a request under way is cut
            while client.get(url).status_code == 200:
                pass
        return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--withdrawals", type=int, default=5)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nst-")))
        url = stack.enter_context(state_server(folder))
        replicas = []
        for number in range(2):
            last = {"NESTOR_EPHEMERAL": "1" if number == 0 else "0"}  # to end removes what a failure left
            one = OrchestratorProcess(folder / "data", NESTOR_REDIS_URL=url, NESTOR_RUNTIME_PORTS="0", **last)
            one.log = folder / f"replica-{number}.log"
            one.start()
            stack.callback(one.end)
            replicas.append(one)
        first, second = replicas
        key = first.tenant("bench", "http://127.0.0.1:9")
        kept, origin = made(first, key)
        with Redis.from_url(url) as client:
            busy, idle, seconds = counted(client, origin, arguments.requests)
        good = busy - idle <= COMMANDS
        told = (
            f"{busy:.0f} commands with {arguments.requests} requests in {seconds:.1f} s, {idle:.0f} in as long without"
        )
        print(f"{told}: {busy - idle:.0f} (<= {COMMANDS}){'' if good else ' MISSED'}")
        for verb in ("delete", "stop"):
            times = [refused_after(first, second, key, verb) for _ in range(arguments.withdrawals)]
            holds = max(times) <= REFUSED_SECONDS
            good &= holds
            rest = f"{max(times):.2f} s, median {statistics.median(times):.2f}"
            print(
                f"{verb}: refused by the other replica after {rest} (<= {REFUSED_SECONDS}){'' if holds else ' MISSED'}"
            )
        first.call("DELETE", f"/api/v2/conversations/{kept}", key)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
