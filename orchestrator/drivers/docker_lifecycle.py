"""The life of one runtime as a container: claimed, started, told its key, looked at, frozen, ended, removed.

`docker.py` calls it in worker threads. A container's name is the claim, so the engine itself refuses a second one; once
made it is addressed by the engine's id alone, so that no call can hit another container of the same name. Every verb
that changes something holds the name's fence. The engine and the fence files say all; what is remembered beside them
(`docker_recall.py`) only saves asking.
"""

import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.domain.errors import DriverUnavailable, RuntimeNotFound
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers import docker_usage
from orchestrator.drivers.docker_cells import Cells
from orchestrator.drivers.docker_engine import Engine, Missing, Occupied, Refused
from orchestrator.drivers.docker_fences import Fences, Held
from orchestrator.drivers.docker_images import described
from orchestrator.drivers.docker_recall import Made, Recall
from orchestrator.drivers.docker_spec import (
    INSTALLATION,
    PORT,
    RUNTIME,
    WORKSPACE,
    Hardening,
    Image,
    container_arguments,
    dialect_of,
    digest,
    image_of,
    owned,
    spare_kind,
)
from orchestrator.drivers.docker_volumes import Volumes
from orchestrator.drivers.errors import ClaimTaken, ImageUnavailable, StartRefused
from orchestrator.drivers.printed import last_lines
from orchestrator.drivers.stock_start import key_lines
from orchestrator.drivers.values import (
    Condition,
    Dialect,
    DiskUse,
    Endpoint,
    ExitCause,
    Handle,
    Observed,
    RuntimeSpec,
    ServingKeys,
    Usage,
)

_GONE_SECONDS = 30.0
_POLL_SECONDS = 0.05
_NO_ADDRESS = "no available IPv4 addresses"  #: as an engine puts it on record
_CONDITIONS: Mapping[str, Condition] = {
    "created": Condition.CREATED,
    "running": Condition.RUNNING,
    "restarting": Condition.RUNNING,
    "paused": Condition.PAUSED,
    "exited": Condition.EXITED,
    "dead": Condition.EXITED,
    "removing": Condition.EXITED,
}


