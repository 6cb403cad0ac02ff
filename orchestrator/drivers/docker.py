"""Runtimes as containers of a Docker engine on this machine: hardened, limited, on a bridge of their own.

`app.py` makes one; provisioning and the reconciler call it through `base.Driver`. This file only brings the verbs into
worker threads, under a bound, and says what holds: the work is in `docker_lifecycle.py`. It knows nothing of the
runtime's own API.
"""

import errno
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from orchestrator.domain.errors import DiskFull, DriverUnavailable, NestorError
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers import docker_images, docker_probe, docker_report, docker_seat
from orchestrator.drivers.calls import Calls
from orchestrator.drivers.docker_cells import CellKind, Cells, network_name
from orchestrator.drivers.docker_engine import Engine, Missing, Occupied, describe_image
from orchestrator.drivers.docker_events import hints
from orchestrator.drivers.docker_fences import Fences
from orchestrator.drivers.docker_helper import Helper
from orchestrator.drivers.docker_lifecycle import Lifecycle
from orchestrator.drivers.docker_proxy import Proxies
from orchestrator.drivers.docker_recall import Recall
from orchestrator.drivers.docker_report import Ground
from orchestrator.drivers.docker_rules import Door, Egress, Wall
from orchestrator.drivers.docker_seat import Myself, Seats
from orchestrator.drivers.docker_spec import Hardening, image_of
from orchestrator.drivers.docker_turns import Turns
from orchestrator.drivers.docker_volumes import EngineVolumes, FolderVolumes, Volumes
from orchestrator.drivers.errors import MAKE_SPACE, NO_SPACE
from orchestrator.drivers.values import (
    Capabilities,
    Dialect,
    DiskUse,
    DriverEvent,
    Endpoint,
    Fingerprint,
    Handle,
    Limits,
    Observed,
    OwnerLabels,
    Row,
    RuntimeSpec,
    ServingKeys,
    Usage,
    volume_of,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Choices:
    """What the operator chose of the network and the hardening."""

    hardening: Hardening = field(default_factory=Hardening)
    pool: str = "10.214.0.0/16"
    cells: CellKind = CellKind.SHARED
    egress: Egress = Egress.OPEN
    doors: Sequence[Door] = ()
    egress_image: str = "nestor-egress:latest"
    stock: Dialect = Dialect.DORMANT  #: how an image is started that is not ours
    outside: bool = False  #: the rules are set by another process (`nestor netguard`)
    container: str | None = None  #: the one that this process runs in; None: found out


NO_CHOICES = Choices()

_LOOK_AROUND_SECONDS = 600.0  # for what tries out a machine by making containers
_SETTLE_SECONDS = 15.0


class DockerDriver:
    """See `base.Driver`, `base.Pausable`, `base.Spareable`, `base.Prunable`, `base.Walled`, `base.Gated`,
    `base.Measurable`, `base.Imaged`, `base.Faced`, `base.Conjoint`, `base.Paced`.

    `folder` is the data folder; several drivers may use it at once.
    `network` is a bridge that somebody else made and keeps; without it the driver has its own, with `subnet` if that
    is given, removed by `close` once no runtime of the installation is left. `data_volume` names the engine's volume
    that the data folder is on, where the orchestrator is a container itself: workspaces are folders of it then.
    Making a driver asks the engine nothing; `fingerprint` has to be called before the first runtime is created.
    """

    name = "docker"
    capabilities = Capabilities(
        isolation=(
            "Each runtime is a container of its own: another user without capabilities, a read-only system, limits of "
            "memory, processors and processes, and a network on which runtimes reach neither one another nor this "
            "machine nor what lies in private networks, as far as the report says that it took effect. They share this "
            "machine's kernel."
        ),
        isolated=True,
        pause=True,
        images=True,
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
        choices: Choices = NO_CHOICES,
    ) -> None:
        self._folder = folder.absolute()
        self._installation = installation
        self._image = image
        self._engine = Engine(host)
        self._data_volume = data_volume
        self._choices = choices
        self._hardening = choices.hardening
        self._info: Mapping[str, Any] = {}
        self._listener: Door | None = None
        self._me: Myself | None = None
        self._seats: Seats | None = None
        self._fences = Fences(self._folder / "docker")
        self._proxies = (
            Proxies(
                self._engine, self._folder / "docker" / "egress", installation=installation, image=choices.egress_image
            )
            if choices.egress is Egress.ALLOW_LIST
            else None
        )
        self._cells = Cells(
            self._engine,
            installation=installation,
            network=network,
            subnet=subnet,
            pool=choices.pool,
            kind=choices.cells,
            proxies=self._proxies,
        )
        # A spare has no tenant yet, and changes its network for nobody: that would be a call to the engine in a start.
        self.capabilities = replace(type(self).capabilities, spares=self._cells.shared)
        self._volumes: Volumes = EngineVolumes(self._engine, self._fences)
        self._recall = Recall()
        self._calls = Calls("the engine")
        self._turns = Turns()

    async def fingerprint(self) -> Fingerprint:
        try:
            return await self._in_thread(self._fingerprint)
        except NestorError as exc:
            return Fingerprint(usable=False, message=f"{exc.message}. {exc.hint}" if exc.hint else exc.message)

    async def ensure_volume(self, labels: OwnerLabels, *, fence: int) -> bool:
        return await self._in_thread(lambda: self._volumes.ensure(labels, fence=fence), of=volume_of(labels))

    async def remove_volume(self, labels: OwnerLabels, *, fence: int) -> None:
        await self._in_thread(lambda: self._volumes.remove(labels, fence=fence), of=volume_of(labels))

    async def prune(self, installation: str, *, fence: int) -> None:
        await self._in_thread(lambda: self._volumes.prune(installation, fence=fence))

    async def create(self, spec: RuntimeSpec, *, fence: int) -> Handle:
        return await self._in_thread(lambda: self._lifecycle.create(spec, fence), of=spec.name)

    async def create_with_volume(self, spec: RuntimeSpec, *, fence: int) -> Handle:
        return await self._in_thread(lambda: self._lifecycle.create_with_volume(spec, fence), of=spec.name)

    async def start(
        self, handle: Handle, *, fence: int, init_key: SecretText, serving: ServingKeys | None = None
    ) -> Endpoint:
        async with self._turns.taking(handle.name):
            return await self._in_thread(
                lambda: self._lifecycle.start(handle, fence, init_key, serving), of=handle.name
            )

    def came_up(self, handle: Handle) -> None:
        self._turns.over(handle.name)

    async def inspect(self, handle: Handle) -> Observed:
        return await self._in_thread(lambda: self._lifecycle.inspect(handle))

    async def logs(self, handle: Handle, *, lines: int = 20) -> Sequence[str]:
        return await self._in_thread(lambda: self._lifecycle.logs(handle, lines))

    async def stop(self, handle: Handle, *, fence: int, grace: float) -> None:
        self._turns.over(handle.name)
        await self._in_thread(lambda: self._lifecycle.stop(handle, fence, grace), of=handle.name)

    async def destroy(self, handle: Handle, *, fence: int) -> None:
        self._turns.over(handle.name)
        await self._in_thread(lambda: self._lifecycle.destroy(handle, fence), of=handle.name)

    async def pause(self, handle: Handle, *, fence: int) -> None:
        await self._in_thread(lambda: self._lifecycle.pause(handle, fence), of=handle.name)

    async def unpause(self, handle: Handle, *, fence: int) -> Endpoint:
        return await self._in_thread(lambda: self._lifecycle.unpause(handle, fence), of=handle.name)

    async def spare_kind(self, image: str | None) -> str:
        return await self._in_thread(lambda: self._lifecycle.spare_kind(image))

    async def image_id(self, name: str) -> str:
        id = await self._in_thread(lambda: docker_images.image_id(self._engine, name))
        if name == self._image:
            self._recall.keep_own(id)
        return id

    async def pull(self, name: str) -> None:
        await self._in_thread(lambda: docker_images.pull(self._engine, name), seconds=docker_images.PULL_SECONDS)

    async def find(self, name: str) -> Handle | None:
        return await self._in_thread(lambda: self._lifecycle.find(name), of=name)

    async def list(self, installation: str) -> Sequence[Handle]:
        return await self._in_thread(lambda: self._lifecycle.list(installation))

    async def wall(self, listener: tuple[str, int] | None) -> None:
        door = Door.at(*listener) if listener is not None else None
        await self._in_thread(lambda: self._raise_wall(door), seconds=_LOOK_AROUND_SECONDS)

    def facing_host(self, endpoint: Endpoint) -> str | None:
        return self._seats.facing(endpoint.host) if self._seats is not None else None

    async def permit(self, endpoint: Endpoint, hosts: Sequence[str]) -> None:
        if self._proxies is not None:
            proxies = self._proxies
            await self._in_thread(lambda: proxies.allow(endpoint.host, hosts))

    async def report(self) -> Sequence[Row]:
        return await self._in_thread(self._report, seconds=_LOOK_AROUND_SECONDS)

    async def mend(self) -> Sequence[str]:
        return await self._in_thread(self._cells.mend)

    async def usage(self, handle: Handle) -> Usage:
        return await self._in_thread(lambda: self._lifecycle.usage(handle))

    async def disk(self, handle: Handle) -> DiskUse | None:
        return await self._in_thread(lambda: self._lifecycle.disk(handle))

    async def end_full(self, handle: Handle) -> None:
        await self._in_thread(lambda: self._lifecycle.end_full(handle))

    async def events(self) -> AsyncIterator[DriverEvent]:
        async for hint in hints(self._engine.host):
            yield hint

    async def close(self) -> None:
        try:
            await self._calls.settled(_SETTLE_SECONDS)  # a report that was broken off removes its containers first
            await self._in_thread(self._cells.close)
        except DriverUnavailable:
            pass  # an engine that is away keeps its network; the next start finds and uses it
        finally:
            self._engine.close()

    @property
    def _lifecycle(self) -> Lifecycle:
        return Lifecycle(
            self._engine,
            self._fences,
            self._volumes,
            self._cells,
            image=self._image,
            hardening=self._hardening,
            stock=self._choices.stock,
            recall=self._recall,
        )

    def _fingerprint(self) -> Fingerprint:
        version = self._engine.ask("tell its version", lambda client: client.version())
        try:
            describe_image(self._engine, self._image)
        except Missing:
            return Fingerprint(False, f"the engine has no image {self._image}: build it with scripts/images")
        self._info = self._engine.ask("tell about itself", lambda client: dict(client.info()))
        trouble = self._refused_choice()
        if trouble is not None:
            return Fingerprint(False, trouble)
        self._take_place()
        network = self._cells.first()
        if network is None:
            return Fingerprint(
                False, f"the engine has no network {self._cells.base}: make it, or unset NESTOR_RUNTIME_NETWORK"
            )
        if not network.apart:
            return Fingerprint(
                False,
                f"on network {network.name} runtimes would reach one another: make it with the option "
                "com.docker.network.bridge.enable_icc=false",
            )
        if self._data_volume is not None:
            at_engine = self._engine_path(self._data_volume)
            self._volumes = FolderVolumes(self._folder / "volumes", engine_path=at_engine / "volumes")
            if self._proxies is not None:
                self._proxies.engine_path = at_engine / "docker" / "egress"
        elif self._proxies is not None and self._me is not None:
            found = self._me.engine_path(self._folder)
            if found is None:
                return Fingerprint(
                    False,
                    f"the data folder {self._folder} is inside Nestor's own container, where neither the forward proxy "
                    "nor a next container finds it: mount a volume there",
                )
            self._proxies.engine_path = found / "docker" / "egress"
        details = {
            "engine": str(version.get("Version", "")),
            "network": network.name,
            "gateway": network.gateway,
            "image": self._image,
            **({"listen": "0.0.0.0"} if self._seats is not None else {}),  # of its own container
        }
        return Fingerprint(usable=True, message=self.capabilities.isolation, details=details)

    def _refused_choice(self) -> str | None:
        """What was chosen and this engine cannot do. Also completes the hardening by what the engine is."""
        wanted = self._choices.hardening.oci_runtime
        there = sorted(self._info.get("Runtimes") or {})
        if wanted is not None and wanted not in there:
            return f"the engine has no OCI runtime {wanted} (NESTOR_OCI_RUNTIME); it has {', '.join(there)}"
        if self._proxies is not None and (trouble := self._proxies.check()) is not None:
            return trouble
        self._hardening = replace(
            self._choices.hardening,
            swappiness=str(self._info.get("CgroupVersion", "1")) == "1",
            processors=int(self._info.get("NCPU") or 0),
            resolve=self._choices.egress is Egress.OPEN,
        )
        return None

    def _take_place(self) -> None:
        """Find out whether this process is in a container of the engine; then it sits on the bridges itself."""
        if self._seats is not None:
            return
        self._me = docker_seat.myself(self._engine, self._choices.container)
        if self._me is not None:
            self._seats = Seats(self._engine, self._me)
            name = f"{network_name(self._installation)}-rules"
            helper = Helper(self._engine, name=name, image=self._me.image, installation=self._installation)
            self._cells.sit(self._seats, None if self._choices.outside else helper)

    def _raise_wall(self, listener: Door | None) -> None:
        if listener is not None and self._seats is not None:
            network = self._cells.first()
            seat = self._seats.mine_on(network) if network is not None else None
            listener = Door.at(seat, listener.port) if seat is not None else None
        self._listener = listener
        self._set_rules(listener)
        self._cells.raise_proxies()

    def _set_rules(self, listener: Door | None) -> None:
        if self._choices.outside or self._cells.firewall.trouble() is not None:
            return  # the report says so
        servers = self._cells.firewall.name_servers()
        wall = Wall(self._choices.egress, self._choices.doors, name_servers=servers)
        if self._seats is not None:
            wall = replace(wall, seats_port=listener.port if listener is not None else 0)
        else:
            wall = replace(wall, listener=listener)
        self._cells.raise_wall(wall)

    def _report(self) -> Sequence[Row]:
        network = self._cells.first()
        if network is None:
            raise DriverUnavailable(f"the engine has no network {self._cells.base}")
        image = image_of(self._image, describe_image(self._engine, self._image))
        listener = self._listener
        seen = docker_probe.look(
            self._engine, image, network, self._hardening, installation=self._installation, listener=listener
        )
        ground = Ground(
            info=self._info,
            rules=None if self._choices.outside else self._cells.firewall.trouble(),
            outside=self._choices.outside,
            listener=listener is not None,
            opened=any(door.covers(network.gateway) for door in self._choices.doors),
            size=docker_probe.takes_size(self._engine, image, installation=self._installation),
            measured=self._volumes.visible(self._info),
        )
        return docker_report.report(seen, self._hardening, Limits(), ground)

    def _engine_path(self, volume: str) -> Path:
        try:
            found = self._engine.ask(f"look at volume {volume}", lambda client: client.inspect_volume(volume))
        except Missing:
            raise DriverUnavailable(
                f"the engine has no volume {volume}", hint="NESTOR_DATA_VOLUME names the volume of the data folder"
            ) from None
        return Path(PurePosixPath(str(found["Mountpoint"])))

    async def _in_thread(self, work: Callable[[], T], *, of: str = "", seconds: float | None = None) -> T:
        """Run `work` to its end, also when the caller is cancelled: half a verb would be worse than a late one. `of`
        and `seconds` as for `Calls.run`."""
        try:
            return await self._calls.in_thread(work, of=of, seconds=seconds)
        except NestorError:
            raise
        except (Missing, Occupied) as exc:  # somebody removed or took in the middle of a verb what it was about
            raise DriverUnavailable(
                f"the engine could not {exc}: what it needs changed meanwhile", hint="try again"
            ) from exc
        except OSError as exc:
            code = errno.errorcode.get(exc.errno or 0, type(exc).__name__)
            if exc.errno in NO_SPACE:
                raise DiskFull(f"no space is left in the data folder ({code})", hint=MAKE_SPACE) from exc
            raise DriverUnavailable(
                f"the data folder cannot be used: {code}", hint="check space and permissions of the data folder"
            ) from exc
