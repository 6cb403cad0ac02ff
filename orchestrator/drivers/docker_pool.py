"""The address pool of bridges: a subnet of it that neither the engine nor the machine uses.

`docker_cells.py` makes cells in it, and the demo its own bridge. Methods block.
"""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.drivers import docker_network
from orchestrator.drivers.docker_engine import Engine
from orchestrator.drivers.docker_network import Network, SubnetTaken

ROUTES = "/proc/net/route"


def make_in(
    engine: Engine,
    pool: ipaddress.IPv4Network,
    name: str,
    *,
    length: int,
    machine: Sequence[ipaddress.IPv4Network] | None = None,
    **made: Any,
) -> Network:
    """A bridge with a free subnet of the pool, of that prefix length; `machine` is where the machine has routes to, if
    it is not what this process sees. Raises `DriverUnavailable` when there is none."""
    for choice in free_subnets(engine, pool, length, machine):
        try:
            return docker_network.ensure(engine, name, subnet=str(choice), **made)
        except SubnetTaken:
            continue  # another installation was faster, or the machine has it
    raise DriverUnavailable(
        f"no subnet is left in {pool} for network {name}",
        hint="give NESTOR_RUNTIME_POOL a larger network, or one that this machine has no routes to",
    )


def free_subnets(
    engine: Engine,
    pool: ipaddress.IPv4Network,
    length: int,
    machine: Sequence[ipaddress.IPv4Network] | None = None,
) -> Iterator[ipaddress.IPv4Network]:
    """Those of the pool that neither the engine nor the machine uses, in order."""
    taken = [*docker_network.subnets(engine), *(routes() if machine is None else machine)]
    for choice in pool.subnets(new_prefix=max(length, pool.prefixlen)):
        if not any(choice.overlaps(other) for other in taken):
            yield choice


def routes(path: str = ROUTES) -> Sequence[ipaddress.IPv4Network]:
    """Where this machine has routes to, the default one apart."""
    try:
        with open(path) as file:
            return routes_in(file.read())
    except OSError:
        return []


def routes_in(text: str) -> Sequence[ipaddress.IPv4Network]:
    """The same from the kernel's table."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        target, mask = (int.from_bytes(bytes.fromhex(words[n]), "little") for n in (1, 7))
        if mask:
            found.append(ipaddress.IPv4Network((target, mask.bit_count())))
    return found


def pool_of(pool: str) -> ipaddress.IPv4Network:
    """The address pool that a text names. Raises `Misconfigured`."""
    return docker_network.parsed(pool, variable="NESTOR_RUNTIME_POOL", such_as="10.214.0.0/16")
