"""The Docker driver: bridges of runtimes, and what they reach."""

from collections.abc import Sequence
from typing import Literal

from pydantic import field_validator

from orchestrator.options.base import Settings, hosts, listed


class NetworkSettings(Settings):
    """The Docker driver: bridges of runtimes, and what they reach."""

    runtime_network: str | None = None
    """Docker driver: a bridge that exists, made with inter-container traffic off. Without it Nestor makes its own."""
    runtime_subnet: str | None = None
    """Docker driver: subnet of Nestor's first bridge, such as 10.213.0.0/22. Without it a free one of the pool."""
    runtime_pool: str = "10.214.0.0/16"
    """Docker driver: the address space of Nestor's bridges. An engine's own pools end at some thirty networks; this one
    has room for 64 shared ones, 512 of tenants or 4096 of conversations."""
    runtime_cells: Literal["shared", "tenant", "conversation"] = "shared"
    """Docker driver: which runtimes are on one bridge. On a shared one they do not reach one another either; another
    choice costs a tenth of a second a start."""
    egress: Literal["none", "allow-list", "open"] = "allow-list"
    """Docker driver: what runtimes reach outside of this machine: nothing; the hosts of the conversation's model and
    git providers and of `NESTOR_EGRESS_HOSTS`, through a forward proxy; or the public net without private, link-local
    and other inner networks. `NESTOR_RUNTIME_REACHES` holds for all of them. A list, because what an agent reads may
    tell it where to send what it knows."""
    egress_hosts: str = ""
    """Docker driver, allow-list: comma list of further hosts, with a port where it is not 443, such as `pypi.org` or
    `*.example.org:8443`. With each driver: the hosts from which runtimes may fetch a `LookupSecret`."""
    egress_image: str = "nestor-egress:latest"
    """Docker driver, allow-list: the image of the forward proxy. `scripts/images` builds it."""
    runtime_reaches: str = ""
    """Docker driver: comma list of what runtimes may reach although it is inside, such as a model server:
    `192.168.1.20:11434`, `10.20.0.0/24`. Addresses of this machine count too. Empty, because all tenants reach it."""
    network_rules: Literal["own", "outside"] = "own"
    """Docker driver: whether this process sets the machine's network rules, or `nestor netguard` does beside it."""

    @field_validator("egress_hosts")
    @classmethod
    def _reached(cls, text: str) -> str:
        return hosts(text)

    @property
    def reached_hosts(self) -> Sequence[str]:
        return sorted(listed(self.egress_hosts))
