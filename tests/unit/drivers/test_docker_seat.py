"""An orchestrator that is a container: what its address may do on a bridge, and where the engine has its folders."""

import subprocess
from pathlib import Path

import pytest

from orchestrator.app import netguard
from orchestrator.domain.errors import Misconfigured
from orchestrator.drivers import docker_helper, docker_seat
from orchestrator.drivers.docker_engine import Engine
from orchestrator.drivers.docker_firewall import Firewall
from orchestrator.drivers.docker_helper import Helper
from orchestrator.drivers.docker_network import Network
from orchestrator.drivers.docker_rules import Egress, Wall, Yard, rules_of
from orchestrator.drivers.docker_seat import ORCHESTRATOR, Myself, seats_of, sits

BRIDGE = "nst-0123456789a"
NETWORK = Network("id", "cell", "10.214.0.1", True, BRIDGE, "10.214.0.0/28", "")


def rules(yard: Yard, wall: Wall, kind: str) -> list[str]:
    start = f"-A {yard.bridge}-{kind} "
    return [rule.removeprefix(start) for rule in rules_of(yard, wall) if rule.startswith(start)]


@pytest.mark.parametrize("egress", list(Egress))
def test_before_neighbours_are_dropped_the_seat_reaches_them_and_they_one_port_of_it(egress: Egress):
    yard = Yard(BRIDGE, seats=("10.214.0.13", "10.214.0.12"))
    found = rules(yard, Wall(egress, seats_port=8081), "out")
    dropped = found.index(f"-o {BRIDGE} -j DROP")
    for seat in yard.seats:
        assert f"-s {seat} -o {BRIDGE} -j ACCEPT" in found[:dropped]
        assert [rule for rule in found[:dropped] if f"-d {seat}" in rule] == [
            f"-d {seat} -o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"-d {seat} -p tcp --dport 8081 -o {BRIDGE} -j ACCEPT",
        ]
        assert found.index(f"-s {seat} -j RETURN") < next(n for n, rule in enumerate(found) if "REJECT" in rule)
        assert f"-s {seat} -j RETURN" in rules(yard, Wall(egress), "in")


def test_without_a_listener_no_port_of_a_seat_is_open():
    found = rules(Yard(BRIDGE, seats=("10.214.0.13",)), Wall(), "out")
    assert not [rule for rule in found if "-d 10.214.0.13 -p" in rule]


def test_seats_are_below_the_proxy_and_above_what_runtimes_get():
    assert seats_of(NETWORK) == ["10.214.0.13", "10.214.0.12", "10.214.0.11", "10.214.0.10"]


def test_a_runtime_whose_image_says_that_it_is_an_orchestrator_has_no_seat():
    assert sits({"Labels": {ORCHESTRATOR: "yes"}})
    assert not sits({"Labels": {ORCHESTRATOR: "yes", "io.nestor.runtime": "r", "io.nestor.installation": "i"}})
    assert not sits({"Labels": {"io.nestor.egress": "cell"}})
    assert not sits({})


def test_the_engine_has_a_folder_where_the_volume_above_it_is():
    me = Myself("id", "image", {"/data": "/var/lib/docker/volumes/d/_data", "/run/engine": "/x"})
    assert me.engine_path(Path("/data")) == Path("/var/lib/docker/volumes/d/_data")
    assert me.engine_path(Path("/data/docker/egress")) == Path("/var/lib/docker/volumes/d/_data/docker/egress")
    assert me.engine_path(Path("/elsewhere")) is None


def test_on_the_host_nobody_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(docker_seat, "_IN_A_CONTAINER", Path("/no/such/file"))
    assert docker_seat.myself(Engine("unix:///no/such/socket"), None) is None


def test_a_helper_that_cannot_be_had_is_told_with_what_to_do():
    helper = Helper(Engine("unix:///no/such/socket"), name="n", image="i", installation="x")
    words = Firewall(helper).trouble()
    assert words is not None
    assert "nestor netguard" in words
    assert "CAP_NET_ADMIN" in words


class Told:
    """Commands as they would be run elsewhere."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []

    def trouble(self) -> str | None:
        return None

    def run(self, *words: str, told: str | None = None) -> subprocess.CompletedProcess[str]:
        self.ran.append(words)
        return subprocess.CompletedProcess(words, 0, "nameserver 127.0.0.53\nnameserver 192.0.2.53\n", "")


def test_rules_and_name_servers_are_those_of_where_the_helper_is_and_a_new_seat_is_another_yard():
    helper = Told()
    firewall = Firewall(helper)
    assert firewall.trouble() is None
    assert firewall.name_servers() == ["192.0.2.53"]
    yard = Yard(BRIDGE, seats=("10.214.0.13",))
    firewall.put(yard, Wall())
    assert {words[0] for words in helper.ran} == {"cat", "iptables", "iptables-restore", "iptables-save"}
    assert not firewall.holds(Yard(BRIDGE, seats=("10.214.0.12", "10.214.0.13")))


def test_netguard_takes_addresses_of_orchestrators_and_nothing_else():
    assert netguard._seats(["10.213.3.253", "10.213.3.252"]) == ("10.213.3.252", "10.213.3.253")
    with pytest.raises(Misconfigured, match="--orchestrator"):
        netguard._seats(["not-an-address"])


def test_what_a_command_said_is_taken_apart_also_when_its_last_frame_is_cut():
    out, error = b"\x01\0\0\0\0\0\0\x03one", b"\x02\0\0\0\0\0\0\x04oops"
    assert docker_helper._parted(out + error + out) == ("oneone", "oops")
    assert docker_helper._parted(out + error[:10]) == ("one", "oo")
    assert docker_helper._parted(b"") == ("", "")
