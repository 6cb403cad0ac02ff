"""An orchestrator with the docker driver as a process of its own."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.docker_nestor import Client, nestor_in


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket lives below it."""
    path = Path(tempfile.mkdtemp(prefix="nst-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def nestor(folder: Path) -> AsyncIterator[Client]:
    async with nestor_in(folder) as client:
        yield client
