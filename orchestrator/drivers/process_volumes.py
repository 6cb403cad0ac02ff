"""What outlives a runtime: the workspace and the state of a conversation, as folders of the process driver.

`process_lifecycle.py` mounts or names them, `process.py` makes and removes them. A volume belongs to a tenant and a
conversation and knows the highest fence that touched it: a late undo must not remove what a newer holder uses. That of
a spare belongs to nobody, until the first one comes who has a tenant.
"""

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.drivers.errors import ClaimTaken, StaleFence
from orchestrator.drivers.process_files import (
    folder_lock,
    private_directory,
    read_regular,
    remove_tree,
    write_atomic,
)
from orchestrator.drivers.values import OwnerLabels

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
_FILE = "volume.json"
_LIMIT_BYTES = 64 * 1024
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Volume:
    """The two folders of a conversation: what the agent works on, and what the runtime remembers."""

    workspace: Path
    state: Path


class Volumes:
    """All volumes of one data folder. Methods block and raise OSError when the folder cannot be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def volume_of(self, labels: OwnerLabels) -> Volume | None:
        """The conversation's volume, or None while there is none."""
        folder = self._folder_of(labels)
        volume = Volume(folder / "workspace", folder / "state")
        return volume if volume.workspace.is_dir() and volume.state.is_dir() else None

    def ensure(self, labels: OwnerLabels, *, fence: int) -> bool:
        """Make what is missing of the volume; True if it was not there at all."""
        folder = self._folder_of(labels)
        private_directory(self._folder)
        while True:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            try:
                with folder_lock(folder, deadline_seconds=_LOCK_SECONDS):
                    self._admit(folder, labels, fence)
                    return self._make_folders(folder)
            except FileNotFoundError:
                continue  # removed before it was locked: make it anew

    def remove(self, labels: OwnerLabels, *, fence: int) -> None:
        """Remove the volume and all in it. Already gone: fine."""
        folder = self._folder_of(labels)
        with contextlib.suppress(FileNotFoundError), folder_lock(folder, deadline_seconds=_LOCK_SECONDS):
            self._admit(folder, labels, fence)
            for part in ("workspace", "state"):
                remove_tree(folder / part)
            remove_tree(folder)

    def _folder_of(self, labels: OwnerLabels) -> Path:
        if not _ID.fullmatch(labels.storage):
            raise ValueError(f"{labels.storage[:140]!r} cannot name a volume: a runtime's id is a UUID")
        return self._folder / labels.storage

    def _make_folders(self, folder: Path) -> bool:
        made = False
        for part in ("workspace", "state"):
            with contextlib.suppress(FileExistsError):
                (folder / part).mkdir(mode=0o700)
                made = made or part == "workspace"
        return made

    def _admit(self, folder: Path, labels: OwnerLabels, fence: int) -> None:
        """Store who owns the volume under which fence; refuse another tenant and a lower fence."""
        record = {"tenant": labels.tenant, "fence": fence}
        try:
            known = json.loads(read_regular(folder / _FILE, limit_bytes=_LIMIT_BYTES))
            tenant, highest = str(known["tenant"]), int(known["fence"])
        except FileNotFoundError:
            write_atomic(folder / _FILE, json.dumps(record).encode())
            return
        except (ValueError, KeyError, TypeError) as exc:
            raise DriverUnavailable(
                f"{_FILE} of volume {folder.name} is damaged", hint="look at the folder and remove it by hand"
            ) from exc
        adopted = not tenant and bool(labels.tenant)  # a spare's, which was nobody's
        if tenant != labels.tenant and not adopted:
            raise ClaimTaken(f"the volume of conversation {labels.conversation} belongs to another tenant")
        if fence < highest:
            raise StaleFence(f"volume {folder.name} was touched under fence {highest}, this call has {fence}")
        if fence > highest or adopted:
            write_atomic(folder / _FILE, json.dumps(record).encode())
