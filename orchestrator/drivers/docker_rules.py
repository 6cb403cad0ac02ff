"""What may pass between a bridge of runtimes and everything else, as rules of iptables.

Pure: `docker_firewall.py` sets what this module writes. Three chains a bridge, each complete in itself, so that setting
them again replaces all of it at once: what runtimes send to be forwarded (`-out`, from DOCKER-USER), what they send to
this machine itself (`-in`, from INPUT), and what is sent to them (`-to`, from DOCKER-USER).
"""

import enum
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.domain.errors import Misconfigured

PREFIX = "nst-"
#: Nothing that is no address of the public net: private, shared, loopback, link-local (metadata services live there),
#: the networks for documentation and tests, multicast, and what is reserved.
INSIDE = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
_ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED"
#: Told as "no route": a refusal as by a closed port could not be told from one that was reached.
_REFUSED = "-j REJECT --reject-with icmp-admin-prohibited"
_DNS = 53
PROXY_PORT = 3128


class Egress(enum.StrEnum):
    """What runtimes reach outside of this machine."""

    NONE = "none"
    ALLOW_LIST = "allow-list"  #: hosts by name, through the forward proxy alone
    OPEN = "open"  #: the public net, without everything that is inside


@dataclass(frozen=True)
class Door:
    """One thing that runtimes may reach although it is inside: an address or network, all of it or one TCP port."""

    network: str
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> "Door":
        """From `address`, `address:port` or `network/length:port`. Raises ValueError."""
        network, _, port = text.partition(":")
        number = int(port) if port else 0
        if port and not 0 < number < 65536:
            raise ValueError(f"{text!r} has no port between 1 and 65535")
        return cls(str(ipaddress.IPv4Network(network)), number)

    @classmethod
    def at(cls, address: str, port: int) -> "Door":
        """One port of one address."""
        return cls(f"{address}/32", port)

    def covers(self, address: str) -> bool:
        """Whether it opens every port of the address."""
        return not self.port and ipaddress.IPv4Address(address) in ipaddress.IPv4Network(self.network)

    def matches(self) -> str:
        return f"-d {self.network}" + (f" -p tcp --dport {self.port}" if self.port else "")


@dataclass(frozen=True)
class Wall:
    """What holds for all bridges of an installation."""

    egress: Egress = Egress.OPEN
    doors: Sequence[Door] = ()
    listener: Door | None = None  #: the runtime-facing listener
    seats_port: int = 0  #: the same of an orchestrator that is a container: a port of its address on each bridge
    name_servers: Sequence[str] = ()  #: this machine's own: often inside, and needed where names are resolved


@dataclass(frozen=True)
class Yard:
    """One bridge."""

    bridge: str
    proxy: str = ""  #: address of its forward proxy
    proxy_port: int = 0
    seats: tuple[str, ...] = ()  #: addresses of orchestrators on it


def parse_doors(text: str, *, variable: str) -> Sequence[Door]:
    """A comma list. Raises `Misconfigured` naming the variable."""
    try:
        return [Door.parse(item.strip()) for item in text.split(",") if item.strip()]
    except ValueError as exc:
        raise Misconfigured(f"{variable}: {exc}", hint="such as 192.168.1.20:11434 or 10.20.0.0/24") from None


def chains_of(bridge: str) -> tuple[str, str, str]:
    """The names of the chains `-out`, `-in` and `-to`. A bridge's name has 15 characters at most, a chain's 28."""
    return f"{bridge}-out", f"{bridge}-in", f"{bridge}-to"


def bridge_of(chain: str) -> str:
    """Whose chain it is; empty for one that is nobody's of ours."""
    bridge, _, kind = chain.rpartition("-")
    return bridge if kind in ("out", "in", "to") else ""


def jumps_of(bridge: str) -> Sequence[tuple[str, str]]:
    """Where each chain is entered from: (chain of the machine, rule). They have to come before everybody else's."""
    out, inward, to = chains_of(bridge)
    return (
        ("DOCKER-USER", f"-o {bridge} -j {to}"),
        ("DOCKER-USER", f"-i {bridge} -j {out}"),
        ("INPUT", f"-i {bridge} -j {inward}"),
    )


