"""What every test shares: the async backend, and an environment that keeps litellm offline."""

import os

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

# How long an example takes says how busy the machine is, and a busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


#: these share an engine, its networks and its rules
_ON_THE_ENGINE = ("tests/docker/", "tests/contract/drivers/", "tests/contract/state/")


class _Lanes(LoadFileScheduling):
    """One worker has all that uses the Docker engine; of the rest each file stays whole: what its tests share is made
    once, and they come in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return "docker" if nodeid.startswith(_ON_THE_ENGINE) else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """For several workers (scripts/test)."""
    return _Lanes(config, log)
