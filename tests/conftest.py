"""What every test shares: the async backend, and an environment that keeps litellm offline."""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

# How long an example takes says how busy the machine is, and a busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_collection_finish() -> None:
    """What was imported stays, and is looked at no more: a collection is a matter of milliseconds then."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _leaks_are_told_where_they_were_made() -> Iterator[None]:
    """A socket that nobody closed is told when it is collected: in the file that left it, and not in some later one."""
    yield
    gc.collect()


#: these share an engine, its networks and its rules
_ON_THE_ENGINE = ("tests/docker/", "tests/contract/drivers/", "tests/contract/state/")
#: what takes longest is begun first, so that no worker is left alone with it in the end
_FIRST = (
    "docker",
    "tests/sdk/",
    "tests/acceptance/",
    "tests/chaos/",
    "tests/security/",
    "tests/integration/",
    "tests/contract/",
)


class _Lanes(LoadFileScheduling):
    """One worker has all that uses the Docker engine; of the rest each file stays whole: what its tests share is made
    once, and they come in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return "docker" if nodeid.startswith(_ON_THE_ENGINE) else super()._split_scope(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        self.workqueue.move_to_end(min(self.workqueue, key=_rank), last=False)
        super()._assign_work_unit(node)


def _rank(scope: str) -> int:
    return next((number for number, start in enumerate(_FIRST) if scope.startswith(start)), len(_FIRST))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """For several workers (scripts/test)."""
    return _Lanes(config, log)
