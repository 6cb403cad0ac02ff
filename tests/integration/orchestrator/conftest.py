"""Fixtures of the orchestrator's own integration tests."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.orchestrators import Nestor, nestor_at

from orchestrator.drivers.fake_engine import FakeEngine


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder)


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    engine = FakeEngine()
    yield engine
    await engine.shut_down()


@pytest.fixture
async def nestor(data_dir: Path, engine: FakeEngine) -> AsyncIterator[Nestor]:
    async with nestor_at(data_dir, engine) as running:
        yield running
