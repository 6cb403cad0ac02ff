"""What outlives a runtime on a Docker engine: a volume for the workspace and one for the runtime's state.

Two forms, chosen by `docker.py`: volumes of the engine (the default), and folders of one volume that the orchestrator
itself is mounted on (compose: then `down -v` takes the workspaces with it). Both are owned by the runtimes' user. Those
of a spare belong to nobody, until the first one comes who has a tenant.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from docker.types import Mount

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.drivers import process_volumes
from orchestrator.drivers.docker_engine import Engine, Missing, Occupied
from orchestrator.drivers.docker_fences import Fences, Held
from orchestrator.drivers.docker_spec import INSTALLATION, PREFIX, STATE, WORKSPACE, labels_of, owned
from orchestrator.drivers.errors import ClaimTaken, StaleFence
from orchestrator.drivers.values import OwnerLabels

_PARTS: Mapping[str, str] = {"workspace": WORKSPACE, "state": STATE}
#: A third volume, always empty: its labels say whose a spare's two have become, as labels are never changed. The engine
#: makes it once, so of two who come at once one finds the other's.
_OWNER = "owner"
#: On a volume that the engine made for a container because nobody had made it before.
_IMPLIED = f"{PREFIX}implied"


class Volumes(Protocol):
    """Methods block. Every one may be repeated."""

    def ensure(self, labels: OwnerLabels, *, fence: int) -> bool:
        """Make what is missing; True if there was none. Raises `ClaimTaken`, `StaleFence`."""
        ...

    def remove(self, labels: OwnerLabels, *, fence: int) -> None:
        """Remove both. Already gone: fine. Raises `ClaimTaken`, `StaleFence`."""
        ...

    def ready(self, labels: OwnerLabels) -> bool:
        """Whether `ensure` was called for this conversation."""
        ...

    def foresee(self, labels: OwnerLabels, *, fence: int) -> bool:
        """A container that mounts them is made next; whether `ensure` is to come after it, as the engine makes what is
        missing. Raises as `ensure`, of what is known here."""
        ...

    def mounts(self, labels: OwnerLabels, *, fence: int, foreseen: bool = False) -> Sequence[Mount]:
        """What a container of this conversation mounts."""
        ...

    def folders(self, labels: OwnerLabels) -> Sequence[Path]:
        """Where they are on this machine, for being measured; empty when that is not known."""
        ...

    def visible(self, engine: Mapping[str, Any]) -> bool:
        """Whether `folders` can be looked into; `engine` is what the engine tells of itself."""
        ...

    def prune(self, installation: str, *, fence: int) -> None:
        """Remove every volume of this installation that no container uses."""
        ...

    def drop_implied(self, labels: OwnerLabels) -> None:
        """Remove what only a container's creation made, once that container is gone."""
        ...