def rules_of(yard: Yard, wall: Wall) -> Sequence[str]:
    """All rules of a bridge's chains, in order, each as `-A chain ...`."""
    out, inward, to = chains_of(yard.bridge)
    return [
        *(f"-A {out} {rule}" for rule in _out(yard, wall)),
        *(f"-A {inward} {rule}" for rule in _inward(yard, wall)),
        *(f"-A {to} {rule}" for rule in _to(yard)),
    ]


def restore_input(yard: Yard, wall: Wall) -> str:
    """For `iptables-restore --noflush`: the three chains, emptied and filled in one act."""
    declared = [f":{chain} - [0:0]" for chain in chains_of(yard.bridge)]
    return "\n".join(["*filter", *declared, *rules_of(yard, wall), "COMMIT", ""])


def enter_input(bridge: str, saved: Sequence[str]) -> str:
    """For `iptables-restore --noflush`: the chains are entered first, and once, in one act, so that there is no moment
    without them. By what a rule says and never by its place: somebody else may put one in meanwhile. `saved` is what
    there is now, as `iptables-save` prints it; refused where one of it is gone."""
    lines = ["*filter"]
    for chain, rule in jumps_of(bridge):
        lines += [f"-D {chain} {rule}" for line in saved if line == f"-A {chain} {rule}"]
        lines.append(f"-I {chain} 1 {rule}")
    return "\n".join([*lines, "COMMIT", ""])


def _out(yard: Yard, wall: Wall) -> Iterator[str]:
    """Refused, not dropped: a command that is told so ends at once, one that waits takes minutes."""
    if yard.proxy:
        # The proxy is a neighbour on the bridge, and the only one: it serves, and it alone reaches the public net.
        yield f"-d {yard.proxy} -p tcp --dport {yard.proxy_port} -j ACCEPT"
        yield f"-s {yard.proxy} -o {yard.bridge} {_ESTABLISHED} -j ACCEPT"
    for seat in yard.seats:
        # An orchestrator begins connections to runtimes; they reach its listener, and nothing else that listens there.
        yield f"-s {seat} -o {yard.bridge} -j ACCEPT"
        yield f"-d {seat} -o {yard.bridge} {_ESTABLISHED} -j ACCEPT"
        if wall.seats_port:
            yield f"-d {seat} -p tcp --dport {wall.seats_port} -o {yard.bridge} -j ACCEPT"
    yield f"-o {yard.bridge} -j DROP"
    for seat in yard.seats:
        yield f"-s {seat} -j RETURN"  # an engine may lead all that it sends out over this bridge
    yield f"{_ESTABLISHED} -j RETURN"
    for door in wall.doors:
        yield f"{door.matches()} -j ACCEPT"
    if yard.proxy:
        yield from _names(wall, f"-s {yard.proxy} ")
        for network in INSIDE:
            yield f"-s {yard.proxy} -d {network} {_REFUSED}"
        yield f"-s {yard.proxy} -j RETURN"
    if wall.egress is not Egress.OPEN:
        yield _REFUSED
        return
    yield from _names(wall, "")
    for network in INSIDE:
        yield f"-d {network} {_REFUSED}"
    yield "-j RETURN"


def _names(wall: Wall, who: str) -> Iterator[str]:
    for server in wall.name_servers:
        for protocol in ("udp", "tcp"):
            yield f"{who}-d {server} -p {protocol} --dport {_DNS} -j RETURN"


def _inward(yard: Yard, wall: Wall) -> Iterator[str]:
    yield f"{_ESTABLISHED} -j ACCEPT"
    for seat in yard.seats:
        yield f"-s {seat} -j RETURN"
    if wall.listener is not None:
        yield f"{wall.listener.matches()} -j ACCEPT"
    for door in wall.doors:
        yield f"{door.matches()} -j ACCEPT"
    yield "-j DROP"


def _to(yard: Yard) -> Iterator[str]:
    """From this machine everything may come, which does not pass here; from elsewhere answers alone."""
    yield f"{_ESTABLISHED} -j RETURN"
    if yard.proxy:
        yield f"-i {yard.bridge} -d {yard.proxy} -j RETURN"
    yield "-j DROP"
