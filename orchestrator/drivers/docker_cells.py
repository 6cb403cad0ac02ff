"""Cells: the bridges that runtimes are put on, from an address pool of our own, each behind the same wall.

One bridge is shared by up to five hundred runtimes, because they do not reach one another on it anyway and a spare of
the warm pool has no tenant yet; a bridge for each tenant or each conversation is the operator's choice. The driver asks
for the network of a runtime before it makes it, and the reconciler lets the wall be looked at. Methods block.
"""

import enum
import hashlib
import ipaddress
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.errors import DriverUnavailable, NestorError
from orchestrator.drivers import docker_network, docker_pool, docker_proxy
from orchestrator.drivers.docker_engine import Engine
from orchestrator.drivers.docker_firewall import Firewall
from orchestrator.drivers.docker_helper import Helper
from orchestrator.drivers.docker_network import BridgeTaken, Network
from orchestrator.drivers.docker_proxy import Proxies
from orchestrator.drivers.docker_rules import PREFIX, PROXY_PORT, Wall, Yard
from orchestrator.drivers.docker_seat import Seats, sits
from orchestrator.drivers.values import OwnerLabels

SHARED_RUNTIMES = 500
_TURNS = 8
_FURTHEST = 1024  #: cells of one kind are numbered below that


class CellKind(enum.StrEnum):
    """Which runtimes share a bridge."""

    SHARED = "shared"
    TENANT = "tenant"
    CONVERSATION = "conversation"


#: Of a cell's subnet; runtimes get the lower half of it.
_PREFIX_LENGTH: Mapping[CellKind, int] = {CellKind.SHARED: 22, CellKind.TENANT: 25, CellKind.CONVERSATION: 28}
#: Runtimes in one cell, with some addresses to spare; the next ones are in a further cell of the same.
_MOST: Mapping[CellKind, int] = {CellKind.SHARED: SHARED_RUNTIMES, CellKind.TENANT: 60}


@dataclass(frozen=True)
class Place:
    """Where a runtime that is about to be made will be."""

    network: str  #: by name
    told: Mapping[str, str]  #: what the runtime is told about its way out
    key: str = ""  #: of the cell
    remembered: Network | None = None  #: not looked at for this runtime; None: it was


