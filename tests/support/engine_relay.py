"""A relay in front of a real engine that loses answers, puts its own in their place, or lets them wait."""

import contextlib
import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

ENGINE = "/var/run/docker.sock"
_SECONDS = 60


class Relay:
    """Listens on `path`. `lose` names requests by their first line's beginning, such as `POST /containers/create`."""

    def __init__(self, path: Path) -> None:
        self.host = f"unix://{path}"
        self.lost: list[str] = []
        self.seen: list[tuple[float, str]] = []  #: when what was asked, such as `POST /containers/create?name=x`
        self._lose: list[str] = []
        self._instead: dict[str, tuple[int, str]] = {}
        self._late: dict[str, float] = {}
        self._open: list[tuple[str, socket.socket]] = []
        self.silent = threading.Event()  #: while it is set, nothing is answered at all
        relay = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                relay.carry(self.request)

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self.server = Server(str(path), Handler)

    def lose(self, request: str) -> None:
        """Do the next request of that kind, and close the connection instead of answering it."""
        self._lose.append(request)

    def answer(self, request: str, status: int, message: str = "told by the relay") -> None:
        """Answer the next request of that kind so, instead of doing it."""
        self._instead[request] = (status, message)

    def delay(self, request: str, seconds: float) -> None:
        """Let the next request of that kind wait before it is done."""
        self._late[request] = seconds

    def cut(self, request: str) -> int:
        """End the connections on which such a request came; how many there were."""
        found = [caller for asked, caller in self._open if asked.startswith(request)]
        self._open = [one for one in self._open if one[1] not in found]
        for caller in found:
            with contextlib.suppress(OSError):
                caller.shutdown(socket.SHUT_RDWR)
        return len(found)

    def carry(self, caller: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as engine, contextlib.suppress(OSError):
            engine.settimeout(_SECONDS)
            engine.connect(ENGINE)
            doomed = threading.Event()
            back = threading.Thread(target=self._back, args=(engine, caller, doomed), daemon=True)
            back.start()
            while chunk := caller.recv(65536):
                if asked := self._asked(chunk):
                    self._open.append((asked, caller))
                if self.silent.is_set():
                    time.sleep(_SECONDS)
                if (kind := _first(self._late, asked)) is not None:
                    time.sleep(self._late.pop(kind))
                if (kind := _first(self._instead, asked)) is not None:
                    caller.sendall(_answer(*self._instead.pop(kind)))
                    break
                if (kind := _first(self._lose, asked)) is not None:
                    self._lose.remove(kind)
                    self.lost.append(kind)
                    doomed.set()
                engine.sendall(chunk)
            engine.shutdown(socket.SHUT_WR)
            back.join(_SECONDS)

    def _back(self, engine: socket.socket, caller: socket.socket, doomed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while chunk := engine.recv(65536):
                if doomed.is_set():
                    break  # the work is done: the answer begins
                caller.sendall(chunk)
            caller.shutdown(socket.SHUT_RDWR)

    def _asked(self, chunk: bytes) -> str:
        """The request that begins here, such as `POST /containers/create?name=x`; empty for the rest of one."""
        first = chunk.split(b"\r\n", 1)[0].decode(errors="replace")
        method, _, rest = first.partition(" ")
        if method not in ("GET", "POST", "PUT", "DELETE", "HEAD"):
            return ""
        asked = f"{method} {re.sub(r'^/v1[.][0-9]+', '', rest)}".removesuffix(" HTTP/1.1")
        self.seen.append((time.time(), asked))
        return asked


def _first(kinds: Iterable[str], asked: str) -> str | None:
    return next((kind for kind in kinds if asked.startswith(kind)), None) if asked else None


def _answer(status: int, message: str) -> bytes:
    body = json.dumps({"message": message}).encode()
    head = f"HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


@contextlib.contextmanager
def relay(path: Path) -> Iterator[Relay]:
    """A relay for the length of the block."""
    made = Relay(path)
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()
