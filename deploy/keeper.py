"""Holds the runtimes' bridge for a compose project, and takes the runtimes along when the project goes down.

Runtimes are containers that the orchestrator makes, so compose does not know them: `down` would leave them running, and
could not remove a bridge that is in use. This is a service whose end is the project's end; the orchestrator's is not,
because it may be replaced while runtimes go on. Standard library only: it runs on the base image as it is.
"""

import http.client
import json
import os
import signal
import socket
import sys
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

ENGINE = "/var/run/docker.sock"
#: labels of what an orchestrator puts on the bridge; a probe is left there by one that is ended while it looks around
MADE = ("io.nestor.runtime", "io.nestor.egress", "io.nestor.probe")
SECONDS = 30
AT_ONCE = 4  # of hundreds one after the other a project that goes down would not wait for the last
GONE = (404, 409)  # gone, or being removed at this moment


class Engine(http.client.HTTPConnection):
    """The engine over its socket."""

    def __init__(self) -> None:
        super().__init__("engine", timeout=SECONDS)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(ENGINE)


def ask(method: str, path: str) -> tuple[int, bytes]:
    """Status and body of one call."""
    engine = Engine()
    try:
        engine.request(method, path)
        answer = engine.getresponse()
        return answer.status, answer.read()
    finally:
        engine.close()


def runtimes(bridge: str) -> list[str]:
    """The ids of all runtimes on the bridge and of their forward proxy, running or not."""
    found = []
    for label in MADE:
        filters = urllib.parse.quote(json.dumps({"network": [bridge], "label": [label]}))
        status, body = ask("GET", f"/containers/json?all=1&filters={filters}")
        if status != 200:
            raise OSError(f"the engine answered {status} to a list of containers")
        found += [str(container["Id"]) for container in json.loads(body)]
    return found


def remove_all(bridge: str) -> int:
    """Remove the runtimes on the bridge; answers how many could not be."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(_left, runtimes(bridge)))


def _left(id: str) -> bool:
    """Whether it could not be removed."""
    try:
        status, _ = ask("DELETE", f"/containers/{id}?force=1&v=1")
    except OSError as exc:  # the others are tried all the same
        print(f"keeper: could not remove {id[:12]}: {exc}")
        return True
    print(f"keeper: removed {id[:12]}: {status}")
    return status >= 400 and status not in GONE


def main() -> int:
    bridge = os.environ["BRIDGE"]
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    print(f"keeper: holds {bridge}")
    signal.sigwait(signals)
    return 1 if remove_all(bridge) else 0


if __name__ == "__main__":
    sys.exit(main())
