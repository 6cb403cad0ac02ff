"""Real state servers, and a folder with a short path."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.state_servers import VALKEY, Run, Server, run_server

__all__ = ["VALKEY", "Run", "Server", "run_server"]


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not below pytest's own folder: the path of a unix socket has to be short.
    path = Path(tempfile.mkdtemp(prefix="nst-", dir="/tmp"))
    yield path
    shutil.rmtree(path)
