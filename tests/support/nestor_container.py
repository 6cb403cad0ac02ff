"""Nestor in a container on an ordinary bridge, with the engine's socket: not the machine's network, no capability.

Beside it a Redis in a container, and a scripted model on the gateway of the runtimes' bridge.
"""

import os
import secrets
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import httpx

from support import containers
from support.docker_nestor import Client, talking_to
from support.ports import lasting_port

_SOCKET = "/var/run/docker.sock"
API_PORT, FACING_PORT = 8080, 8081


@dataclass
class Contained:
    """What was made. Its name begins with `mark`."""

    mark: str
    operator_key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    #: of the runtimes' first bridge, in a pool that no other test uses
    net: str = field(default_factory=lambda: f"10.216.{secrets.randbelow(250)}")
    model_port: int = field(default_factory=lasting_port)

    @property
    def gateway(self) -> str:
        return f"{self.net}.1"

    @property
    def name(self) -> str:
        return f"{self.mark}-nestor"

    @property
    def url(self) -> str:
        networks = containers.inspect("container", self.name)["NetworkSettings"]["Networks"]
        return f"http://{networks[self.mark]['IPAddress']}:{API_PORT}"

    def run(self, **settings: str) -> None:
        """Start it, as docs/docker.md says."""
        told = {
            "NESTOR_HOST": "0.0.0.0",
            "NESTOR_ALLOW_NON_LOOPBACK": "1",
            "NESTOR_REDIS_URL": f"redis://{self.mark}-redis:6379/0",
            "NESTOR_OPERATOR_KEY": self.operator_key,
            "NESTOR_RUNTIME_FACING": f"0.0.0.0:{FACING_PORT}",
            "NESTOR_RUNTIME_PORTS": "0",
            "NESTOR_RUNTIME_SUBNET": f"{self.net}.0/24",
            "NESTOR_RUNTIME_REACHES": f"{self.gateway}:{self.model_port}",
            "NESTOR_ALLOW_HTTP_HOSTS": self.gateway,
            **settings,
        }
        words = ["run", "--detach", "--name", self.name, "--network", self.mark, "--cap-drop", "ALL"]
        words += ["--security-opt", "no-new-privileges:true", "--read-only", "--tmpfs", "/tmp"]
        words += ["--volume", f"{self.mark}-data:/data", "--volume", f"{_SOCKET}:{_SOCKET}"]
        words += ["--group-add", str(os.stat(_SOCKET)[stat.ST_GID])]
        for name, value in told.items():
            words += ["--env", f"{name}={value}"]
        containers.docker(*words, "nestor-orchestrator")

    def log(self) -> str:
        """The end of what it printed."""
        words = ["docker", "logs", "--tail", "60", self.name]
        return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout

    def left(self) -> list[str]:
        """The bridges of its runtimes that the engine has."""
        words = ("network", "ls", "--quiet", "--filter", "label=io.nestor.installation")
        return [id for id in containers.docker(*words).split() if f"{self.net}." in self._pools_of(id)]

    @property
    def installation(self) -> str:
        """Its id, while there is a bridge."""
        return str(containers.inspect("network", self.left()[0])["Labels"]["io.nestor.installation"])

    @staticmethod
    def _pools_of(network: str) -> str:
        try:
            return str(containers.inspect("network", network)["IPAM"])
        except AssertionError:
            return ""  # another's, removed since it was listed

    async def up(self) -> str:
        """Its address, once it is ready."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            with anyio.fail_after(90):
                while True:
                    shown = containers.inspect("container", self.name)
                    assert shown["State"]["Running"], self.log()
                    try:
                        if (await http.get(f"{self.url}/ready")).status_code == 200:
                            return self.url
                    except httpx.HTTPError:
                        pass
                    await anyio.sleep(0.2)


@asynccontextmanager
async def contained_nestor(**settings: str) -> AsyncIterator[tuple[Contained, Client]]:
    """Up, for the length of the block. Nothing of it is left afterwards."""
    made = Contained(f"nst-{secrets.token_hex(4)}")
    containers.docker("network", "create", made.mark)
    try:
        containers.docker("run", "--detach", "--name", f"{made.mark}-redis", "--network", made.mark, "redis:7-bookworm")
        made.run(**settings)
        url = await made.up()
        async with talking_to(url, made.operator_key, gateway=made.gateway, port=made.model_port) as client:
            yield made, client
    finally:
        _remove(made)


def _remove(made: Contained) -> None:
    """By what is on the bridge: also after a failure."""
    mine = containers.docker("ps", "--all", "--quiet", "--filter", f"name={made.mark}").split()
    for network in made.left():
        mine += containers.docker("ps", "--all", "--quiet", "--filter", f"network={network}").split()
        installation = containers.inspect("network", network)["Labels"]["io.nestor.installation"]
        label = f"label=io.nestor.rules={installation}"
        mine += containers.docker("ps", "--all", "--quiet", "--filter", label).split()
    if mine:
        containers.docker("rm", "--force", "--volumes", *set(mine))
    for network in [*made.left(), made.mark]:
        containers.docker("network", "rm", network)
    containers.docker("volume", "rm", "--force", f"{made.mark}-data")
