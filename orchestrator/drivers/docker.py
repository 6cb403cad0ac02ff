"""Runtimes as containers of a Docker engine on this machine: hardened, limited, on a bridge of their own.

`app.py` makes one; provisioning and the reconciler call it through `base.Driver`. This file only brings the verbs into
worker threads, under a bound, and says what holds: the work is in `docker_lifecycle.py`. It knows nothing of the
runtime's own API.
"""

import errno
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

import anyio
import anyio.to_thread

from orchestrator.domain.errors import DriverUnavailable, NestorError
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers import docker_network
from orchestrator.drivers.base import (
    Capabilities,
    DriverEvent,
    Endpoint,
    Fingerprint,
    Handle,
    Observed,
    OwnerLabels,
    RuntimeSpec,
)
from orchestrator.drivers.docker_engine import Engine, Missing, describe_image
from orchestrator.drivers.docker_events import hints
from orchestrator.drivers.docker_fences import Fences
from orchestrator.drivers.docker_lifecycle import Lifecycle
from orchestrator.drivers.docker_volumes import EngineVolumes, FolderVolumes, Volumes

T = TypeVar("T")

_THREADS = 16  # engine calls under way at once


class DockerDriver:
    """See `base.Driver`, `base.Pausable`, `base.Prunable`. `folder` is the data folder; several drivers may use it
    at once.

    `network` is a bridge that somebody else made and keeps; without it the driver has its own, with `subnet` if that
    is given, removed by `close` once no runtime of the installation is left. `data_volume` names the engine's volume
    that the data folder is on, where the orchestrator is a container itself: workspaces are folders of it then.
    Making a driver asks the engine nothing; `fingerprint` has to be called before the first runtime is created.
    """

    name = "docker"
    capabilities = Capabilities(
        isolation=(
            "Each runtime is a container of its own: another user without capabilities, a read-only system, limits of "
            "memory, processors and processes, and a network on which runtimes do not reach one another. They share "
            "this machine's kernel, reach the outside, and reach whatever listens on this machine's 0.0.0.0 or on "
            "their bridge's address, because no firewall rule is set."
        ),
        isolated=True,
        pause=True,
    )

    def __init__(
        self,
        folder: Path,
        *,
        installation: str,
        image: str,
        host: str = "unix:///var/run/docker.sock",
        network: str | None = None,
        subnet: str | None = None,
        data_volume: str | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._installation = installation
        self._image = image
        self._engine = Engine(host)
        self._own_network = network is None
        self._network = network or network_name(installation)
        self._subnet = subnet
        self._data_volume = data_volume
        self._fences = Fences(self._folder / "docker")
        self._volumes: Volumes = EngineVolumes(self._engine, self._fences)
        self._limiter = anyio.CapacityLimiter(_THREADS)

    async def fingerprint(self) -> Fingerprint:
        try:
            return await self._in_thread(self._fingerprint)
        except NestorError as exc:
            return Fingerprint(usable=False, message=f"{exc.message}. {exc.hint}" if exc.hint else exc.message)

    async def ensure_volume(self, labels: OwnerLabels, *, fence: int) -> bool:
        return await self._in_thread(lambda: self._volumes.ensure(labels, fence=fence))

    async def remove_volume(self, labels: OwnerLabels, *, fence: int) -> None:
        await self._in_thread(lambda: self._volumes.remove(labels, fence=fence))

    async def prune(self, installation: str, *, fence: int) -> None:
        await self._in_thread(lambda: self._volumes.prune(installation, fence=fence))

    async def create(self, spec: RuntimeSpec, *, fence: int) -> Handle:
        return await self._in_thread(lambda: self._lifecycle.create(spec, fence))

    async def start(self, handle: Handle, *, fence: int, init_key: SecretText) -> Endpoint:
        return await self._in_thread(lambda: self._lifecycle.start(handle, fence, init_key))

    async def inspect(self, handle: Handle) -> Observed:
        return await self._in_thread(lambda: self._lifecycle.inspect(handle))

    async def logs(self, handle: Handle, *, lines: int = 20) -> Sequence[str]:
        return await self._in_thread(lambda: self._lifecycle.logs(handle, lines))

    async def stop(self, handle: Handle, *, fence: int, grace: float) -> None:
        await self._in_thread(lambda: self._lifecycle.stop(handle, fence, grace))

    async def destroy(self, handle: Handle, *, fence: int) -> None:
        await self._in_thread(lambda: self._lifecycle.destroy(handle, fence))

    async def pause(self, handle: Handle, *, fence: int) -> None:
        await self._in_thread(lambda: self._lifecycle.pause(handle, fence))

    async def unpause(self, handle: Handle, *, fence: int) -> Endpoint:
        return await self._in_thread(lambda: self._lifecycle.unpause(handle, fence))

    async def find(self, name: str) -> Handle | None:
        return await self._in_thread(lambda: self._lifecycle.find(name))

    async def list(self, installation: str) -> Sequence[Handle]:
        return await self._in_thread(lambda: self._lifecycle.list(installation))

    async def events(self) -> AsyncIterator[DriverEvent]:
        async for hint in hints(self._engine.host):
            yield hint

    async def close(self) -> None:
        try:
            await self._in_thread(self._remove_own_network)
        except DriverUnavailable:
            pass  # an engine that is away keeps its network; the next start finds and uses it
        finally:
            self._engine.close()

    @property
    def _lifecycle(self) -> Lifecycle:
        return Lifecycle(self._engine, self._fences, self._volumes, network=self._network, image=self._image)

    def _fingerprint(self) -> Fingerprint:
        version = self._engine.ask("tell its version", lambda client: client.version())
        try:
            describe_image(self._engine, self._image)
        except Missing:
            return Fingerprint(False, f"the engine has no image {self._image}: build it with scripts/images")
        network = self._ensure_network()
        if network is None:
            return Fingerprint(
                False, f"the engine has no network {self._network}: make it, or unset NESTOR_RUNTIME_NETWORK"
            )
        if not network.apart:
            return Fingerprint(
                False,
                f"on network {self._network} runtimes would reach one another: make it with the option "
                "com.docker.network.bridge.enable_icc=false",
            )
        if self._data_volume is not None:
            self._volumes = FolderVolumes(self._folder / "volumes", engine_path=self._engine_path(self._data_volume))
        details = {
            "engine": str(version.get("Version", "")),
            "network": network.name,
            "gateway": network.gateway,
            "image": self._image,
        }
        return Fingerprint(usable=True, message=self.capabilities.isolation, details=details)

    def _ensure_network(self) -> docker_network.Network | None:
        if not self._own_network:
            return docker_network.find(self._engine, self._network)
        return docker_network.ensure(self._engine, self._network, installation=self._installation, subnet=self._subnet)

    def _engine_path(self, volume: str) -> Path:
        try:
            found = self._engine.ask(f"look at volume {volume}", lambda client: client.inspect_volume(volume))
        except Missing:
            raise DriverUnavailable(
                f"the engine has no volume {volume}", hint="NESTOR_DATA_VOLUME names the volume of the data folder"
            ) from None
        return Path(PurePosixPath(str(found["Mountpoint"])) / "volumes")

    def _remove_own_network(self) -> None:
        if self._own_network and not self._lifecycle.list(self._installation):
            docker_network.remove(self._engine, self._network)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run `work` to its end, also when the caller is cancelled: half a verb would be worse than a late one."""
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        except NestorError:
            raise
        except OSError as exc:
            code = errno.errorcode.get(exc.errno or 0, type(exc).__name__)
            raise DriverUnavailable(
                f"the data folder cannot be used: {code}", hint="check space and permissions of the data folder"
            ) from exc


def network_name(installation: str) -> str:
    """The name of an installation's own bridge: short, because a bridge's own name may have 15 characters."""
    return f"nestor-{installation.replace('-', '')[:11]}"
