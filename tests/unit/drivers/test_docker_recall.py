"""What a driver remembers so that a start asks the engine less: nothing that may have changed since."""

from dataclasses import replace

import pytest

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.drivers import docker_cells
from orchestrator.drivers.docker_cells import CellKind, Cells, Place
from orchestrator.drivers.docker_engine import Engine
from orchestrator.drivers.docker_network import Network
from orchestrator.drivers.docker_recall import Made, Recall
from orchestrator.drivers.values import Dialect, OwnerLabels

NETWORK = Network("id", "nestor-here", "10.214.0.1", True, "br-here", "10.214.0.0/22", "")
MADE = Made(Dialect.OWN, Place(NETWORK.name, {}))


def labels(runtime: str) -> OwnerLabels:
    return OwnerLabels("here", TenantId("t"), ConversationId("c"), RuntimeId(runtime), 1)


class Looked(Cells):
    """Cells whose network is counted instead of looked at."""

    def __init__(self, kind: CellKind = CellKind.SHARED) -> None:
        engine = Engine("unix:///nowhere")
        super().__init__(engine, installation="here", network=None, subnet=None, pool="10.214.0.0/16", kind=kind)
        self.looks = 0
        self.keys: list[str] = []
        self.network = NETWORK
        self.away = False

    def _see(self, key: str) -> Network:
        self.looks += 1
        self.keys.append(key)
        if self.away:
            raise DriverUnavailable("the engine is away")
        return self.network


def test_an_image_is_remembered_by_its_digest_alone():
    recall = Recall()
    recall.keep_image("nestor-runtime:latest", {"Id": "sha256:a"})
    recall.keep_image("sha256:a", {"Id": "sha256:a"})
    assert recall.image("nestor-runtime:latest") is None
    assert recall.image("sha256:a") == {"Id": "sha256:a"}
    recall.forget_image("sha256:a")
    assert recall.image("sha256:a") is None


def test_the_drivers_own_image_is_known_by_what_it_was_seen_to_be():
    recall = Recall()
    recall.keep_own("sha256:a")
    recall.keep_own("sha256:b")
    assert [recall.is_own(id) for id in ("sha256:a", "sha256:b", "sha256:c")] == [True, True, False]


def test_a_container_is_new_once():
    recall = Recall()
    recall.made("one", MADE)
    assert (recall.take("one"), recall.take("one"), recall.take("another")) == (MADE, None, None)


def test_what_is_remembered_has_an_end():
    recall = Recall()
    for number in range(2_000):
        recall.made(str(number), MADE)
    assert recall.take("0") is None
    assert recall.take("1999") is MADE


def test_a_network_that_was_seen_is_looked_at_again_while_the_next_runtime_boots():
    cells = Looked()
    first = cells.enter(labels("one"))
    cells.confirm(labels("one"), first)
    assert (first.network, cells.looks) == (NETWORK.name, 1)
    second = cells.enter(labels("two"))
    assert (second.network, cells.looks) == (NETWORK.name, 1)
    cells.confirm(labels("two"), second)
    assert cells.looks == 2


def test_a_runtime_that_entered_elsewhere_has_its_network_looked_at():
    cells = Looked()
    cells.confirm(labels("one"), None)
    assert cells.looks == 1


@pytest.mark.parametrize("kind", [CellKind.SHARED, CellKind.TENANT])
def test_it_is_the_network_that_it_was_made_for_which_is_looked_at(kind):
    """Also where another process made it, which has counted how many there are."""
    cells = Looked(kind)
    for number in range(3):
        key = cells._numbered(labels("one"), number)
        cells.confirm(labels("one"), None, network=cells._name(key))
        assert cells.keys[-1] == key


def test_a_network_that_was_made_anew_meanwhile_is_not_that_of_the_runtime():
    cells = Looked()
    cells.enter(labels("one"))
    place = cells.enter(labels("two"))
    cells.network = replace(NETWORK, id="another", bridge="br-there")
    with pytest.raises(DriverUnavailable, match="made anew"):
        cells.confirm(labels("two"), place)
    cells.confirm(labels("three"), cells.enter(labels("three")))


def test_a_network_that_is_forgotten_is_looked_at_before_the_next_runtime_is_made():
    cells = Looked()
    cells.forget(cells.enter(labels("one")))
    cells.enter(labels("two"))
    assert cells.looks == 2


def test_a_look_that_fails_is_told():
    cells = Looked()
    cells.enter(labels("one"))
    place = cells.enter(labels("two"))
    cells.away = True
    with pytest.raises(DriverUnavailable):
        cells.confirm(labels("two"), place)
    cells.away = False
    cells.confirm(labels("two"), place)


@pytest.mark.parametrize(("kind", "most"), [(CellKind.SHARED, 500), (CellKind.TENANT, 60)])
def test_one_more_than_a_bridge_has_addresses_for_is_put_on_another(kind, most):
    cells = Looked(kind)
    assert len({cells.enter(labels(str(number))).key for number in range(most)}) == 1
    full, other = cells.enter(labels("0")), cells.enter(labels("one more"))
    assert full.key == other.key != ""
    assert docker_cells._PREFIX_LENGTH[kind] <= 31 - (most + 3).bit_length()  # half of them, without the first two


def test_a_bridge_without_an_address_left_gets_no_more_runtimes():
    cells = Looked()
    place = cells.enter(labels("one"))
    cells.fill(place)
    assert cells.enter(labels("two")).key != place.key
