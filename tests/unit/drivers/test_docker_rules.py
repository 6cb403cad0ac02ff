"""The rules of a bridge as text, and the address pool: no engine, no firewall."""

import ipaddress
import re

import pytest

from orchestrator.domain.errors import Misconfigured
from orchestrator.drivers import docker_cells, docker_pool
from orchestrator.drivers.docker_cells import CellKind
from orchestrator.drivers.docker_engine import Engine
from orchestrator.drivers.docker_pool import free_subnets
from orchestrator.drivers.docker_rules import (
    INSIDE,
    Door,
    Egress,
    Wall,
    Yard,
    bridge_of,
    chains_of,
    jumps_of,
    parse_doors,
    restore_input,
    rules_of,
)

BRIDGE = "nst-0123456789a"


def rules(wall: Wall, kind: str) -> list[str]:
    start = f"-A {BRIDGE}-{kind} "
    return [rule.removeprefix(start) for rule in rules_of(Yard(BRIDGE), wall) if rule.startswith(start)]


def test_open_egress_refuses_everything_inside_before_it_lets_anything_out():
    found = rules(Wall(), "out")
    refused = [re.findall(r"-d (\S+) -j REJECT", rule) for rule in found]
    assert [network for networks in refused for network in networks] == list(INSIDE)
    assert found[-1] == "-j RETURN"
    for address in ("169.254.169.254", "10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.53"):
        assert any(ipaddress.ip_address(address) in ipaddress.ip_network(network) for network in INSIDE), address


@pytest.mark.parametrize("egress", [Egress.NONE, Egress.ALLOW_LIST])
def test_without_open_egress_the_last_word_is_no(egress):
    found = rules(Wall(egress, [Door("192.168.1.20/32", 11434)]), "out")
    assert found[-1].startswith("-j REJECT")
    assert "-d 192.168.1.20/32 -p tcp --dport 11434 -j ACCEPT" in found
    assert sum("ACCEPT" in rule for rule in found) == 1


def test_of_this_machine_only_the_listener_and_what_was_named_is_reached():
    found = rules(Wall(listener=Door.at("10.214.0.1", 8081), doors=[Door("10.214.0.1/32", 9000)]), "in")
    assert found[0].startswith("-m conntrack --ctstate RELATED,ESTABLISHED")
    assert found[1:] == [
        "-d 10.214.0.1/32 -p tcp --dport 8081 -j ACCEPT",
        "-d 10.214.0.1/32 -p tcp --dport 9000 -j ACCEPT",
        "-j DROP",
    ]


def test_neighbours_are_dropped_first():
    assert rules(Wall(doors=[Door("10.0.0.0/8")]), "out")[0] == f"-o {BRIDGE} -j DROP"


def test_all_three_chains_are_set_in_one_act_and_named_within_the_limit():
    text = restore_input(Yard(BRIDGE), Wall())
    assert text.startswith("*filter\n")
    assert text.endswith("COMMIT\n")
    for chain in chains_of(BRIDGE):
        assert f":{chain} - [0:0]\n" in text
        assert len(chain) <= 28
        assert bridge_of(chain) == BRIDGE
    assert {chain for _, rule in jumps_of(BRIDGE) for chain in [rule.split()[-1]]} == set(chains_of(BRIDGE))


@pytest.mark.parametrize(
    ("text", "door"),
    [
        ("10.0.0.5", Door("10.0.0.5/32")),
        ("10.0.0.0/24:443", Door("10.0.0.0/24", 443)),
        ("192.168.1.20:11434", Door("192.168.1.20/32", 11434)),
    ],
)
def test_what_may_be_reached_is_read(text, door):
    assert parse_doors(f" {text} ,", variable="X") == [door]


@pytest.mark.parametrize("text", ["host.example", "10.0.0.5:0", "10.0.0.5:70000", "10.0.0.1/8", "::1", "1.2.3.4:x"])
def test_what_cannot_be_read_is_refused_by_the_variables_name(text):
    with pytest.raises(Misconfigured, match="NESTOR_RUNTIME_REACHES"):
        parse_doors(text, variable="NESTOR_RUNTIME_REACHES")


POOL = docker_pool.pool_of("10.214.0.0/16")
NOWHERE = Engine("unix:///nowhere")


@pytest.mark.parametrize(
    ("kind", "at_least"), [(CellKind.SHARED, 64), (CellKind.TENANT, 500), (CellKind.CONVERSATION, 4000)]
)
def test_the_pool_has_room_for_more_than_two_hundred_tenants(kind, at_least, monkeypatch):
    monkeypatch.setattr(docker_pool.docker_network, "subnets", lambda engine: [])
    monkeypatch.setattr(docker_pool, "routes", list)
    found = list(free_subnets(NOWHERE, POOL, docker_cells._PREFIX_LENGTH[kind]))
    assert len(found) >= at_least
    runtimes = found[0].num_addresses // 2
    if kind is CellKind.SHARED:
        assert runtimes >= 500


def test_subnets_that_the_machine_or_the_engine_has_are_left_out(monkeypatch):
    taken = ipaddress.IPv4Network("10.214.0.0/17")
    monkeypatch.setattr(docker_pool.docker_network, "subnets", lambda engine: [taken])
    monkeypatch.setattr(docker_pool, "routes", lambda: [ipaddress.IPv4Network("10.214.128.0/18")])
    found = list(free_subnets(NOWHERE, POOL, 22))
    assert found
    assert all(network.subnet_of(ipaddress.IPv4Network("10.214.192.0/18")) for network in found)


def test_routes_are_read_without_the_default_one(tmp_path):
    table = tmp_path / "route"
    head = "Iface Destination Gateway Flags RefCnt Use Metric Mask"
    lines = ["eth0 00000000 010200C0 0003 0 0 0 00000000", "eth0 000200C0 00000000 0001 0 0 0 00FFFFFF"]
    table.write_text("\n".join([head, *lines, ""]))
    assert docker_pool.routes(str(table)) == [ipaddress.IPv4Network("192.0.2.0/24")]
