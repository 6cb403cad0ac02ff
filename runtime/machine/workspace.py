"""One folder and what is below it, for callers who may reach nothing else: read, listed, written, removed.

A path is walked name by name from the folder, and no link is followed, so nothing that the agent puts there leads out
of it, also while it is being looked at. Only regular files are read and replaced. Blocking: call these in a thread that
acts for the agent.
"""

from __future__ import annotations

import errno
import heapq
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.machine import account
from runtime.machine.files import BadPath, Boundaries, Missing, Opened, possible

CHANGED = "The file changed since it was read"
Kind = Literal["file", "folder", "link", "other"]
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: who replaces a file looks at it once more just before; two such callers go one after the other
_REPLACING = threading.Lock()


class Clashes(BadPath):
    """What is there is of another kind than what is asked for, or is in the way."""


class Changed(BadPath):
    """It is not the file that the caller has seen."""


@dataclass(frozen=True)
class Entry:
    """`size` in bytes, None of what is no file; `modified` in seconds since 1970."""

    name: str
    kind: Kind
    size: int | None
    modified: float
    tag: str | None


def tag_of(found: os.stat_result) -> str:
    """Another one after every change that the disk notices: for `ETag`."""
    return f'"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"'


def matches(condition: str, tag: str, *, weakly: bool = False) -> bool:
    """Whether the value of an `If-Match` names the file of that tag: `*`, or a list that it is in. `weakly` as
    `If-None-Match` compares (RFC 9110 8.8.3.2)."""
    if condition.strip() == "*":
        return True
    listed = (one.strip() for one in condition.split(","))
    return tag in ((one.removeprefix("W/") if weakly else one) for one in listed)


def parts_of(text: str) -> tuple[str, ...]:
    """The names of a path from the folder; empty for the folder itself. Raises BadPath."""
    possible(text)
    if text.startswith("/"):
        raise BadPath("Path must be relative to the workspace")
    parts = tuple(part for part in text.split("/") if part not in ("", "."))
    if ".." in parts:
        raise BadPath("Path must not contain ..")
    return parts


