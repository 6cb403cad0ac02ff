"""What takes the runtimes along when a compose project goes down (`deploy/keeper.py`), on a slow engine."""

import importlib.util
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import ModuleType

import pytest

KEEPER = Path(__file__).parents[2] / "deploy" / "keeper.py"
TOGETHER_SECONDS = 10


class Engine(socketserver.ThreadingUnixStreamServer):
    """Of eight runtimes. It ends a removal when another is under way, or by a failure when none comes."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.left = {f"{number:064x}" for number in range(8)}
        self.together = threading.Barrier(2)
        super().__init__(str(path), Answers)


class Answers(BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self) -> None:
        self._say(200, json.dumps([{"Id": id} for id in sorted(self.server.left)] if "runtime" in self.path else []))

    def do_DELETE(self) -> None:
        try:
            self.server.together.wait(TOGETHER_SECONDS)
        except threading.BrokenBarrierError:
            self._say(500, "{}")
        else:
            self.server.left.remove(self.path.split("/")[2].partition("?")[0])
            self._say(204, "")

    def _say(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def address_string(self) -> str:
        return "keeper"

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(path: Path) -> Iterator[Engine]:
    with Engine(path) as engine:
        thread = threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield engine
        finally:
            engine.shutdown()
            thread.join()


@pytest.fixture
def keeper() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keeper", KEEPER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_hundreds_are_not_removed_one_after_the_other(
    keeper: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project that goes down waits for it, and not for ever; what is left then is nobody's."""
    with serving(tmp_path / "s") as engine:
        monkeypatch.setattr(keeper, "ENGINE", str(tmp_path / "s"))
        assert keeper.remove_all("a-bridge") == 0
        assert engine.left == set()
