"""What a driver remembers so that a start asks the engine less: nothing that may have changed since."""

import pytest

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.drivers import docker_ahead
from orchestrator.drivers.docker_ahead import Ahead
from orchestrator.drivers.docker_cells import CellKind, Cells
from orchestrator.drivers.docker_engine import Engine
from orchestrator.drivers.docker_network import Network
from orchestrator.drivers.docker_recall import Recall
from orchestrator.drivers.values import Dialect, OwnerLabels

NETWORK = Network("id", "nestor-here", "10.214.0.1", True, "br-here", "10.214.0.0/22", "")


def labels(runtime: str) -> OwnerLabels:
    return OwnerLabels("here", TenantId("t"), ConversationId("c"), RuntimeId(runtime), 1)


class Looked(Cells):
    """Cells whose network is counted instead of looked at."""

    def __init__(self) -> None:
        engine = Engine("unix:///nowhere")
        super().__init__(
            engine, installation="here", network=None, subnet=None, pool="10.214.0.0/16", kind=CellKind.SHARED
        )
        self.looks = 0
        self.away = False

    def _ensure(self, key: str, subnet: str | None) -> Network:
        self.looks += 1
        if self.away:
            raise DriverUnavailable("the engine is away")
        return NETWORK


def test_an_image_is_remembered_by_its_digest_alone():
    recall = Recall()
    recall.keep_image("nestor-runtime:latest", {"Id": "sha256:a"})
    recall.keep_image("sha256:a", {"Id": "sha256:a"})
    assert recall.image("nestor-runtime:latest") is None
    assert recall.image("sha256:a") == {"Id": "sha256:a"}
    recall.forget_image("sha256:a")
    assert recall.image("sha256:a") is None


def test_a_container_is_new_once():
    recall = Recall()
    recall.made("one", Dialect.OWN)
    assert (recall.take("one"), recall.take("one"), recall.take("another")) == (Dialect.OWN, None, None)


def test_what_is_remembered_has_an_end():
    recall = Recall()
    for number in range(2_000):
        recall.made(str(number), Dialect.OWN)
    assert recall.take("0") is None
    assert recall.take("1999") is Dialect.OWN


def test_a_network_that_was_seen_ahead_is_not_looked_at_again_for_that_runtime():
    cells = Looked()
    ahead(cells).wait(labels("one"))
    assert cells.enter(labels("one"))[0] == NETWORK.name
    assert cells.looks == 1
    cells.enter(labels("one"))  # it was good for one
    cells.enter(labels("another"))
    assert cells.looks == 3


def test_who_waits_for_a_look_that_was_begun_begins_no_other():
    cells = Looked()
    ahead(cells).begin(labels("one"))
    ahead(cells).wait(labels("one"))
    ahead(cells).begin(labels("one"))
    assert cells.enter(labels("one"))[0] == NETWORK.name
    assert cells.looks == 1


def test_what_was_seen_ahead_is_good_for_a_moment(monkeypatch):
    now = 100.0
    monkeypatch.setattr(docker_ahead.time, "monotonic", lambda: now)
    cells = Looked()
    ahead(cells).wait(labels("one"))
    now += 1.5
    cells.enter(labels("one"))
    assert cells.looks == 2
    ahead(cells).wait(labels("two"))
    now += 1.5
    ahead(cells).wait(labels("two"))  # one that is over for long is made anew
    assert cells.looks == 4


def test_what_was_seen_ahead_and_never_came_is_forgotten():
    cells = Looked()
    for number in range(600):
        ahead(cells).wait(labels(str(number)))
    cells.enter(labels("0"))
    assert cells.looks == 601
    cells.enter(labels("599"))
    assert cells.looks == 601


def test_a_look_ahead_that_fails_is_told_by_what_comes_next():
    cells = Looked()
    cells.away = True
    ahead(cells).wait(labels("one"))
    with pytest.raises(DriverUnavailable):
        cells.enter(labels("one"))
    cells.away = False
    assert cells.enter(labels("one"))[0] == NETWORK.name


def ahead(cells: Cells) -> Ahead:
    assert cells.ahead is not None
    return cells.ahead
