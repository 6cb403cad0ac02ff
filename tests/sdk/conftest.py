"""A runtime as a process, a scripted model that wants the tests' key, and what runs the clients' programs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.models import scripted_model
from tests.support.runtimes import MODEL_KEY, RuntimeProcess
from tests.support.sdk import RunClient, clients


@pytest.fixture(scope="session")
def run_client() -> Iterator[RunClient]:
    with clients() as run:
        yield run


@pytest.fixture
def model_url() -> Iterator[str]:
    with scripted_model(required_key=MODEL_KEY) as url:
        yield url


@pytest.fixture
def process(tmp_path: Path) -> Iterator[RuntimeProcess]:
    """Not started yet; takes as many runs at once as the tests begin."""
    made = RuntimeProcess(tmp_path, OH_MAX_CONCURRENT_RUNS="60")
    yield made
    made.ensure_gone()
