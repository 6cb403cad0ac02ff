"""An outside of the tests' own: a namespace with an address of the public net's form and some that are inside.

Nothing of it leaves the machine: all addresses end at a pair of interfaces that is made for one test and removed.
"""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"outside")
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 80), Handler)
print("ready", flush=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class Outside:
    """Where a small HTTP server listens, port 80."""

    public: str
    private: str
    space: str  #: the namespace, for `ip netns exec`
    machine: str  #: an address of this machine itself, beside its bridges
    inside: tuple[str, ...]  #: one of each inner range that may be stood in for; none is link-local


@contextmanager
def outside() -> Iterator[Outside]:
    """For the length of the block. Needs root."""
    mark, number = secrets.token_hex(3), secrets.randbelow(60) * 4
    space, here, there = f"nst-out-{mark}", f"no-{mark}-a", f"no-{mark}-b"
    public, private = f"203.0.113.{number}", f"10.99.99.{number}"
    inside = (private, *(f"{start}.{number}" for start in ("172.31.99", "192.168.99", "100.127.99", "198.19.99")))
    run("ip", "netns", "add", space)
    server: subprocess.Popen[str] | None = None
    try:
        run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", space)
        for network in (public, *inside):
            run("ip", "addr", "add", f"{_plus(network, 1)}/30", "dev", here)
            run("ip", "-n", space, "addr", "add", f"{_plus(network, 2)}/30", "dev", there)
        run("ip", "link", "set", here, "up")
        run("ip", "-n", space, "link", "set", there, "up")
        command = ["ip", "netns", "exec", space, sys.executable, "-c", _SERVER]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        there_too = tuple(_plus(network, 2) for network in inside)
        yield Outside(_plus(public, 2), _plus(private, 2), space, _plus(private, 1), there_too)
    finally:
        if server is not None:
            server.kill()
            server.communicate()
        run("ip", "netns", "delete", space)


def run(*words: str) -> str:
    """What a command prints; fails with what it said."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


def _plus(network: str, number: int) -> str:
    head, _, last = network.rpartition(".")
    return f"{head}.{int(last) + number}"