class EngineVolumes:
    """Two named volumes a conversation. The engine gives a new one the owner of the image's folder of that name."""

    def __init__(self, engine: Engine, fences: Fences) -> None:
        self._engine = engine
        self._fences = fences

    def ensure(self, labels: OwnerLabels, *, fence: int) -> bool:
        with self._fences.held(_fence_name(labels)) as held:
            return self._make_new(held, labels, fence) if held.known is None else self._make_rest(held, labels, fence)

    def _make_new(self, held: Held, labels: OwnerLabels, fence: int) -> bool:
        """Of a name that was never seen here there is something only where the folder was lost. The engine answers a
        creation with the volume that there is then, and changes nothing; so nothing is asked before."""
        made: list[Mapping[str, Any]] = []
        for part in _PARTS:
            made.append(self._make(labels, part, fence))
            self._check_owner(made, labels, fence)
        held.admit(fence, floor=_floor(made))
        return _is_implied(made[0]) or made[0].get("Labels") == labels_of(labels, fence=fence)

    def _make_rest(self, held: Held, labels: OwnerLabels, fence: int) -> bool:
        found = {part: self._find(labels, part) for part in _PARTS}
        self._check_owner(list(found.values()), labels, fence)
        held.admit(fence, floor=_floor(list(found.values())))
        # Another machine's tenant may have been faster: then the engine answers with the volume that there is.
        made = [self._make(labels, part, fence) for part, volume in found.items() if volume is None]
        self._check_owner(made, labels, fence)
        return found["workspace"] is None

    def remove(self, labels: OwnerLabels, *, fence: int) -> None:
        with self._fences.held(_fence_name(labels)) as held:
            found = [self._find(labels, part) for part in (*_PARTS, _OWNER)]
            if any(found):
                self._check_owner(found, labels, fence)
                held.admit(fence, floor=_floor(found))
                for part in (*_PARTS, _OWNER):  # in this order: what is left of it is somebody's to the end
                    self._remove(labels, part)
            held.forget()

    def ready(self, labels: OwnerLabels) -> bool:
        if self._fences.peek(_fence_name(labels)) is not None:
            return True
        workspace = self._find(labels, "workspace")
        return workspace is not None and not _is_implied(workspace)

    def foresee(self, labels: OwnerLabels, *, fence: int) -> bool:
        known = self._fences.peek(name := _fence_name(labels))
        if known is not None and known.fence > fence:
            raise StaleFence(f"{name} was touched under fence {known.fence}, this call has {fence}")
        return True

    def mounts(self, labels: OwnerLabels, *, fence: int, foreseen: bool = False) -> Sequence[Mount]:
        # An engine makes a volume that is missing. It must be ours then too, or nobody would ever remove it.
        said = labels_of(labels, fence=fence) | ({} if foreseen else {_IMPLIED: "yes"})
        return [
            Mount(target=target, source=_name(labels, part), type="volume", labels=said)
            for part, target in _PARTS.items()
        ]

    def folders(self, labels: OwnerLabels) -> Sequence[Path]:
        found = [self._find(labels, part) for part in _PARTS]
        return [Path(str(volume["Mountpoint"])) for volume in found if volume is not None and volume.get("Mountpoint")]

    def visible(self, engine: Mapping[str, Any]) -> bool:
        return os.access(Path(str(engine.get("DockerRootDir", ""))) / "volumes", os.R_OK | os.X_OK)

    def prune(self, installation: str, *, fence: int) -> None:
        found = self._engine.ask(
            "list volumes", lambda client: client.volumes(filters={"label": f"{INSTALLATION}={installation}"})
        )
        claims = [owned(volume.get("Labels")) for volume in found.get("Volumes") or ()]
        named = {claim.labels for claim in claims if claim is not None}
        by_storage = {labels.storage: labels for labels in sorted(named, key=lambda labels: bool(labels.tenant))}
        for labels in by_storage.values():
            with contextlib.suppress(DriverUnavailable):  # in use: whoever uses it removes it
                self.remove(labels, fence=fence)

    def drop_implied(self, labels: OwnerLabels) -> None:
        with self._fences.held(_fence_name(labels)) as held:
            if held.known is not None:
                return
            for part in _PARTS:
                volume = self._find(labels, part)
                if volume is not None and _is_implied(volume):
                    self._remove(labels, part)

    def _check_owner(self, found: Sequence[Mapping[str, Any] | None], labels: OwnerLabels, fence: int) -> None:
        """Raises `ClaimTaken`. What is nobody's is theirs from now on, if they have a tenant."""
        tenants = {_tenant_of(volume, labels) for volume in found if volume is not None}
        if "" in tenants:
            if labels.tenant:
                self._make(labels, _OWNER, fence)
            owner = self._find(labels, _OWNER)
            tenants = tenants - {""} | ({_tenant_of(owner, labels)} if owner is not None else set())
        if tenants - {labels.tenant}:
            raise ClaimTaken(f"the volume of conversation {labels.conversation} belongs to another tenant")

    def _find(self, labels: OwnerLabels, part: str) -> Mapping[str, Any] | None:
        name = _name(labels, part)
        try:
            return self._engine.ask(f"look at volume {name}", lambda client: dict(client.inspect_volume(name)))
        except Missing:
            return None

    def _make(self, labels: OwnerLabels, part: str, fence: int) -> Mapping[str, Any]:
        """The volume of that name, made if there is none."""
        name, said = _name(labels, part), labels_of(labels, fence=fence)
        return self._engine.act(f"make volume {name}", lambda client: dict(client.create_volume(name, labels=said)))

    def _remove(self, labels: OwnerLabels, part: str) -> None:
        name = _name(labels, part)
        try:
            self._engine.act(f"remove volume {name}", lambda client: client.remove_volume(name))
        except Missing:
            return
        except Occupied as exc:
            raise DriverUnavailable(f"volume {name} is in use", hint="destroy the runtime that uses it first") from exc


class FolderVolumes:
    """Folders of a volume that orchestrator and engine both see, under different paths."""

    def __init__(self, here: Path, *, engine_path: Path) -> None:
        self._volumes = process_volumes.Volumes(here)
        self._engine_path = engine_path

    def ensure(self, labels: OwnerLabels, *, fence: int) -> bool:
        return self._volumes.ensure(labels, fence=fence)

    def remove(self, labels: OwnerLabels, *, fence: int) -> None:
        self._volumes.remove(labels, fence=fence)

    def ready(self, labels: OwnerLabels) -> bool:
        return self._volumes.volume_of(labels) is not None

    def foresee(self, labels: OwnerLabels, *, fence: int) -> bool:
        self.ensure(labels, fence=fence)  # an engine refuses a container whose folder is missing
        return False

    def mounts(self, labels: OwnerLabels, *, fence: int, foreseen: bool = False) -> Sequence[Mount]:
        # The agent owns what is in these folders, never the path to them: no link of its making is followed here.
        folder = self._engine_path / labels.storage
        return [Mount(target=target, source=str(folder / part), type="bind") for part, target in _PARTS.items()]

    def folders(self, labels: OwnerLabels) -> Sequence[Path]:
        volume = self._volumes.volume_of(labels)
        return [] if volume is None else [volume.workspace, volume.state]

    def visible(self, engine: Mapping[str, Any]) -> bool:
        return True  # they are in the data folder

    def prune(self, installation: str, *, fence: int) -> None:
        return  # they lie in the data folder, and go with it

    def drop_implied(self, labels: OwnerLabels) -> None:
        return  # an engine refuses a container whose folder is missing, so nothing was made


def _name(labels: OwnerLabels, part: str) -> str:
    return f"nestor-{labels.storage}-{part}"


def _fence_name(labels: OwnerLabels) -> str:
    return f"volume-{labels.storage}"


def _floor(found: Sequence[Mapping[str, Any] | None]) -> int:
    # An implied volume was made by a container's creation, whose fence says nothing about the volume's own acts.
    known = [owned(volume.get("Labels")) for volume in found if volume is not None and not _is_implied(volume)]
    return max((one.fence for one in known if one is not None), default=0)


def _is_implied(volume: Mapping[str, Any]) -> bool:
    return _IMPLIED in (volume.get("Labels") or {})


def _tenant_of(volume: Mapping[str, Any], labels: OwnerLabels) -> str:
    known = owned(volume.get("Labels"))
    if known is None:
        raise ClaimTaken(f"a volume of conversation {labels.conversation} exists and is not Nestor's")
    return known.labels.tenant
