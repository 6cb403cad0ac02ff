"""The life of one runtime as a container: claimed, started, looked at, frozen, ended, removed.

`docker.py` calls it in worker threads. A container's name is the claim: the engine itself refuses a second one. Every
verb that changes something holds the name's fence; how a container is made and started is in `docker_birth.py`. The
engine and the fence files say all; what is remembered beside them (`docker_recall.py`) only saves asking.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.domain.errors import DriverUnavailable, RuntimeNotFound
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers import docker_usage
from orchestrator.drivers.docker_birth import Birth
from orchestrator.drivers.docker_cells import Cells
from orchestrator.drivers.docker_containers import Containers, endpoint_of
from orchestrator.drivers.docker_engine import Engine, Occupied
from orchestrator.drivers.docker_fences import Fences, Held
from orchestrator.drivers.docker_recall import Recall
from orchestrator.drivers.docker_spec import Hardening, dialect_of, digest, owned
from orchestrator.drivers.docker_volumes import Volumes
from orchestrator.drivers.errors import ClaimTaken
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
        self._recall = recall or Recall()
        self._containers = Containers(engine)
        self._birth = Birth(
            engine, self._containers, volumes, cells, self._recall, image=image, hardening=hardening, stock=stock
        )

    def create_with_volume(self, spec: RuntimeSpec, fence: int) -> Handle:
        """As `create`, with its volumes: the engine makes with a container what it mounts. Whose they are is seen while
        our own image boots, which knows nothing before it is bound."""
        if not self._birth.is_ours(self._birth.image_of(spec)):
            self._volumes.ensure(spec.labels, fence=fence)
            return self.create(spec, fence)
        return self.create(spec, fence, unsettled=self._volumes.foresee(spec.labels, fence=fence))

    def create(self, spec: RuntimeSpec, fence: int, *, unsettled: bool = False) -> Handle:
        """Claim the name by making the container. The same name and spec again: the same handle."""
        with self._fences.held(spec.name) as held:
            # Of a name that was never seen here the engine knows something only where the folder was lost, and says so.
            known = self._containers.by_name(spec.name) if held.known is not None else None
            if known is None:
                try:
                    reference = self._birth.make(spec, fence, unsettled=unsettled)
                except (Occupied, DriverUnavailable) as exc:
                    # Taken meanwhile; or the engine's answer was lost, but perhaps not its work.
                    known = self._containers.by_name(spec.name)
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
                self._birth.begin(handle, key_lines(made.dialect, init_key, serving), fence, made)
                return self._containers.endpoint(handle)
            container = self._admitted(held, handle, fence)
            if container["State"]["Paused"]:
                self._containers.thaw(handle)
            elif not container["State"]["Running"]:
                lines = key_lines(dialect_of(container["Config"]["Labels"]), init_key, serving)
                self._birth.begin(handle, lines, fence, network=str(container["HostConfig"]["NetworkMode"]))
            return self._containers.endpoint(handle)

    def spare_kind(self, image: str | None) -> str:
        """See `base.Spareable`. Raises `ImageUnavailable`, also for an image that could not prove itself."""
        return self._birth.spare_kind(image)

    def inspect(self, handle: Handle) -> Observed:
        """What the engine sees now. Holds nothing, so it answers also while a verb is at work."""
        container = self._containers.look(handle)
        condition, state = _CONDITIONS.get(container["State"]["Status"], Condition.EXITED), container["State"]
        known = self._fences.peek(handle.name)
        fence = known.fence if known is not None else 0
        if condition in (Condition.RUNNING, Condition.PAUSED):
            return Observed(condition, endpoint=endpoint_of(container), fence=fence)
        if condition is Condition.CREATED:
            return Observed(condition, fence=fence)
        started = state["StartedAt"]
        requested, full = known is not None and known.ended == started, known is not None and known.full == started
        cause = ExitCause.DISK if full else _cause(state, requested=requested)
        return Observed(condition, exit_code=int(state["ExitCode"]), cause=cause, fence=fence)

    def logs(self, handle: Handle, lines: int) -> Sequence[str]:
        """The last lines that the runtime printed, each cut to a readable length."""
        return self._containers.logs(handle, lines)

    def stop(self, handle: Handle, fence: int, grace: float) -> None:
        """Ask it to end, and after `grace` seconds kill it with all that is in it."""
        with self._fences.held(handle.name) as held:
            state = self._admitted(held, handle, fence)["State"]
            if not state["Running"]:  # a paused one runs too
                return
            held.note_ending(state["StartedAt"])
            if state["Paused"]:
                self._containers.do(
                    "let", handle, lambda client: client.unpause(handle.reference)
                )  # frozen it cannot hear
            self._containers.do(
                "stop", handle, lambda client: client.stop(handle.reference, timeout=max(0, round(grace)))
            )

    def usage(self, handle: Handle) -> Usage:
        """What it uses now."""
        container = self._containers.look(handle)
        return docker_usage.usage(self._engine, handle, container, self._volumes.folders(handle.labels))

    def disk(self, handle: Handle) -> DiskUse | None:
        """What its storage takes. Raises `RuntimeNotFound` when it does not run."""
        container = self._containers.look(handle)
        if not container["State"]["Running"]:
            raise RuntimeNotFound(f"runtime {handle.name} does not run")
        return docker_usage.disk_use(container, self._volumes.folders(handle.labels))

    def end_full(self, handle: Handle) -> None:
        """Kill it because its storage is too large, and remember why."""
        with self._fences.held(handle.name) as held:
            state = self._containers.look(handle)["State"]
            if state["Running"]:
                held.note_full(state["StartedAt"])
                self._containers.do("kill", handle, lambda client: client.kill(handle.reference))

    def destroy(self, handle: Handle, fence: int) -> None:
        """Kill and remove it. Already gone: fine."""
        with self._fences.held(handle.name) as held:
            try:
                self._admitted(held, handle, fence)
                self._containers.remove(handle)
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
                self._containers.do("pause", handle, lambda client: client.pause(handle.reference))

    def unpause(self, handle: Handle, fence: int) -> Endpoint:
        """Let it go on. Raises `RuntimeNotFound` when it does not run."""
        with self._fences.held(handle.name) as held:
            state = self._admitted(held, handle, fence)["State"]
            if not state["Running"]:
                raise RuntimeNotFound(f"runtime {handle.name} does not run, so it cannot go on")
            if state["Paused"]:
                self._containers.thaw(handle)
            return self._containers.endpoint(handle)

    def find(self, name: str) -> Handle | None:
        """The handle of the container of that name, if it is ours."""
        container = self._containers.by_name(name)
        claim = owned(container["Config"]["Labels"]) if container is not None else None
        return Handle("docker", name, str(container["Id"]), claim.labels) if container is not None and claim else None

    def list(self, installation: str) -> Sequence[Handle]:
        """Every container of this installation, whatever its condition."""
        return self._containers.list(installation)

    def _admitted(self, held: Held, handle: Handle, fence: int) -> Mapping[str, Any]:
        """The container, with `fence` remembered. Raises `RuntimeNotFound`, `StaleFence`."""
        container = self._containers.look(handle)
        claim = owned(container["Config"]["Labels"])
        held.admit(fence, floor=claim.fence if claim is not None else 0)
        return container


def _cause(state: Mapping[str, Any], *, requested: bool) -> ExitCause:
    if requested:
        return ExitCause.CLEAN
    if state["OOMKilled"]:
        return ExitCause.OOM
    return ExitCause.CLEAN if int(state["ExitCode"]) == 0 else ExitCause.CRASHED
