"""What proxied requests ask of the state server, and how soon a route that is gone is refused everywhere.

    python bench/proxy_state.py [--requests 10000] [--withdrawals 5]

Two replicas on one state server, with real runtimes. The server tells each command that it runs and whose connection it
came by (MONITOR, CLIENT LIST): those of proxied requests have connections of their own, so what the replicas do beside
them is told apart and printed as well. Told is the median of several windows of 10,000 requests over warm routes: what
was sent, and what scripts did of it. It depends on the time that they take, as the use of a conversation is written
each 4.5 seconds. Then conversations are deleted and stopped on one replica while a client asks the other one
without a rest: told is the longest time from the accepted call to the first refusal. A missed limit makes the exit
status 1.
"""

import argparse
import asyncio
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
from redis import Redis
from redis.exceptions import RedisError

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from servers import free_port
from support.processes import OrchestratorProcess, wait_for

from orchestrator.state.embedded import find_server
from orchestrator.state.redis_store import TRAFFIC

COMMANDS, REFUSED_SECONDS = 10, 1.0
CONNECTIONS, WINDOWS = 16, 5
WITHIN = "within: "  #: before the name of a command that a script ran
_RUN = re.compile(rb'[0-9.]+ \[\d+ (\S+)\] "([^"]*)"')
Origin = tuple[OrchestratorProcess, str, str]  #: a replica, a runtime, its session key


@contextmanager
def state_server(folder: Path) -> Iterator[int]:
    """On a port, since over a socket file the server tells no client from another."""
    port = free_port()
    command = [str(find_server()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    process = subprocess.Popen([*command, "--appendonly", "yes", "--logfile", str(folder / "redis.log")])

    def answers() -> bool:
        try:
            with Redis(port=port) as client:
                return bool(client.ping())
        except RedisError:
            return False

    try:
        wait_for(answers, 30)
        yield port
    finally:
        process.terminate()
        process.wait()


class Monitor:
    """What the server runs, by the name of the connection that it came by. Commands of a script are its caller's."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lines: list[bytes] = []
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(b"MONITOR\r\n")
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with self._socket.makefile("rb") as stream:
            self._lines.extend(stream)

    def begin(self) -> None:
        self._lines.clear()

    def told(self) -> dict[str, Counter[str]]:
        """Connection name -> how often it ran which command since `begin`."""
        with Redis(port=self._port, client_name="bench", decode_responses=True) as client:
            names = {one["addr"]: one["name"] for one in client.client_list()}
            client.echo("the end")
            wait_for(lambda: any(b"the end" in line for line in list(self._lines)), 30)
        found: dict[str, Counter[str]] = {}
        name = ""
        for line in list(self._lines):
            ran = _RUN.search(line)
            if ran is None:
                continue
            address, command = ran[1].decode(), ran[2].decode().upper()
            if address != "lua":
                name = names.get(address, "")
            found.setdefault(name, Counter())[(WITHIN if address == "lua" else "") + command] += 1
        found.pop("bench", None)
        return found

    def close(self) -> None:
        self._socket.close()


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


def counted(monitor: Monitor, origin: Origin, requests: int) -> tuple[list[Counter[str]], list[int], float]:
    """Of each window: the commands of the proxy's connections, how many came by all others, and the median time."""
    traffic, others, lasted = [], [], []
    for _ in range(WINDOWS):
        asyncio.run(ask(origin, CONNECTIONS))
        monitor.begin()
        began = time.monotonic()
        asyncio.run(ask(origin, requests))
        lasted.append(time.monotonic() - began)
        told = monitor.told()
        traffic.append(told.pop(TRAFFIC, Counter()))
        others.append(sum(map(Counter.total, told.values())))
    return traffic, others, statistics.median(lasted)


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
        port = stack.enter_context(state_server(folder))
        url = f"redis://127.0.0.1:{port}/0"
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
        monitor = Monitor(port)
        stack.callback(monitor.close)
        traffic, others, seconds = counted(monitor, origin, arguments.requests)
        within = [sum(many for name, many in one.items() if name.startswith(WITHIN)) for one in traffic]
        sent = [one.total() - inner for one, inner in zip(traffic, within, strict=True)]
        good = statistics.median(sent) <= COMMANDS
        print(f"{arguments.requests} requests over warm routes in {seconds:.1f} s (median of {WINDOWS})")
        print(
            f"commands sent by the proxy: {statistics.median(sent):.0f} (<= {COMMANDS}; {sent})"
            f"{'' if good else ' MISSED'}; within their scripts: {statistics.median(within):.0f}"
        )
        print(f"  of the last window: {dict(traffic[-1])}")
        print(f"commands of the replicas' own rounds meanwhile: {statistics.median(others):.0f} ({others})")
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
