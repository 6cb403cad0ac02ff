"""The way out where egress is an allow-list: one forward proxy a cell, as a container of ours on the cell's bridge.

The proxy is squid (`Dockerfile.egress`). Who may reach which host stands in one small file a runtime, named by its
address, in a folder of the data folder that the proxy reads: a change holds from the next connection on, and nothing is
asked of anybody. `docker_rules.py` lets runtimes reach the proxy, and the proxy alone the public net. Methods block.
"""

import contextlib
import ipaddress
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from docker.types import LogConfig, Mount, Ulimit

from orchestrator.domain.errors import DriverUnavailable, Misconfigured
from orchestrator.drivers.docker_engine import Engine, Missing, Occupied, Refused, describe_image
from orchestrator.drivers.docker_network import Network
from orchestrator.drivers.docker_rules import PROXY_PORT
from orchestrator.drivers.docker_spec import PREFIX
from orchestrator.drivers.process_files import write_atomic

EGRESS = f"{PREFIX}egress"
_YOUNG_SECONDS = 60
_MEMORY_BYTES = 256 * 1024**2


class Proxies:
    """All forward proxies of one installation. `folder` is where allow-lists are written, `engine_path` where the
    engine finds it."""

    def __init__(self, engine: Engine, folder: Path, *, installation: str, image: str) -> None:
        self._engine = engine
        self._folder = folder
        self._installation = installation
        self._image = image
        self.engine_path = folder

    def check(self) -> str | None:
        """Why there can be none; None when there can."""
        try:
            describe_image(self._engine, self._image)
        except Missing:
            return (
                f"the engine has no image {self._image}: build it with scripts/images, or set NESTOR_EGRESS to another"
            )
        return None

    def ensure(self, network: Network, *, renew: bool = False) -> bool:
        """Have the cell's proxy running; True if it did not. With `renew` one of another image, such as that of the
        version before, is replaced: what is open through it is cut. Raises `DriverUnavailable`."""
        name = name_of(network)
        found = self._look(name)
        if found is not None and (not found["State"]["Running"] or (renew and found["Image"] != self._image_id())):
            self._remove(name)  # it keeps nothing, so a new one is as good
            found = None
        if found is None:
            self._make(name, network)
        return found is None

    def remove(self, network: Network) -> None:
        """Gone already: fine."""
        self._remove(name_of(network))

    def allow(self, address: str, hosts: Sequence[str]) -> None:
        """What the runtime at that address may reach from now on: `host:port` each."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o755)  # the proxy is another user; the folder above is closed to everybody
        path = self._folder / str(ipaddress.IPv4Address(address))
        write_atomic(path, "".join(f"{host}\n" for host in hosts).encode())
        path.chmod(0o644)

    def sweep(self, network: Network, living: Collection[str]) -> None:
        """Forget what addresses of this cell may reach that no container has. One that has just been written is left:
        its container may be younger than the list."""
        cell = ipaddress.IPv4Network(network.subnet)
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                with contextlib.suppress(ValueError, FileNotFoundError):
                    gone = ipaddress.IPv4Address(path.name) in cell and path.name not in living
                    if gone and time.time() - path.stat().st_mtime > _YOUNG_SECONDS:
                        path.unlink()

    def _make(self, name: str, network: Network) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o755)

        def make(client: Any) -> str:
            host = client.create_host_config(**_host(network, self.engine_path))
            endpoint = client.create_endpoint_config(ipv4_address=address_of(network))
            made = client.create_container(
                self._image,
                name=name,
                user="10001:10001",
                labels={EGRESS: network.name, f"{EGRESS}-of": self._installation},
                host_config=host,
                networking_config=client.create_networking_config({network.name: endpoint}),
                healthcheck={"test": ["NONE"]},  # a process every half minute in each of hundreds of cells is too much
                use_config_proxy=False,
            )
            return str(made["Id"])

        try:
            id = self._engine.act(f"make {name}", make)
        except Occupied:
            found = self._look(name)  # another replica was faster
            if found is None:
                raise DriverUnavailable(f"{name} was removed while it was made") from None
            id = str(found["Id"])
        except Missing as exc:
            raise Misconfigured(f"the engine has no image {self._image}", hint="build it with scripts/images") from exc
        try:
            self._engine.act(f"start {name}", lambda client: client.start(id))
        except (Missing, Occupied) as exc:  # an engine looks for the network now
            self._remove(name)
            raise DriverUnavailable(
                f"network {network.name} was removed while its forward proxy was made", hint="try again"
            ) from exc
        except Refused as exc:
            self._remove(name)
            raise Misconfigured(
                f"the engine gives the forward proxy of network {network.name} no fixed address",
                hint="make the network with a subnet of its own choice, and keep its last address free",
            ) from exc

    def _image_id(self) -> str:
        try:
            return str(describe_image(self._engine, self._image)["Id"])
        except Missing as exc:
            raise Misconfigured(f"the engine has no image {self._image}", hint="build it with scripts/images") from exc

    def _look(self, name: str) -> Mapping[str, Any] | None:
        try:
            return self._engine.ask(f"look at {name}", lambda client: dict(client.inspect_container(name)))
        except Missing:
            return None

    def _remove(self, name: str) -> None:
        with contextlib.suppress(Missing, Occupied, Refused):
            self._engine.act(f"remove {name}", lambda client: client.remove_container(name, force=True, v=True))


def name_of(network: Network) -> str:
    """Of a cell's proxy."""
    return f"{network.name}-egress"


def address_of(network: Network) -> str:
    """The last address of the cell: the engine gives runtimes those of its lower half."""
    return str(ipaddress.IPv4Network(network.subnet)[-2])


def variables(network: Network, direct: Sequence[str]) -> Mapping[str, str]:
    """For a runtime's environment: where its proxy is, and what is reached without it."""
    proxy = f"http://{address_of(network)}:{PROXY_PORT}"
    past = ",".join(["127.0.0.1", "localhost", "::1", network.gateway, *direct])
    found = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": past}
    return {**found, **{name.lower(): value for name, value in found.items()}, "AIOHTTP_TRUST_ENV": "True"}


def _host(network: Network, allow: Path) -> dict[str, Any]:
    return {
        "network_mode": network.name,
        "mounts": [Mount(target="/allow", source=str(allow), type="bind", read_only=True)],
        "read_only": True,
        "tmpfs": {"/tmp": "rw,nosuid,nodev,size=16m,mode=1777", "/run": "rw,nosuid,nodev,size=4m"},  # noqa: S108
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": _MEMORY_BYTES,
        "memswap_limit": _MEMORY_BYTES,
        "pids_limit": 64,
        "ulimits": [Ulimit(name="core", soft=0, hard=0)],
        "init": True,
        "ipc_mode": "private",
        "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m", "max-file": "2"}),
        "restart_policy": {"Name": "on-failure", "MaximumRetryCount": 3},
    }
