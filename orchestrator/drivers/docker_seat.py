"""The orchestrator as a container of the engine that it uses: what it is there, and its seat on each runtimes' bridge.

On the host the machine itself reaches every bridge. A container reaches only bridges that it is connected to, and on
those neighbours do not reach one another; so it takes a fixed address on each cell, and `docker_rules.py` lets that one
address reach runtimes, and runtimes its listener. Further replicas sit on the addresses below. Methods block.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.domain.errors import DriverUnavailable, Misconfigured
from orchestrator.drivers.docker_engine import Engine, Missing, Occupied, Refused
from orchestrator.drivers.docker_network import Network
from orchestrator.drivers.docker_spec import INSTALLATION, PREFIX, RUNTIME

#: A label of the image, and so of every container of it.
ORCHESTRATOR = f"{PREFIX}orchestrator"
MOST_SEATS = 4
_IN_A_CONTAINER = Path("/.dockerenv")
_SHORT = 12


@dataclass(frozen=True)
class Myself:
    """The container that this process runs in."""

    id: str
    image: str  #: the engine's id of its image
    mounts: Mapping[str, str]  #: where the engine has what is mounted, by the path in here

    def engine_path(self, folder: Path) -> Path | None:
        """Where the engine finds a folder of this container; None for one that is in the container itself."""
        for parent in (folder, *folder.parents):
            if (source := self.mounts.get(str(parent))) is not None:
                return Path(PurePosixPath(source)) / folder.relative_to(parent)
        return None


def myself(engine: Engine, named: str | None) -> Myself | None:
    """The container that `NESTOR_CONTAINER` names, or that this process finds itself in; None on the host, also for a
    container in the machine's own network. Raises `Misconfigured` for a name that is none, `DriverUnavailable`."""
    if named is None and not _IN_A_CONTAINER.exists():
        return None
    name = named or socket.gethostname()
    try:
        found = engine.ask(f"look at container {name}", lambda client: dict(client.inspect_container(name)))
    except (Missing, Refused, Occupied):
        if named is not None:
            raise Misconfigured(
                f"NESTOR_CONTAINER: the engine has no container {named}", hint="name the one that Nestor runs in"
            ) from None
        return None
    mine = named is not None or (str(found["Id"]).startswith(name) and len(name) >= _SHORT)
    if not mine or not _is_bridged(found):
        return None
    mounts = {str(one["Destination"]): str(one["Source"]) for one in found.get("Mounts") or () if one.get("Source")}
    return Myself(str(found["Id"]), str(found["Image"]), mounts)


class Seats:
    """This container's places on bridges. Remembers them, so that a start of a runtime asks nothing."""

    def __init__(self, engine: Engine, me: Myself) -> None:
        self._engine = engine
        self._me = me
        self._mine: dict[str, tuple[ipaddress.IPv4Network, str]] = {}  #: subnet and address by the network's id

    def take(self, network: Network) -> bool:
        """Be on that bridge; True if this container was not. Raises `DriverUnavailable`, `Misconfigured`."""
        sitting = {str(one["Id"]): _address(one, network) for one in self._on(network)}
        mine = sitting.get(self._me.id)
        if fresh := not mine:
            mine = self._connect(network, taken={address for address in sitting.values() if address})
        self._mine[network.id] = (ipaddress.IPv4Network(network.subnet), str(mine))
        return fresh

    def known(self, network: Network) -> bool:
        return network.id in self._mine

    def of(self, network: Network) -> tuple[str, ...]:
        """The addresses of all orchestrators on it."""
        return tuple(sorted(address for one in self._on(network) if (address := _address(one, network))))

    def mine_on(self, network: Network) -> str | None:
        """This container's own address there."""
        return self._mine[network.id][1] if network.id in self._mine else None

    def facing(self, host: str) -> str | None:
        """The address under which a runtime at `host` reaches this container; None where that is not known."""
        address = ipaddress.ip_address(host)
        return next((seat for subnet, seat in self._mine.values() if address in subnet), None)

    def give_up(self, network: Network) -> None:
        """Take every orchestrator off a bridge that is about to be removed. Gone already: fine."""
        for one in self._on(network):
            with contextlib.suppress(Missing, Occupied, Refused):
                self._disconnect(str(one["Id"]), network)
        self._mine.pop(network.id, None)

    def _connect(self, network: Network, *, taken: set[str]) -> str:
        last: Exception | None = None
        for address in seats_of(network):
            if address in taken:
                continue
            try:
                self._join(network, address)
            except Missing as exc:
                raise DriverUnavailable(f"network {network.name} was removed meanwhile", hint="try again") from exc
            except (Refused, Occupied, DriverUnavailable) as exc:  # an engine tells a taken address as any of them
                last = exc
                continue
            return address
        raise Misconfigured(
            f"the engine gives this container no address on network {network.name}",
            hint="keep the upper half of its subnet free; Nestor's container has to be on a bridge itself",
        ) from last

    def _join(self, network: Network, address: str) -> None:
        self._engine.act(
            f"join network {network.name}",
            lambda client: client.connect_container_to_network(self._me.id, network.id, ipv4_address=address),
        )

    def _disconnect(self, id: str, network: Network) -> None:
        self._engine.act(
            f"leave network {network.name}",
            lambda client: client.disconnect_container_from_network(id, network.id, force=True),
        )

    def _on(self, network: Network) -> Sequence[Mapping[str, Any]]:
        found = self._engine.ask(
            f"list orchestrators on {network.name}",
            lambda client: client.containers(all=True, filters={"network": network.id}),
        )
        return [one for one in found if sits(one) or str(one["Id"]) == self._me.id]


def sits(container: Mapping[str, Any]) -> bool:
    """Whether a listed container is an orchestrator's. A runtime has labels of ours whatever its image says."""
    labels = container.get("Labels") or {}
    return ORCHESTRATOR in labels and RUNTIME not in labels and INSTALLATION not in labels


def seats_of(network: Network) -> Sequence[str]:
    """Where orchestrators sit: below the forward proxy, which has the last address."""
    return [str(ipaddress.IPv4Network(network.subnet)[-3 - number]) for number in range(MOST_SEATS)]


def _is_bridged(container: Mapping[str, Any]) -> bool:
    mode = str((container.get("HostConfig") or {}).get("NetworkMode") or "")
    return mode not in ("host", "none") and not mode.startswith("container:")


def _address(container: Mapping[str, Any], network: Network) -> str:
    """The one that is asked for where the container does not run: it gets that again."""
    found = ((container.get("NetworkSettings") or {}).get("Networks") or {}).get(network.name) or {}
    return str(found.get("IPAddress") or (found.get("IPAMConfig") or {}).get("IPv4Address") or "")
