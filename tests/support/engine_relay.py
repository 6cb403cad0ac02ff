"""A relay in front of a real engine that loses answers and breaks connections as it is told."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
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

    def carry(self, caller: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as engine, contextlib.suppress(OSError):
            engine.settimeout(_SECONDS)
            engine.connect(ENGINE)
            doomed = threading.Event()
            back = threading.Thread(target=self._back, args=(engine, caller, doomed), daemon=True)
            back.start()
            while chunk := caller.recv(65536):
                if kind := self._doomed(chunk):
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

    def _doomed(self, chunk: bytes) -> str | None:
        first = chunk.split(b"\r\n", 1)[0].decode(errors="replace")
        method, _, rest = first.partition(" ")
        path = "/" + rest.split("/", 2)[-1]  # without the version
        if method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
            self.seen.append((time.time(), f"{method} {path.removesuffix(' HTTP/1.1')}"))
        for kind in self._lose:
            wanted, _, prefix = kind.partition(" ")
            if method == wanted and path.startswith(prefix):
                self._lose.remove(kind)
                return kind
        return None


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
