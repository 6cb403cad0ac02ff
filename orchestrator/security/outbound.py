"""The guard of addresses that a caller chose and that this process is to call: it must not become a way into the house.

Pure, but for the resolver that it is given. An address is read strictly (what two parsers could read differently is
refused), its host is resolved once, every address that it has is judged, and whoever connects uses one of the judged
ones, not the name again. `outbound_http.py` is the one client that does so.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from orchestrator.domain.errors import InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]  #: host and port -> addresses as text; raises OSError
MAXIMUM_CHARACTERS = 2048
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
_DOTTED = re.compile(r"(0|[1-9][0-9]{0,2})(\.(0|[1-9][0-9]{0,2})){3}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_INSIDE_NAMES = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "localdomain", "arpa")
_PUBLIC_V6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: Inside of 2000::/3 and yet not the public net: Teredo and 6to4 (both carry an IPv4 address), ORCHID, benchmarks,
#: documentation, and the whole block of special purposes.
_SPECIAL_V6 = tuple(
    ipaddress.ip_network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16")
)
_SPECIAL_V4 = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)


class TargetRefused(InvalidRequest):
    """The address may not be called from here."""

    code = "target_refused"


@dataclass(frozen=True)
class Target:
    """An address, read. `host` is a name in lower case, or an IP address in its one spelling."""

    scheme: str
    host: str
    port: int
    path: str  #: with the query; begins with a slash

    @property
    def authority(self) -> str:
        """As the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"https": 443, "http": 80}[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True)
class Guard:
    """`trusted`: hosts (name or address, as `Target.host` spells them) that the operator allows although they are
    inside, and to which plain http may go."""

    trusted: frozenset[str] = frozenset()

    def read(self, url: str) -> Target:
        """What `url` says. Raises `TargetRefused` for what is not plainly an address of the public net."""
        target = parse(url)
        if target.host in self.trusted:
            return target
        if target.scheme != "https":
            raise TargetRefused("the address has to begin with https://", field="url")
        self._judge_host(target.host)
        return target

    async def addresses(self, target: Target, resolve: Resolver) -> Sequence[str]:
        """Where to connect: each judged, none looked up again. If one of them is inside, none may be called, since
        which one is used would be chance. Raises `TargetRefused`, and OSError of the resolver."""
        if (literal := _address(target.host)) is not None:
            found = [literal]
        else:
            found = [_judgeable(text) for text in await resolve(target.host, target.port)]
        if not found:
            raise TargetRefused("the host has no address", field="url")
        if target.host not in self.trusted:
            for address in found:
                if (kind := inside(address)) is not None:
                    raise TargetRefused(f"the host has an address that may not be called ({kind})", field="url")
        return [str(address) for address in dict.fromkeys(found)]

    def _judge_host(self, host: str) -> None:
        address = _address(host)
        kind = inside(address) if address is not None else None
        if address is None and (host.rpartition(".")[2] in _INSIDE_NAMES or "." not in host):
            kind = "a name of a local network"
        if kind is not None:
            raise TargetRefused(
                f"the host may not be called: it is {kind}",
                field="url",
                hint="use a public https address, or have the operator add the host to NESTOR_ALLOW_HOOK_HOSTS",
            )


def parse(url: str) -> Target:
    """Raises `TargetRefused` unless there is one way to read it."""
    if len(url) > MAXIMUM_CHARACTERS:
        raise TargetRefused(f"the address is longer than {MAXIMUM_CHARACTERS} characters", field="url")
    if not url.isascii() or any(ord(letter) <= 32 or ord(letter) == 127 or letter in '\\"<>^`{|}' for letter in url):
        raise TargetRefused(
            "the address holds a character that has to be encoded", field="url", hint="write names in punycode"
        )
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("https", "http"):
        raise TargetRefused("the address has to begin with https://", field="url")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise TargetRefused("the address holds credentials", field="url", hint="the signature says who sends it")
    if "#" in url:
        raise TargetRefused("the address has a fragment, which is never sent", field="url")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise TargetRefused("the address cannot be read", field="url") from None
    if parts.netloc != authority:
        raise TargetRefused("the address can be read in two ways", field="url")
    host, port = _parted(authority, scheme)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(scheme, host, port, path)


def _parted(authority: str, scheme: str) -> tuple[str, int]:
    if authority.startswith("["):
        text, closed, rest = authority[1:].partition("]")
        if not closed or "%" in text:
            raise TargetRefused("the host is no address", field="url")
        try:
            host = str(ipaddress.IPv6Address(text))
        except ValueError:
            raise TargetRefused("the host is no address", field="url") from None
    else:
        name, colon, tail = authority.partition(":")
        rest = colon + tail
        host = _name(name.lower())
    if not rest:
        return host, 443 if scheme == "https" else 80
    if not _PORT.fullmatch(rest[1:]) or rest[0] != ":" or int(rest[1:]) > 65535:
        raise TargetRefused("the port is no number from 1 to 65535", field="url")
    return host, int(rest[1:])


def _name(host: str) -> str:
    """A name, or an IPv4 address in the one spelling that everybody reads the same. What ends in a number is an
    address to many resolvers, however it is written."""
    host = host.removesuffix(".")
    if _DOTTED.fullmatch(host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise TargetRefused("the host is no address", field="url") from None
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        raise TargetRefused("the host is an address in an unusual spelling", field="url")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise TargetRefused("the host is no name", field="url")
    return host


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _judgeable(text: str) -> Address:
    """What a resolver answered. A zone makes an address one of this machine's links."""
    address = _address(text.partition("%")[0])
    if address is None or "%" in text:
        raise TargetRefused("the host has an address that may not be called (of a link)", field="url")
    return address


def inside(address: Address) -> str | None:
    """What kind of address it is that is not the public net's; None for a public one. What carries an IPv4 address is
    judged by that as well."""
    if isinstance(address, ipaddress.IPv4Address):
        return _kind(address) if any(address in network for network in _SPECIAL_V4) or not _global(address) else None
    if address.ipv4_mapped is not None:
        return f"{inside(address.ipv4_mapped) or 'public'}, mapped into IPv6"
    if address in _NAT64:
        return inside(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address not in _PUBLIC_V6 or any(address in network for network in _SPECIAL_V6) or not _global(address):
        return _kind(address)
    low = int(address) & 0xFFFFFFFFFFFFFFFF
    if low >> 32 in (0x00005EFE, 0x02005EFE):  # ISATAP: a tunnel to the IPv4 address at its end
        return inside(ipaddress.IPv4Address(low & 0xFFFFFFFF))
    return None


def _global(address: Address) -> bool:
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _kind(address: Address) -> str:
    if address.is_unspecified:
        return "the unspecified address"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast:
        return "multicast"
    return "a private address" if address.is_private else "a reserved address"
