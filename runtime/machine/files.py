"""Files of the machine for callers with the runtime's key (contract 7.2): read, written whole or not at all, listed.

Any absolute path may be named, since the container is the boundary; what the runtime itself keeps (sealed keys and
secrets) is not given out. Only regular files are opened: a pipe or a device would keep its reader for ever. Blocking:
call these in a thread.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.machine import account

#: the kernel's own limits, less the byte at the end
_MOST_BYTES = 4095
_LONGEST_NAME = 255
#: what the kernel shows there is about the reader, and that would be this server
_KERNEL = ("/proc", "/sys", "/dev")


class BadPath(Exception):
    """The path cannot be used for this; the text is told to the caller."""


class Missing(BadPath):
    """There is nothing at the path."""


@dataclass(frozen=True)
class Boundaries:
    """`private`: folders whose content is never read or written here, and files."""

    private: Sequence[Path] = ()

    def opened(self, path: Path) -> Opened:
        """A path that was checked, opened; refused when it means another place by now. Raises Missing, BadPath."""
        found = opened(path)
        try:
            self.checked(str(found.real))
        except BaseException:
            found.close()
            raise
        return found

    def checked(self, text: str) -> Path:
        """The path, when it may be used. Raises BadPath."""
        path = Path(possible(text))
        if not path.is_absolute():
            raise BadPath("Path must be absolute")
        try:
            real = path.resolve()
        except (OSError, RuntimeError):
            raise BadPath("Path cannot be resolved") from None
        if is_kernels(real):
            raise BadPath("Path is not a file or folder of the disk")
        if any(_is_in(str(real), str(folder)) for folder in self.private):
            raise BadPath("Path belongs to the runtime itself")
        return path


def is_kernels(real: Path) -> bool:
    """Whether a path without links lies where the kernel shows itself, and not on a disk."""
    return any(_is_in(str(real), kernel) for kernel in _KERNEL)


def _is_in(path: str, folder: str) -> bool:
    """Whether it is the folder, or below it; both without links. Of text, since it is asked for each folder of many."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def possible(text: str) -> str:
    """The text, when the system could have a path of that name. Raises BadPath."""
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:
        raise BadPath("Path must be valid") from None
    if b"\0" in raw or len(raw) > _MOST_BYTES or any(len(part) > _LONGEST_NAME for part in raw.split(b"/")):
        raise BadPath("Path must be valid")
    return text


class Opened:
    """A regular file that this thread's user may read, open: whatever its path comes to mean, it is this one. `real` is
    where it was found, without links. To be closed, once."""

    def __init__(self, path: Path, descriptor: int, found: os.stat_result) -> None:
        self.path = path
        self.state = found
        self._descriptor = descriptor
        self.real = Path(os.readlink(self.again))

    @property
    def again(self) -> str:
        """A path under which this server, and nobody else, can open the same file once more."""
        return f"/proc/self/fd/{self._descriptor}"

    def close(self) -> None:
        os.close(self._descriptor)


def opened(path: Path) -> Opened:
    """The file at the path, following links. Raises Missing, BadPath."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise Missing("File not found") from None
    except OSError as error:
        raise BadPath(f"File cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise BadPath("Path is not a file")
    try:  # asked before, because a device may do something when it is opened; asked again, since it may be another now
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadPath(f"File cannot be read: {error.strerror}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadPath("Path is not a file")
        return Opened(path, descriptor, found)
    except BaseException:
        os.close(descriptor)
        raise


def make_directory(path: Path) -> None:
    """With its parents; there already: fine. Raises BadPath."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise BadPath("Path exists and is not a directory") from None
    except OSError as error:
        raise BadPath(f"Directory cannot be made: {error.strerror}") from None


class Incoming:
    """A file on its way: it appears under its name when it is whole. Used once, with `with`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._descriptor = -1
        self._temporary = ""

    def __enter__(self) -> Incoming:
        """Raises BadPath."""
        with account.acting():
            if os.path.isdir(self.path):
                raise BadPath("Path is a directory")
            make_directory(self.path.parent)
            try:
                self._descriptor, self._temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".upload-")
            except OSError as error:
                raise BadPath(f"File cannot be written: {error.strerror}") from None
        return self

    def write(self, piece: bytes) -> None:
        """Raises BadPath when the disk is full."""
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise BadPath(f"File cannot be written: {error.strerror}") from None
        self.size += len(piece)

    def keep(self) -> None:
        """Give it its name, with the mode of the file that it replaces. Raises BadPath."""
        try:
            mode = stat.S_IMODE(self.path.stat().st_mode) if os.path.exists(self.path) else 0o644
            os.fchmod(self._descriptor, mode)
            os.replace(self._temporary, self.path)
        except OSError as error:
            raise BadPath(f"File cannot be written: {error.strerror}") from None
        self._temporary = ""

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if self._temporary:
            with suppress(OSError), account.acting():
                os.unlink(self._temporary)


def subdirectories(path: Path, *, hidden: bool) -> list[tuple[str, str]]:
    """Name and path of each, in order. Raises Missing, BadPath."""
    try:
        with os.scandir(path) as entries:
            found = [entry.name for entry in entries if _is_directory(entry)]
    except FileNotFoundError:
        raise Missing("Directory not found") from None
    except OSError as error:
        raise BadPath(f"Directory cannot be read: {error.strerror}") from None
    return [(name, str(path / name)) for name in sorted(found) if hidden or not name.startswith(".")]


def tree(path: Path) -> Iterator[Path]:
    """Every regular file below, links not followed."""
    for place, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(place, name)
            with suppress(OSError):
                if stat.S_ISREG(file.lstat().st_mode):
                    yield file


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
