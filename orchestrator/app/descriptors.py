"""How the descriptors that this process may have are shared out, so that who takes all of one share leaves the others.

A quarter are connections of runtimes, an eighth ports of those that sleep, some are the orchestrator's own (logs, the
journal, the state server, the engine), and the rest are connections of clients, each with the one to a runtime that it
may need.
"""

import resource
from dataclasses import dataclass

_OWN = 64
_FEWEST_OF_RUNTIMES = 64
_FEWEST_OF_CLIENTS = 16
_ANY = 65_536  # where the process may have as many as it likes


@dataclass(frozen=True)
class Shares:
    """`clients`: connections of all addresses together, 0 for any number. `address`: of one address, likewise.
    `tenant`: to all runtimes of one, likewise."""

    runtimes: int
    sleeping: int
    clients: int
    address: int
    tenant: int


def shares(descriptors: int | None = None) -> Shares:
    """Of so many; left out, of what the system lets this process have."""
    if descriptors is None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors <= 0:  # RLIM_INFINITY
        return Shares(runtimes=_ANY, sleeping=_ANY, clients=0, address=0, tenant=0)
    runtimes, sleeping = max(_FEWEST_OF_RUNTIMES, descriptors // 4), descriptors // 8
    clients = max(_FEWEST_OF_CLIENTS, (descriptors - _OWN - runtimes - sleeping) // 2)
    return Shares(runtimes, sleeping, clients, address=descriptors // 3, tenant=max(1, 3 * clients // 4))