class Workspace:
    """Below one folder. `boundaries` has the last word: also in there the runtime's own files are given to nobody."""

    def __init__(self, root: Path, boundaries: Boundaries) -> None:
        self._root = root
        self._boundaries = boundaries

    def kind(self, parts: Sequence[str]) -> Kind:
        """What is there. Raises Missing, BadPath."""
        if not parts:
            return "folder"
        with self.folder(parts[:-1]) as folder:
            return _kind(_looked(folder, parts[-1]).st_mode)

    def opened(self, parts: Sequence[str]) -> Opened:
        """The regular file there. Raises Missing, Clashes, BadPath."""
        if not parts:
            raise Clashes("Path is a folder")
        with self.folder(parts[:-1]) as folder:
            _demand_file(_looked(folder, parts[-1]))
            try:  # looked at before, because opening a device does something; looked at again, it may be another
                flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(parts[-1], flags, dir_fd=folder)
            except OSError as error:
                raise _told(error, "read") from None
        try:
            found = os.fstat(descriptor)
            _demand_file(found)
            self._boundaries.checked(os.readlink(f"/proc/self/fd/{descriptor}"))
            return Opened(Path(*parts), descriptor, found)
        except BaseException:
            os.close(descriptor)
            raise

    def entries(self, parts: Sequence[str], *, after: str, limit: int) -> tuple[list[Entry], str | None]:
        """The first `limit` entries of a folder whose names come after `after`, in order, and the name after which
        there are more. Without those whose names are no text: no JSON and no path of a request could hold them. Memory
        grows with `limit`, not with the folder. Raises Missing, Clashes, BadPath."""
        with self.folder(parts) as folder:
            try:
                listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            except OSError as error:
                raise _told(error, "read") from None
            try:
                with os.scandir(listed) as scanned:
                    later = (one.name for one in scanned if one.name > after and _is_text(one.name))
                    names = heapq.nsmallest(limit + 1, later)
                following = names[limit - 1] if len(names) > limit else None
                return [entry for name in names[:limit] if (entry := _entry(listed, name)) is not None], following
            finally:
                os.close(listed)

    def make_folder(self, parts: Sequence[str]) -> None:
        """With those above it; there already: fine. Raises Clashes, BadPath."""
        with self.folder(parts, make=True):
            pass

    def remove(self, parts: Sequence[str], *, seen: str | None = None, recursive: bool = False) -> None:
        """A file, a link (not what it leads to), or a folder; one that is not empty only when `recursive`. With `seen`
        only the file of that tag. Raises Missing, Changed, Clashes, BadPath."""
        if not parts:
            raise Clashes("The workspace itself cannot be removed")
        with self.folder(parts[:-1]) as folder, _REPLACING:
            name, found = parts[-1], _looked(folder, parts[-1])
            self._check_owned(folder, name)
            if seen is not None and not matches(seen, tag_of(found)):
                raise Changed(CHANGED)
            try:
                if not stat.S_ISDIR(found.st_mode):
                    os.unlink(name, dir_fd=folder)
                elif recursive:
                    shutil.rmtree(name, dir_fd=folder)
                else:
                    os.rmdir(name, dir_fd=folder)
            except OSError as error:
                if error.errno == errno.ENOTEMPTY:
                    raise Clashes("The folder is not empty: say recursive=true to remove all that is in it") from None
                raise _told(error, "removed") from None

    @contextmanager
    def incoming(self, parts: Sequence[str]) -> Iterator[Incoming]:
        """A file on its way: it appears under its name when it is kept, else nothing of it is left. Its folders are
        made. Raises Clashes, BadPath."""
        if not parts:
            raise Clashes("Path is a folder")
        with account.acting():
            folder = self._walked(parts[:-1], make=True)
        try:
            with account.acting():
                self._check_owned(folder, parts[-1])
                incoming = Incoming(folder, parts[-1])
            try:
                yield incoming
            finally:
                with account.acting():
                    incoming.drop()
        finally:
            os.close(folder)

    @contextmanager
    def folder(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder there, closed on leaving. Raises Missing, Clashes, BadPath."""
        descriptor = self._walked(parts, make=make)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _check_owned(self, folder: int, name: str) -> None:
        """Raises BadPath for what is the runtime's own."""
        with suppress(Missing):
            if _kind(_looked(folder, name).st_mode) != "link":
                self._boundaries.checked(f"{os.readlink(f'/proc/self/fd/{folder}')}/{name}")

    def _walked(self, parts: Sequence[str], *, make: bool) -> int:
        """A descriptor of the folder, to be closed."""
        try:
            here = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _told(error, "reached") from None
        try:
            for part in parts:
                below = _below(here, part, make=make)
                os.close(here)
                here = below
            self._boundaries.checked(os.readlink(f"/proc/self/fd/{here}"))
        except BaseException:
            os.close(here)
            raise
        return here


class Incoming:
    """Made by `Workspace.incoming`. Used in threads, one call at a time."""

    def __init__(self, folder: int, name: str) -> None:
        self.size = 0
        self._folder = folder
        self._name = name
        self._temporary = f".upload-{secrets.token_hex(8)}"
        self.before = self._present()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._temporary, flags, 0o600, dir_fd=folder)
        except OSError as error:
            raise _told(error, "written") from None

    def write(self, piece: bytes) -> None:
        """Raises BadPath, also when the disk is full."""
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise _told(error, "written") from None
        self.size += len(piece)

    def keep(self, *, seen: str | None, new: bool) -> str:
        """Give it its name, with the mode of the file that it replaces; its tag. `seen`: only in place of the file of
        that tag; `new`: only where there is none. Raises Changed, Clashes, BadPath."""
        with _REPLACING:
            present = self._present()
            check(present, seen=seen, new=new)
            try:
                os.fchmod(self._descriptor, stat.S_IMODE(present.st_mode) if present is not None else 0o644)
                os.fsync(self._descriptor)
                if new:  # the agent may make one in this moment: a link is refused where a name would be taken
                    os.link(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
                else:
                    os.replace(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
                    self._temporary = ""
            except FileExistsError:
                raise Changed("The file exists already") from None
            except OSError as error:
                raise _told(error, "written") from None
            return tag_of(os.fstat(self._descriptor))

    def drop(self) -> None:
        os.close(self._descriptor)
        if self._temporary:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._folder)

    def _present(self) -> os.stat_result | None:
        try:
            found = _looked(self._folder, self._name)
        except Missing:
            return None
        _demand_file(found)
        return found


def check(present: os.stat_result | None, *, seen: str | None, new: bool) -> None:
    """Whether what is there is what the caller expects. Raises Changed."""
    if new and present is not None:
        raise Changed("The file exists already")
    if seen is not None and (present is None or not matches(seen, tag_of(present))):
        raise Changed(CHANGED)


def _below(folder: int, name: str, *, make: bool) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise Missing("File not found") from None
    except OSError as error:
        raise _told(error, "reached", folder, name) from None
    try:
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=folder)
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        raise _told(error, "made", folder, name) from None


def _looked(folder: int, name: str) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        raise Missing("File not found") from None
    except OSError as error:
        raise _told(error, "read") from None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _entry(folder: int, name: str) -> Entry | None:
    """None: it is gone by now."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    kind = _kind(found.st_mode)
    is_file = kind == "file"
    return Entry(name, kind, found.st_size if is_file else None, found.st_mtime, tag_of(found) if is_file else None)


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "other"


def _demand_file(found: os.stat_result) -> None:
    match _kind(found.st_mode):
        case "folder":
            raise Clashes("Path is a folder")
        case "link":
            raise BadPath("Path is a link, and links are not followed: name the file itself")
        case "other":
            raise BadPath("Path is not a file")


def _told(error: OSError, done: str, folder: int | None = None, name: str = "") -> BadPath:
    if isinstance(error, FileNotFoundError):
        return Missing("File not found")
    if error.errno in (errno.ENOTDIR, errno.ELOOP) and folder is not None:
        with suppress(BadPath):
            if _kind(_looked(folder, name).st_mode) == "link":
                return BadPath(f"{name!r} in the path is a link, and links are not followed")
        return Clashes(f"{name!r} in the path is not a folder")
    return BadPath(f"It cannot be {done}: {error.strerror}")
