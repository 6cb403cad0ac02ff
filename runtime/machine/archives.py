"""A folder as one stream, tar or zip: written as it is read, so that memory does not grow with what is in it.

Links are kept as links in a tar, and left out of a zip; nothing is read through one. Pipes, sockets and devices are
left out, and what cannot be read. A file that shrinks meanwhile is filled up with zeros: its length was told before.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, cast

from runtime.machine.files import BadPath, Boundaries

Format = Literal["tar", "tar.gz", "zip"]
MEDIA_TYPES: dict[Format, str] = {"tar": "application/x-tar", "tar.gz": "application/gzip", "zip": "application/zip"}
_PIECE = 256 << 10


class Found(NamedTuple):
    """One in the folder that is walked."""

    folder: int  #: a descriptor of the folder that it is in
    name: str
    path: str  #: from the archived folder
    state: os.stat_result


def write(pipe: io.BufferedWriter, folder: int, boundaries: Boundaries, format: Format) -> None:
    """All below the folder of this descriptor. Raises BrokenPipeError when nobody reads any more."""
    if format == "zip":
        _write_zip(pipe, folder, boundaries)
        return
    mode: Literal["w|", "w|gz"] = "w|gz" if format == "tar.gz" else "w|"
    with tarfile.open(fileobj=pipe, mode=mode, format=tarfile.PAX_FORMAT) as archive:
        add(archive, folder, boundaries)


def add(
    archive: tarfile.TarFile, folder: int, boundaries: Boundaries, *, prefix: str = "", root: Path | None = None
) -> None:
    """All below the folder of this descriptor, under names that begin with `prefix`. With `root`, the path of that
    folder, a link that names a place in it by its full path is kept as one from where it lies: it leads to the same
    place where the folder has another path. Raises as `write`."""
    for found in below(folder, boundaries):
        entry = tarfile.TarInfo(prefix + found.path)
        entry.mode, entry.mtime = stat.S_IMODE(found.state.st_mode), found.state.st_mtime
        if stat.S_ISDIR(found.state.st_mode):
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        elif stat.S_ISLNK(found.state.st_mode):
            entry.type = tarfile.SYMTYPE
            try:
                entry.linkname = inward(os.readlink(found.name, dir_fd=found.folder), found.path, root)
            except OSError:
                continue
            archive.addfile(entry)
        elif (file := opened(found, boundaries)) is not None:
            with file:
                entry.size = os.fstat(file.fileno()).st_size
                archive.addfile(entry, cast(io.BufferedReader, _Filled(file)))


def inward(target: str, path: str, root: Path | None) -> str:
    """Where the link at `path` leads; from where it lies, where it names a place in `root` by its full path."""
    if root is None or not Path(target).is_relative_to(root):
        return target
    return os.path.relpath(target, (root / path).parent)


def _write_zip(pipe: io.BufferedWriter, folder: int, boundaries: Boundaries) -> None:
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for found in below(folder, boundaries):
            if stat.S_ISDIR(found.state.st_mode):
                archive.writestr(zipfile.ZipInfo(found.path + "/"), b"")
            elif (file := opened(found, boundaries)) is not None:
                with file, archive.open(zipfile.ZipInfo(found.path), "w", force_zip64=True) as member:
                    while piece := file.read(_PIECE):
                        member.write(piece)


def below(folder: int, boundaries: Boundaries) -> Iterator[Found]:
    """In order, folders before what is in them."""
    for place, folders, names, here in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
        prefix = "" if place == "." else f"{place[2:]}/"
        folders[:] = sorted(name for name in folders if _is_given_out(here, name, boundaries))
        for name in sorted([*folders, *names]):
            try:
                (prefix + name).encode()
                yield Found(here, name, prefix + name, os.stat(name, dir_fd=here, follow_symlinks=False))
            except (OSError, UnicodeEncodeError):
                continue  # gone, or of a name that no archive can hold: the rest is worth having
        folders[:] = [name for name in folders if not _is_link(here, name)]


def _is_given_out(folder: int, name: str, boundaries: Boundaries) -> bool:
    try:
        boundaries.checked(f"{os.readlink(f'/proc/self/fd/{folder}')}/{name}")
    except (BadPath, OSError):
        return _is_link(folder, name)  # where it leads to is not looked at
    return True


def _is_link(folder: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def opened(found: Found, boundaries: Boundaries) -> io.BufferedReader | None:
    """None: no regular file, or not to be read."""
    if not stat.S_ISREG(found.state.st_mode):
        return None
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(found.name, flags, dir_fd=found.folder)
    except OSError:
        return None
    try:
        boundaries.checked(os.readlink(f"/proc/self/fd/{descriptor}"))
        wanted = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except BadPath:
        wanted = False
    if not wanted:
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


class _Filled:
    """Reads as much as is asked for, with zeros behind the end."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size).ljust(size, b"\0")
