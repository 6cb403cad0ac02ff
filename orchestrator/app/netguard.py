"""`nestor netguard`: holds the rules of one bridge of runtimes, where the orchestrator itself may not set any.

In compose it has the machine's network, CAP_NET_ADMIN, and neither the engine's socket nor a secret. It finds the
bridge by the address that this machine has on it, sets the rules, looks at them every other second, and takes them
away when it is told to end. The orchestrator does not take its word: it tries out what runtimes reach.
"""

import fcntl
import ipaddress
import signal
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from orchestrator.domain.errors import Misconfigured, NestorError
from orchestrator.drivers.docker_firewall import Firewall, name_servers
from orchestrator.drivers.docker_rules import PROXY_PORT, Door, Egress, Wall, Yard, parse_doors
from orchestrator.settings import OrchestratorSettings

log = structlog.get_logger(__name__)
_PERIOD_SECONDS = 2.0
_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B


def guard(
    settings: OrchestratorSettings, *, gateway: str, holds: Path | None, orchestrators: Sequence[str] = ()
) -> None:
    """Until SIGTERM or SIGINT. `holds` is a file that exists while the rules do: for a health check. `orchestrators`
    are addresses on the bridge of those that are containers on it.

    Raises `Misconfigured` when no rule can be set here, or the settings name none to set.
    """
    wall, seats = _wall(settings), _seats(orchestrators)
    if seats and wall.listener is not None:
        wall = replace(wall, listener=None, seats_port=wall.listener.port)
    firewall = Firewall()
    trouble = firewall.trouble()
    if trouble is not None:
        raise Misconfigured(f"nestor netguard cannot work: {trouble}", hint="it needs iptables and CAP_NET_ADMIN")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    bridge: str | None = None
    try:
        while True:
            bridge = _tick(firewall, wall, gateway, bridge, seats)
            if holds is not None:
                holds.touch() if bridge is not None else holds.unlink(missing_ok=True)
            if ended.wait(_PERIOD_SECONDS):
                return
    finally:
        if holds is not None:
            holds.unlink(missing_ok=True)
        if bridge is not None:
            firewall.remove(bridge)


def _tick(firewall: Firewall, wall: Wall, gateway: str, bridge: str | None, seats: tuple[str, ...]) -> str | None:
    """The bridge whose rules hold now; None while there is none. One that is gone has its rules removed."""
    found = yard_at(gateway, proxied=wall.egress is Egress.ALLOW_LIST)
    found = replace(found, seats=seats) if found is not None else None
    try:
        if bridge is not None and (found is None or found.bridge != bridge):
            firewall.remove(bridge)
        if found is not None and not firewall.holds(found):
            firewall.put(found, wall)
            log.warning("netguard.set", bridge=found.bridge)
    except NestorError as exc:
        log.error("netguard.failed", problem=exc.message, hint=exc.hint)
        return None
    return found.bridge if found is not None else None


def _seats(addresses: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(sorted(str(ipaddress.IPv4Address(address)) for address in addresses))
    except ValueError as exc:
        raise Misconfigured(f"--orchestrator: {exc}", hint="an address on the bridge, such as 10.213.3.253") from None


def _wall(settings: OrchestratorSettings) -> Wall:
    listener = None
    if settings.runtime_facing is not None:
        host, _, port = settings.runtime_facing.rpartition(":")
        if not port.isdigit() or not int(port):
            raise Misconfigured("NESTOR_RUNTIME_FACING has to name a port for nestor netguard, such as 10.213.0.1:8081")
        listener = Door.at(host, int(port))
    doors: Sequence[Door] = parse_doors(settings.runtime_reaches, variable="NESTOR_RUNTIME_REACHES")
    return Wall(Egress(settings.egress), doors, listener, name_servers=name_servers())


def yard_at(gateway: str, *, proxied: bool) -> Yard | None:
    """The bridge on which this machine has that address; `proxied` when a forward proxy has its last address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                address, mask = (
                    socket.inet_ntoa(fcntl.ioctl(probe.fileno(), number, request)[20:24])
                    for number in (_SIOCGIFADDR, _SIOCGIFNETMASK)
                )
            except OSError:
                continue  # an interface without an address
            if address == gateway:
                last = str(ipaddress.IPv4Network(f"{gateway}/{mask}", strict=False)[-2])
                return Yard(name, last, PROXY_PORT) if proxied else Yard(name)
    return None
