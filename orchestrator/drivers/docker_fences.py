"""The highest fence that touched a runtime or a volume, and who acts on it now: small files in the data folder.

A label on the engine cannot be changed, so the engine keeps only the fence of the creation, which is the floor here
when the folder was lost. Right for one machine, where all orchestrators of an installation share the folder; with
several machines the lease in the store is what keeps them apart. `docker_lifecycle.py` and `docker_volumes.py` hold
one of these for the length of a verb. It knows nothing of the engine.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.drivers.errors import StaleFence
from orchestrator.drivers.process_files import (
    folder_lock,
    private_directory,
    read_regular,
    remove_tree,
    write_atomic,
)

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
_FILE = "fence.json"
_LIMIT_BYTES = 64 * 1024
_LOCK_SECONDS = 90.0


@dataclass(frozen=True)
class Known:
    """What is remembered of one name."""

    fence: int
    ended: str = ""  #: the start that `stop` ended, by the engine's time of it
    full: str = ""  #: the start that was ended because the storage was too large


class Held:
    """One name, held alone. Valid inside the block of `Fences.held`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.known = read(folder)

    def admit(self, fence: int, *, floor: int = 0) -> None:
        """Remember `fence` before anything is done under it. Raises `StaleFence` when a higher one was here."""
        highest = max(floor, self.known.fence if self.known is not None else 0)
        if fence < highest:
            raise StaleFence(f"{self._folder.name} was touched under fence {highest}, this call has {fence}")
        if self.known is None or fence > self.known.fence:
            self._write(replace(self.known or Known(fence), fence=fence))

    def note_ending(self, started: str) -> None:
        """Remember that the start of that time is being ended on request."""
        if self.known is not None:
            self._write(replace(self.known, ended=started))

    def note_full(self, started: str) -> None:
        """Remember that the start of that time is being ended because its storage is too large."""
        self._write(replace(self.known or Known(0), full=started))

    def forget(self) -> None:
        """Remove what is remembered: what bore the name is gone."""
        self.known = None

    def _write(self, known: Known) -> None:
        write_atomic(self._folder / _FILE, json.dumps(asdict(known)).encode())
        self.known = known


class Fences:
    """All of one data folder. Methods block and raise OSError when the folder cannot be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[Held]:
        """Hold `name` alone, among threads and processes. A name of which nothing is known afterwards leaves no file.

        Raises ValueError for a text that names nothing, `DriverUnavailable` when its holder does not let go.
        """
        folder = self._folder_of(name)
        private_directory(self._folder)
        while True:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(folder_lock(folder, deadline_seconds=_LOCK_SECONDS))
                except FileNotFoundError:
                    continue  # removed by the holder before us: make it anew
                held = Held(folder)
                try:
                    yield held
                finally:
                    if held.known is None:
                        remove_tree(folder)
                return

    def peek(self, name: str) -> Known | None:
        """What is remembered, without holding it."""
        return read(self._folder_of(name))

    def _folder_of(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:140]!r} cannot be a name: use lower-case letters, digits and dashes")
        return self._folder / name


def read(folder: Path) -> Known | None:
    """What is remembered in `folder`. Raises `DriverUnavailable` for a damaged file: guessing is worse."""
    try:
        fields = json.loads(read_regular(folder / _FILE, limit_bytes=_LIMIT_BYTES))
        return Known(int(fields["fence"]), str(fields["ended"]), str(fields.get("full", "")))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as exc:
        raise DriverUnavailable(
            f"{_FILE} of {folder.name} is damaged", hint="look at the folder in the data folder and remove it by hand"
        ) from exc