class Lifecycle:
    """All runtimes of one engine. Methods block; OSError means that the fences' folder cannot be used."""

    def __init__(
        self,
        engine: Engine,
        fences: Fences,
        volumes: Volumes,
        cells: Cells,
        *,
        image: str,
        hardening: Hardening,
        stock: Dialect = Dialect.DORMANT,
        recall: Recall | None = None,
    ) -> None:
        self._engine = engine
        self._fences = fences
        self._volumes = volumes
        self._cells = cells
        self._image = image
        self._hardening = hardening
        self._stock = stock
        self._recall = recall or Recall()

    def create_with_volume(self, spec: RuntimeSpec, fence: int) -> Handle:
        """As `create`, with its volumes: the engine makes with a container what it mounts. Whose they are is seen while
        our own image boots, which knows nothing before it is bound."""
        if not self._is_ours(self._image_of(spec)):
            self._volumes.ensure(spec.labels, fence=fence)
            return self.create(spec, fence)
        return self.create(spec, fence, unsettled=self._volumes.foresee(spec.labels, fence=fence))

    def create(self, spec: RuntimeSpec, fence: int, *, unsettled: bool = False) -> Handle:
        """Claim the name by making the container. The same name and spec again: the same handle."""
        with self._fences.held(spec.name) as held:
            # Of a name that was never seen here the engine knows something only where the folder was lost, and says so.
            known = self._by_name(spec.name) if held.known is not None else None
            if known is None:
                try:
                    reference = self._create(spec, fence, unsettled=unsettled)
                except (Occupied, DriverUnavailable) as exc:
                    # Taken meanwhile; or the engine's answer was lost, but perhaps not its work.
                    known = self._by_name(spec.name)
                    if known is None and isinstance(exc, DriverUnavailable):
                        raise
                else:
                    held.admit(fence)
                    return Handle("docker", spec.name, reference, spec.labels)
            if known is None:
                raise DriverUnavailable(f"runtime {spec.name} was removed while it was made")
            claim = owned(known["Config"]["Labels"])
            if claim is None or claim.digest != digest(spec):
                raise ClaimTaken(f"runtime {spec.name} exists with another spec", hint="destroy it, or use a new name")
            held.admit(fence, floor=claim.fence)
            return Handle("docker", spec.name, str(known["Id"]), claim.labels)

    def start(self, handle: Handle, fence: int, init_key: SecretText, serving: ServingKeys | None = None) -> Endpoint:
        """Start it and hand it the key, or let it go on if it is frozen. Running already: its endpoint."""
        with self._fences.held(handle.name) as held:
            made = self._recall.take(handle.reference)
            if made is not None and held.known is not None:  # made here, and never started: there is nothing to see
                held.admit(fence)
                self._begin(handle, key_lines(made.dialect, init_key, serving), fence, made)
                return self._endpoint(handle)
            container = self._admitted(held, handle, fence)
            if container["State"]["Paused"]:
                self._do("let", handle, lambda client: client.unpause(handle.reference))
            elif not container["State"]["Running"]:
                lines = key_lines(dialect_of(container["Config"]["Labels"]), init_key, serving)
                self._begin(handle, lines, fence)
            return self._endpoint(handle)

    def spare_kind(self, image: str | None) -> str:
        """See `base.Spareable`. Raises `ImageUnavailable`, also for an image that could not prove itself."""
        name = image or self._image
        about = self._described(name)
        if (found := image_of(name, about)).dialect is not Dialect.OWN:
            raise ImageUnavailable(
                f"image {name} cannot be a spare: another agent server does not prove that it has its init key",
                hint="leave it out of the warm pool",
            )
        return spare_kind(found, about, network=self._cells.base, hardening=self._hardening)

    def inspect(self, handle: Handle) -> Observed:
        """What the engine sees now. Holds nothing, so it answers also while a verb is at work."""
        container = self._look(handle)
        condition, state = _CONDITIONS.get(container["State"]["Status"], Condition.EXITED), container["State"]
        known = self._fences.peek(handle.name)
        fence = known.fence if known is not None else 0
        if condition in (Condition.RUNNING, Condition.PAUSED):
            return Observed(condition, endpoint=_endpoint(container), fence=fence)
        if condition is Condition.CREATED:
            return Observed(condition, fence=fence)
        started = state["StartedAt"]
        requested, full = known is not None and known.ended == started, known is not None and known.full == started
        cause = ExitCause.DISK if full else _cause(state, requested=requested)
        return Observed(condition, exit_code=int(state["ExitCode"]), cause=cause, fence=fence)

    def logs(self, handle: Handle, lines: int) -> Sequence[str]:
        """The last lines that the runtime printed, each cut to a readable length."""
        if lines <= 0:
            return ()
        try:
            tail: bytes = self._engine.ask(
                f"read the log of {handle.name}", lambda client: client.logs(handle.reference, tail=lines)
            )
        except (Missing, Occupied, Refused):
            return ()
        return last_lines(tail, lines, is_whole=True)

    def stop(self, handle: Handle, fence: int, grace: float) -> None:
        """Ask it to end, and after `grace` seconds kill it with all that is in it."""
        with self._fences.held(handle.name) as held:
            state = self._admitted(held, handle, fence)["State"]
            if not state["Running"]:  # a paused one runs too
                return
            held.note_ending(state["StartedAt"])
            if state["Paused"]:
                self._do("let", handle, lambda client: client.unpause(handle.reference))  # frozen it cannot hear
            self._do("stop", handle, lambda client: client.stop(handle.reference, timeout=max(0, round(grace))))

    def usage(self, handle: Handle) -> Usage:
        """What it uses now."""
        container = self._look(handle)
        return docker_usage.usage(self._engine, handle, container, self._volumes.folders(handle.labels))

    def disk(self, handle: Handle) -> DiskUse | None:
        """What its storage takes. Raises `RuntimeNotFound` when it does not run."""
        container = self._look(handle)
        if not container["State"]["Running"]:
            raise RuntimeNotFound(f"runtime {handle.name} does not run")
        return docker_usage.disk_use(container, self._volumes.folders(handle.labels))

    def end_full(self, handle: Handle) -> None:
        """Kill it because its storage is too large, and remember why."""
        with self._fences.held(handle.name) as held:
            state = self._look(handle)["State"]
            if state["Running"]:
                held.note_full(state["StartedAt"])
                self._do("kill", handle, lambda client: client.kill(handle.reference))

    def destroy(self, handle: Handle, fence: int) -> None:
        """Kill and remove it. Already gone: fine."""
        with self._fences.held(handle.name) as held:
            try:
                self._admitted(held, handle, fence)
                self._remove(handle)
            except RuntimeNotFound:
                pass
            held.forget()
        self._volumes.drop_implied(handle.labels)
        self._cells.leave(handle.labels)

    def pause(self, handle: Handle, fence: int) -> None:
        """Freeze it. Raises `RuntimeNotFound` when it does not run."""
        with self._fences.held(handle.name) as held:
            state = self._admitted(held, handle, fence)["State"]
            if not state["Running"]:
                raise RuntimeNotFound(f"runtime {handle.name} does not run, so it cannot be paused")
            if not state["Paused"]:
                self._do("pause", handle, lambda client: client.pause(handle.reference))

    def unpause(self, handle: Handle, fence: int) -> Endpoint:
        """Let it go on. Raises `RuntimeNotFound` when it does not run."""
        with self._fences.held(handle.name) as held:
            state = self._admitted(held, handle, fence)["State"]
            if not state["Running"]:
                raise RuntimeNotFound(f"runtime {handle.name} does not run, so it cannot go on")
            if state["Paused"]:
                self._do("let", handle, lambda client: client.unpause(handle.reference))
            return self._endpoint(handle)

    def find(self, name: str) -> Handle | None:
        """The handle of the container of that name, if it is ours."""
        container = self._by_name(name)
        claim = owned(container["Config"]["Labels"]) if container is not None else None
        return Handle("docker", name, str(container["Id"]), claim.labels) if container is not None and claim else None

    def list(self, installation: str) -> Sequence[Handle]:
        """Every container of this installation, whatever its condition."""
        labels = [f"{INSTALLATION}={installation}", RUNTIME]
        found = self._engine.ask(
            "list containers", lambda client: client.containers(all=True, filters={"label": labels})
        )
        handles = []
        for container in found:
            claim = owned(container.get("Labels"))
            if claim is not None and container.get("Names"):
                name = str(container["Names"][0]).lstrip("/")
                handles.append(Handle("docker", name, str(container["Id"]), claim.labels))
        return handles

    def _create(self, spec: RuntimeSpec, fence: int, *, unsettled: bool) -> str:
        image = self._image_of(spec)
        mounts = self._volumes.mounts(spec.labels, fence=fence, foreseen=unsettled)
        place = self._cells.enter(spec.labels)
        try:
            made = self._engine.act(
                f"make {spec.name}",
                lambda client: client.create_container(
                    **container_arguments(
                        spec,
                        image=image,
                        network=place.network,
                        mounts=mounts,
                        fence=fence,
                        version=client.api_version,
                        hardening=self._hardening,
                        told=place.told,
                    )
                ),
            )
        except Missing as exc:
            self._recall.forget_image(image.name)
            self._cells.forget(place)
            self._described(image.name)  # says so, if it is the image
            raise DriverUnavailable(f"the network of {spec.name} went away meanwhile", hint="try again") from exc
        reference = str(made["Id"])
        self._recall.made(reference, Made(image.dialect, place, self._is_ours(image), unsettled))
        return reference

    def _image_of(self, spec: RuntimeSpec) -> Image:
        name = spec.image or self._image
        return image_of(name, self._described(name), self._stock)

    def _is_ours(self, image: Image) -> bool:
        """Its label alone would not say so: anybody can put it on an image."""
        return image.dialect is Dialect.OWN and (image.name == self._image or self._recall.is_own(image.name))

    def _described(self, name: str) -> Mapping[str, Any]:
        about = self._recall.image(name)
        if about is None:
            about = described(self._engine, name)
            self._recall.keep_image(name, about)
        return about

    def _begin(self, handle: Handle, lines: Sequence[SecretText], fence: int, made: Made | None = None) -> None:
        if (made is None or not made.unsettled) and not self._volumes.ready(handle.labels):
            raise StartRefused(f"conversation {handle.labels.conversation} has no volume", hint="make the volume first")
        waits = made is not None and made.ours  # others do at once what they like
        if not waits:
            self._see_to(handle, fence, made)
        try:
            self._do("start", handle, lambda client: client.start(handle.reference))
        except (Refused, RuntimeNotFound, DriverUnavailable) as exc:
            if waits:  # it may have been the network; or only the answer was lost
                self._seen_or_stopped(handle, fence, made)
            self._raise_refusal(handle, exc, made)
        try:
            self._hand(handle, lines)
        except BaseException:
            # Running without its key it could never be bound, and a second start would find it running.
            self._do("stop", handle, lambda client: client.stop(handle.reference, timeout=0))
            raise
        if waits:
            self._seen_or_stopped(handle, fence, made)

    def _seen_or_stopped(self, handle: Handle, fence: int, made: Made | None) -> None:
        try:
            self._see_to(handle, fence, made)
        except BaseException:
            self._do("stop", handle, lambda client: client.stop(handle.reference, timeout=0))
            raise

    def _see_to(self, handle: Handle, fence: int, made: Made | None) -> None:
        """Its network is there, behind the wall, and its volumes are its tenant's. Our own image boots meanwhile; it
        knows and does nothing before it is bound."""
        self._cells.confirm(handle.labels, made.place if made is not None else None)
        if made is None or made.unsettled:
            self._volumes.ensure(handle.labels, fence=fence)

    def _raise_refusal(self, handle: Handle, exc: Exception, made: Made | None) -> None:
        """A start that failed: for good when the engine put a failure on record, else as it was."""
        state = self._look(handle)["State"]
        if state["Running"]:
            return  # only the answer was lost
        if not state["Error"]:
            raise exc
        if _NO_ADDRESS in state["Error"]:
            if made is not None:
                self._cells.fill(made.place)
            raise DriverUnavailable(
                f"the bridge of {handle.name} has no address left",
                hint="end runtimes that are not needed, or give runtimes a larger network (NESTOR_RUNTIME_SUBNET)",
            ) from exc
        missing = int(state["ExitCode"]) in (126, 127)
        raise StartRefused(
            f"the engine could not start {handle.name}",
            hint="the image has no such entry point" if missing else "the engine's own log says more",
            log_tail=tuple(self.logs(handle, 20)),
        ) from exc

    def _hand(self, handle: Handle, lines: Sequence[SecretText]) -> None:
        content = "".join(f"{line.open()}\n" for line in lines).encode()

        def hand(stream: Any) -> None:
            raw: socket.socket = getattr(stream, "_sock", stream)
            try:
                raw.sendall(content)
            finally:
                stream.close()
                raw.close()  # closing the stream alone leaves the connection to the garbage collector

        self._do(
            "attach to",
            handle,
            lambda client: hand(client.attach_socket(handle.reference, params={"stdin": 1, "stream": 1})),
        )

    def _remove(self, handle: Handle) -> None:
        try:
            self._engine.act(
                f"remove {handle.name}", lambda client: client.remove_container(handle.reference, force=True, v=True)
            )
        except Missing:
            return
        except Occupied:
            self._wait_gone(handle)  # somebody removes it at this moment

    def _wait_gone(self, handle: Handle) -> None:
        deadline = time.monotonic() + _GONE_SECONDS
        while time.monotonic() < deadline:
            try:
                self._look(handle)
            except RuntimeNotFound:
                return
            time.sleep(_POLL_SECONDS)
        raise DriverUnavailable(f"runtime {handle.name} is being removed and does not go", hint="look at the engine")

    def _admitted(self, held: Held, handle: Handle, fence: int) -> Mapping[str, Any]:
        """The container, with `fence` remembered. Raises `RuntimeNotFound`, `StaleFence`."""
        container = self._look(handle)
        claim = owned(container["Config"]["Labels"])
        held.admit(fence, floor=claim.fence if claim is not None else 0)
        return container

    def _do(self, verb: str, handle: Handle, call: Any) -> None:
        try:
            self._engine.act(f"{verb} {handle.name}", call)
        except Missing as exc:
            raise RuntimeNotFound(f"there is no runtime {handle.name}") from exc
        except Occupied as exc:
            # It changed between our look and our act; the next look of the caller says to what.
            raise DriverUnavailable(f"runtime {handle.name} changed meanwhile") from exc

    def _endpoint(self, handle: Handle) -> Endpoint:
        container = self._look(handle)
        endpoint = _endpoint(container)
        if endpoint is None:
            raise StartRefused(
                f"runtime {handle.name} ended at once",
                hint="its last lines say why",
                log_tail=tuple(self.logs(handle, 20)),
            )
        return endpoint

    def _look(self, handle: Handle) -> Mapping[str, Any]:
        return self._inspected(handle.reference, handle.name)

    def _by_name(self, name: str) -> Mapping[str, Any] | None:
        try:
            return self._inspected(name, name)
        except RuntimeNotFound:
            return None

    def _inspected(self, reference: str, name: str) -> Mapping[str, Any]:
        try:
            return self._engine.ask(f"look at {name}", lambda client: dict(client.inspect_container(reference)))
        except Missing as exc:
            raise RuntimeNotFound(f"there is no runtime {name}") from exc


def _endpoint(container: Mapping[str, Any]) -> Endpoint | None:
    """Its address on the only network that it is on; None once it has ended."""
    for network in container["NetworkSettings"]["Networks"].values():
        if network.get("IPAddress"):
            dialect = dialect_of(container["Config"]["Labels"])
            return Endpoint(str(network["IPAddress"]), PORT, dialect, WORKSPACE)
    return None


def _cause(state: Mapping[str, Any], *, requested: bool) -> ExitCause:
    if requested:
        return ExitCause.CLEAN
    if state["OOMKilled"]:
        return ExitCause.OOM
    return ExitCause.CLEAN if int(state["ExitCode"]) == 0 else ExitCause.CRASHED
