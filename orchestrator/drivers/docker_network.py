"""The runtimes' own bridge: on it they do not reach one another, and its gateway is where they reach this machine.

The driver makes one for its installation and removes it when nothing is left, or takes one that the operator made
(compose does). `nestor demo` makes one as well, to have its servers listen on the gateway.
"""

import contextlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from docker.types import IPAMConfig, IPAMPool

from orchestrator.domain.errors import DriverUnavailable, Misconfigured
from orchestrator.drivers.docker_engine import Engine, Missing, Occupied, Refused
from orchestrator.drivers.docker_spec import INSTALLATION, PREFIX

CELL = f"{PREFIX}cell"
_ICC = "com.docker.network.bridge.enable_icc"
_BRIDGE = "com.docker.network.bridge.name"


#: As an engine says of a bridge whose interface would have another one's name.
_SAME_NAME = "same bridge name"


class SubnetTaken(Misconfigured):
    """The engine has no room for that subnet."""


class BridgeTaken(Misconfigured):
    """Another network's interface has that name."""


@dataclass(frozen=True)
class Network:
    """A bridge as the engine describes it."""

    id: str
    name: str
    gateway: str
    apart: bool  #: containers on it do not reach one another
    bridge: str  #: the name of its interface on this machine
    subnet: str
    cell: str  #: what it is for, of one that the driver made for some runtimes; empty otherwise


def find(engine: Engine, name: str) -> Network | None:
    """The bridge of that name, or None. Raises `DriverUnavailable`."""
    try:
        return _network(engine.ask(f"look at network {name}", lambda client: client.inspect_network(name)))
    except Missing:
        return None


def ensure(
    engine: Engine, name: str, *, installation: str, subnet: str | None, bridge: str = "", cell: str = ""
) -> Network:
    """The bridge of that name, made if it is missing. Raises `SubnetTaken`, `BridgeTaken`."""
    known = find(engine, name)
    if known is not None:
        return known
    try:
        engine.act(
            f"make network {name}",
            lambda client: client.create_network(
                name,
                driver="bridge",
                options={_ICC: "false", _BRIDGE: bridge or f"nst-{name[-11:]}"},
                ipam=_pool(subnet),
                check_duplicate=True,
                enable_ipv6=False,
                labels={INSTALLATION: installation, CELL: cell},
            ),
        )
    except Occupied:
        pass  # another orchestrator was faster
    except Refused as exc:
        if _SAME_NAME in exc.said:
            raise BridgeTaken(f"the engine has another network whose bridge is named {bridge}") from exc
        raise SubnetTaken(
            f"the engine refused network {name} with subnet {subnet or 'of its own choice'}",
            hint="choose a free one with NESTOR_RUNTIME_SUBNET, such as 10.213.0.0/22",
        ) from exc
    made = find(engine, name)
    if made is None:
        raise DriverUnavailable(f"network {name} was removed while it was made")
    return made


def of_installation(engine: Engine, installation: str) -> Sequence[Network]:
    """Every bridge that a driver of this installation made. Raises `DriverUnavailable`."""
    found = engine.ask(
        "list networks", lambda client: client.networks(filters={"label": f"{INSTALLATION}={installation}"})
    )
    return [_network(described) for described in found]


def subnets(engine: Engine) -> Sequence[ipaddress.IPv4Network]:
    """What the engine's networks have of the address space."""
    taken = []
    for described in engine.ask("list networks", lambda client: client.networks()):
        for pool in (described.get("IPAM") or {}).get("Config") or ():
            with contextlib.suppress(ValueError):
                taken.append(ipaddress.IPv4Network(pool.get("Subnet", "")))
    return taken


def remove(engine: Engine, name: str) -> None:
    """Remove the bridge if nothing is connected to it. Gone already, or in use: fine."""
    try:
        engine.act(f"remove network {name}", lambda client: client.remove_network(name))
    except (Missing, Occupied, Refused):  # an engine refuses with 403 while a container is connected
        return


def parsed(text: str, *, variable: str, such_as: str) -> ipaddress.IPv4Network:
    """A network that has room for runtimes. Raises `Misconfigured` naming the variable."""
    try:
        whole = ipaddress.IPv4Network(text)
    except ValueError:
        raise Misconfigured(f"{variable}: {text!r} is no IPv4 network such as {such_as}") from None
    if whole.prefixlen > 28:
        raise Misconfigured(f"{variable}: {text} is too small: /28 or larger")
    return whole


def _pool(subnet: str | None) -> IPAMConfig | None:
    """The lower half is the engine's to give to runtimes; the upper one stays free for fixed addresses."""
    if subnet is None:
        return None
    whole = parsed(subnet, variable="NESTOR_RUNTIME_SUBNET", such_as="10.213.0.0/22")
    lower = next(whole.subnets(prefixlen_diff=1))
    return IPAMConfig(pool_configs=[IPAMPool(subnet=str(whole), iprange=str(lower), gateway=str(whole[1]))])


def _network(described: Mapping[str, Any]) -> Network:
    pools = (described.get("IPAM") or {}).get("Config") or [{}]
    options = described.get("Options") or {}
    gateway = str(pools[0].get("Gateway") or "")
    if not gateway and pools[0].get("Subnet"):
        gateway = str(ipaddress.ip_network(pools[0]["Subnet"])[1])  # engines leave it out when they chose it
    return Network(
        id=str(described["Id"]),
        name=str(described["Name"]),
        gateway=gateway,
        apart=options.get(_ICC) == "false",
        bridge=str(options.get(_BRIDGE) or f"br-{str(described['Id'])[:12]}"),
        subnet=str(pools[0].get("Subnet") or ""),
        cell=str((described.get("Labels") or {}).get(CELL) or ""),
    )