class Cells:
    """All bridges of one installation."""

    def __init__(
        self,
        engine: Engine,
        *,
        installation: str,
        network: str | None,
        subnet: str | None,
        pool: str,
        kind: CellKind,
        proxies: Proxies | None = None,
    ) -> None:
        """`network` is one that somebody else made and keeps: then it is the only one. `proxies` are the way out of
        runtimes that have no other. Where the orchestrator is a container itself, `sit` comes next."""
        self._seats: Seats | None = None
        self._helper: Helper | None = None
        self._proxies = proxies
        self._engine = engine
        self._installation = installation
        self._given = network
        self._subnet = subnet
        self._pool = docker_pool.pool_of(pool)
        self._kind = kind
        self._wall: Wall | None = None
        self.firewall = Firewall()
        self._lock = threading.Lock()
        self._crowd: dict[str, int] = {}  #: runtimes by cell, as of the last look, plus those made since
        self._empty: set[str] = set()
        self._known: dict[str, Network] = {}  #: by cell, as of the last look

    @property
    def base(self) -> str:
        """The name of the first cell, which every installation has."""
        return self._given or network_name(self._installation)

    @property
    def shared(self) -> bool:
        return self._kind is CellKind.SHARED

    def sit(self, seats: Seats, helper: Helper | None) -> None:
        """The orchestrator is a container: it takes a seat on each bridge, and rules are set by the helper, if not by
        somebody else."""
        self._seats, self._helper, self.firewall = seats, helper, Firewall(helper)

    def first(self) -> Network | None:
        """The first cell, made if it is ours and missing; None when the one that was named is not there."""
        if self._given is None:
            return self._ensure("")
        found = docker_network.find(self._engine, self._given)
        if found is not None and self._seats is not None:
            self._seats.take(found)
        return found

    def enter(self, labels: OwnerLabels) -> Place:
        """For a runtime that is about to be made: a cell that is remembered, as it was seen last, or one that is looked
        at now."""
        if self._given is not None:
            self._hold_given()
            known = docker_network.find(self._engine, self._given) if self._proxies is not None else None
            return Place(self._given, self._told(known))
        key = self._key_of(labels)
        remembered = self._known.get(key)
        network = remembered or self._ensure(key)
        with self._lock:
            self._crowd[key] = self._crowd.get(key, 0) + 1
        return Place(network.name, self._told(network), key, remembered)

    def confirm(self, labels: OwnerLabels, place: Place | None, *, network: str = "") -> None:
        """Return when the network of a runtime is behind the wall, and the one that was remembered where it entered;
        None: that was elsewhere, and `network` is the one that it was made for. Raises `DriverUnavailable`."""
        if place is None and self._given is None:
            keys = (self._numbered(labels, number) for number in range(_FURTHEST))
            self._ensure(next((key for key in keys if self._name(key) == network), self._key_of(labels)))
        elif place is not None and place.remembered is not None and self._ensure(place.key) != place.remembered:
            raise DriverUnavailable(f"network {place.network} was made anew meanwhile", hint="try again")

    def forget(self, place: Place) -> None:
        """The next runtime's is looked at before it is made."""
        self._known.pop(place.key, None)

    def fill(self, place: Place) -> None:
        """The engine has no address left there: the next runtime is put elsewhere, until the next look."""
        if self._given is None:
            with self._lock:
                self._crowd[place.key] = _MOST.get(self._kind, 0)

    def _hold_given(self) -> None:
        """Another replica that ended may have taken rules and proxy along."""
        if self._wall is None and self._proxies is None:
            return
        for network in self._all():
            if self._wall is not None and not self.firewall.holds(self._yard(network)):
                self.firewall.put(self._yard(network), self._wall)
            if self._proxies is not None:
                self._proxies.ensure(network)

    def leave(self, labels: OwnerLabels) -> None:
        """A runtime is gone. A cell of its own goes with the last one."""
        if self._given is not None or self.shared:
            return
        for number in itertools.count():
            network = docker_network.find(self._engine, self._name(self._numbered(labels, number)))
            if network is None:
                return  # one behind a gap is found by `mend`
            self._remove(network)

    def raise_wall(self, wall: Wall) -> None:
        """Set the rules of every cell, now and of those to come. Raises `DriverUnavailable`."""
        self._wall = wall
        for network in self._all():
            if self._seats is not None:
                self._seats.take(network)
            self.firewall.put(self._yard(network), wall)

    def raise_proxies(self) -> None:
        """Have the forward proxy of every cell running, of the image that there is now. Raises `DriverUnavailable`."""
        if self._proxies is not None:
            for network in self._all():
                self._proxies.ensure(network, renew=True)

    def _told(self, network: Network | None) -> Mapping[str, str]:
        if network is None or self._proxies is None:
            return {}
        doors = self._wall.doors if self._wall is not None else ()
        direct = [door.network.removesuffix("/32") for door in doors]
        seat = self._seats.mine_on(network) if self._seats is not None else None
        return docker_proxy.variables(network, [*direct, *([seat] if seat else [])])

    def mend(self) -> Sequence[str]:
        """Set what is missing, remove cells and rules that nobody uses; answers what was done, in words."""
        # Rules before networks: of a network that is made meanwhile, here or by another replica, no rule is left over.
        saved = self.firewall.saved() if self._wall is not None else ()
        networks = self._all()
        done = list(self._mend_seats(self._seats, networks)) if self._seats is not None else []
        done += list(self._mend_rules(networks, saved)) if self._wall is not None else []
        if self._proxies is not None:
            done += self._mend_proxies(self._proxies, networks)
        if self._given is not None:
            return done
        for network in networks:
            used = self._used(network)
            self._crowd[network.cell] = used if used < _room(network) else _MOST.get(self._kind, used)
            if used or network.name == self.base:
                self._empty.discard(network.name)
            elif network.name in self._empty:  # seen empty twice: nobody is about to be put there
                self._remove(network)
                done.append(f"network {network.name} was empty and is gone")
            else:
                self._empty.add(network.name)
        return done

    def close(self) -> None:
        """Remove every cell in which nothing is left."""
        if self._given is not None:
            self._leave_given()
            return
        for network in docker_network.of_installation(self._engine, self._installation):
            self._remove(network)
        if self._helper is not None and not self._all():
            self._helper.remove()

    def _leave_given(self) -> None:
        network = docker_network.find(self._engine, self._given or "")
        if network is None or self._used(network):
            return
        if self._wall is not None:
            self.firewall.remove(network.bridge)
        if self._proxies is not None:
            self._proxies.remove(network)
        if self._seats is not None:
            self._seats.give_up(network)
        if self._helper is not None:
            self._helper.remove()

    def _mend_seats(self, seats: Seats, networks: Sequence[Network]) -> Iterator[str]:
        for network in networks:
            with self._unless_gone(network):
                if seats.take(network):
                    yield f"this container was not on network {network.name}"

    def _mend_proxies(self, proxies: Proxies, networks: Sequence[Network]) -> Iterator[str]:
        for network in networks:
            with self._unless_gone(network):
                if proxies.ensure(network):
                    yield f"the forward proxy of network {network.name} did not run"
                living = {address for one in self._on(network) if (address := _address(one, network))}
                proxies.sweep(network, living)

    @contextmanager
    def _unless_gone(self, network: Network) -> Iterator[None]:
        """What fails about a network that left with its last runtime since it was listed is nobody's trouble."""
        try:
            yield
        except DriverUnavailable:
            if docker_network.find(self._engine, network.name) is not None:
                raise

    def _mend_rules(self, networks: Sequence[Network], saved: Sequence[str]) -> Iterator[str]:
        if self._wall is None:
            return
        for network in networks:
            yard = self._yard(network)
            if self.firewall.holds(yard, saved) or self.firewall.holds(yard):  # set since all were looked at
                continue
            if docker_network.find(self._engine, network.name) is not None:
                self.firewall.put(yard, self._wall)
                yield f"the rules of network {network.name} were not as they have to be"
        ours, there = self._bridge_prefix(), {network.bridge for network in networks}
        for bridge in self.firewall.bridges(saved):
            if bridge.startswith(ours) and bridge not in there:
                self.firewall.remove(bridge)
                yield f"rules of bridge {bridge} were left over"

    def _all(self) -> Sequence[Network]:
        if self._given is None:
            return docker_network.of_installation(self._engine, self._installation)
        network = docker_network.find(self._engine, self._given)
        return [network] if network is not None else []

    def _key_of(self, labels: OwnerLabels) -> str:
        keys = (self._numbered(labels, number) for number in itertools.count())
        most = _MOST.get(self._kind)
        with self._lock:
            return next(key for key in keys if most is None or self._crowd.get(key, 0) < most)

    def _numbered(self, labels: OwnerLabels, number: int) -> str:
        """The key of the first of its cells, which is number 0, or of a further one."""
        first = {
            CellKind.SHARED: "shared" if number else "",
            CellKind.TENANT: f"tenant {labels.tenant}",
            CellKind.CONVERSATION: f"conversation {labels.runtime}",
        }[self._kind]
        return f"{first} {number}" if number else first

    def _ensure(self, key: str) -> Network:
        """As it is seen now, made if it is missing."""
        self._known[key] = found = self._see(key)
        return found

    def _see(self, key: str) -> Network:
        name, subnet = self._name(key), None if key else self._subnet
        known, fresh = docker_network.find(self._engine, name), False
        if known is None:
            known = self._make(key, name, subnet)
            fresh = True
        if self._seats is not None and not self._seats.known(known):
            self._seats.take(known)
        if self._wall is not None and not self.firewall.holds(self._yard(known)):
            self.firewall.put(self._yard(known), self._wall)
        if fresh and self._proxies is not None and key:  # the first cell has its own by `raise_proxies`
            self._proxies.ensure(known)
        return known

    def _make(self, key: str, name: str, subnet: str | None) -> Network:
        """An interface's name is short: that of another cell may be the same, and then it gets another one."""
        for turn in range(_TURNS):
            with suppress(BridgeTaken):
                return self._make_with(self._bridge(key, turn), key, name, subnet)
        return self._make_with(self._bridge(key, _TURNS), key, name, subnet)

    def _make_with(self, bridge: str, key: str, name: str, subnet: str | None) -> Network:
        made: dict[str, Any] = {"installation": self._installation, "bridge": bridge, "cell": key}
        if subnet is not None:
            return docker_network.ensure(self._engine, name, subnet=subnet, **made)
        machine = (
            docker_pool.routes_in(self._helper.run("cat", docker_pool.ROUTES).stdout)
            if self._helper is not None
            else None
        )
        return docker_pool.make_in(
            self._engine, self._pool, name, length=_PREFIX_LENGTH[self._kind], machine=machine, **made
        )

    def _remove(self, network: Network) -> None:
        if self._used(network):
            return
        if self._proxies is not None:
            self._proxies.remove(network)
        if self._seats is not None:
            self._seats.give_up(network)
        docker_network.remove(self._engine, network.name)
        if docker_network.find(self._engine, network.name) is None:
            self._known.pop(network.cell, None)
            self._crowd.pop(network.cell, None)
            self._empty.discard(network.name)
            if self._wall is not None:
                with suppress(NestorError):  # the next look removes what is left
                    self.firewall.remove(network.bridge)

    def _used(self, network: Network) -> int:
        return len(self._on(network))

    def _on(self, network: Network) -> Sequence[Mapping[str, Any]]:
        """The containers on it, its own proxy and orchestrators apart. By the name too: one that was made and not
        started yet has no more of its network than that."""
        found = self._engine.ask(
            f"list what is on {network.name}",
            lambda client: client.containers(all=True, filters={"network": [network.id, network.name]}),
        )
        return [one for one in found if docker_proxy.EGRESS not in (one.get("Labels") or {}) and not sits(one)]

    def _yard(self, network: Network) -> Yard:
        seats = self._seats.of(network) if self._seats is not None else ()
        if self._proxies is None:
            return Yard(network.bridge, seats=seats)
        return Yard(network.bridge, docker_proxy.address_of(network), PROXY_PORT, seats)

    def _name(self, key: str) -> str:
        return self.base + (f"-{_short(key, 8)}" if key else "")

    def _bridge_prefix(self) -> str:
        return f"{PREFIX}{self._installation.replace('-', '')[:6]}"

    def _bridge(self, key: str, turn: int) -> str:
        return self._bridge_prefix() + _short(f"{key} again {turn}" if turn else key, 5)


def network_name(installation: str) -> str:
    """The name of an installation's first bridge."""
    return f"nestor-{installation.replace('-', '')[:11]}"


def _room(network: Network) -> int:
    """How many addresses the engine has for runtimes: the lower half without the network's own and the gateway's."""
    return ipaddress.IPv4Network(network.subnet).num_addresses // 2 - 2


def _address(container: Mapping[str, Any], network: Network) -> str:
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    return str((networks.get(network.name) or {}).get("IPAddress") or "")


def _short(text: str, characters: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:characters]
