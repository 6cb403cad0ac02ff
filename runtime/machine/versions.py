"""Takes versions of one folder, each as it was at numbers that its owner gives (`objects.py` has how they are kept).

The file that makes a version is written last, so it is there whole or not at all. Lists also have what tells an
unchanged file (size, times, inode): such a file is neither read nor written again. The folder is read with the agent's
rights, as an archive of it is: no link is followed, and only folders, links and regular files are kept. Blocking: call
it in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from runtime.machine import account, archives
from runtime.machine.files import BadPath, Boundaries
from runtime.machine.objects import AT, FILE, FOLDER, LINK, OBJECTS, Entry, Objects, Version, versions_in
from runtime.machine.workspace import Workspace
from runtime.store.files import private_directory

_TAKING, _INCOMING = "taking", "incoming"
_PLACE_BYTES = 16 * 1024  #: what a file costs at least, as whoever watches the disk counts it
_PIECE = 1 << 20
_AT_ONCE = 64  #: descriptors
_DEEPEST = 200  #: folders in folders
#: Clocks of file systems stand still for as long: a change within it may leave the same times.
_CLOCK_SECONDS = 0.02
#: of the bound that is filled again after the oldest had to go, so that this is not so with each new one
_LEFT = 0.75


class NoVersion(Exception):
    """The folder, or what would have to be kept of it, is larger than may be, or the taking was ended."""


@dataclass(frozen=True)
class Bounds:
    """`limit_bytes` of all versions together; `most` files, folders and links in one; `spare_bytes` are left of the
    disk to others."""

    limit_bytes: int
    most: int = 20_000
    spare_bytes: int = 512 * 1024 * 1024


@dataclass
class _Seen:
    """What was looked at: lists by the path of their folder, parents first, and the files of each to be read."""

    lists: dict[str, list[Entry]]
    unread: dict[str, list[str]]
    files_unread: int = 0
    bytes_unread: int = 0
    youngest: int = 0  #: the last change among them, in nanoseconds


class FolderVersions:
    """Takes versions of the folder `root` into `place`. `take` is for one thread at a time."""

    def __init__(self, place: Path, root: Path, boundaries: Boundaries, bounds: Bounds) -> None:
        self._place, self._root = place, root
        self._boundaries, self._bounds = boundaries, bounds
        self._objects = Objects(place)
        self._known: list[Version] | None = None
        self._bytes, self._places = 0, 0
        self._changing = threading.Lock()
        self._ended = threading.Event()
        self._fresh: list[str] = []

    def end(self, taking: threading.Event) -> None:
        """The version that is taken with this event is not kept, unless it is there already: the folder may be changed
        when this returns."""
        with self._changing:
            taking.set()

    def extend(self, until: int) -> None:
        """The last version is good up to this number, too. None is there: nothing happens. Raises OSError."""
        with self._changing:
            if self._known and self._known[-1].until < until:
                longer = replace(self._known[-1], until=until)
                os.rename(self._place / AT / self._known[-1].name, self._place / AT / longer.name)
                self._known[-1] = longer

    def take(self, since: int, *, closes: bool, ended: threading.Event) -> None:
        """The folder as it is now, as the version from this number on. With `closes` the last one is good up to the
        number before. Raises NoVersion, BadPath, OSError; then nothing is left of it."""
        self._ended, self._fresh = ended, []
        known = self._opened()
        if closes:
            self.extend(since - 1)
        try:
            self._commit(since, self._taken(known[-1].root if known else None))
        except BaseException:
            for digest in self._fresh:
                self._remove(digest)
            raise
        finally:
            for name in (_INCOMING, _TAKING):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._place / name)
        self._make_room(0, 0)

    def _taken(self, before: str | None) -> str:
        """The digest of the folder's list."""
        seen = self._looked(before)
        young = time.time_ns() - seen.youngest
        if 0 <= young < _CLOCK_SECONDS * 1e9:
            time.sleep(_CLOCK_SECONDS)  # so that the next change leaves other times
        if seen.unread:
            self._make_room(seen.bytes_unread, seen.files_unread)
            found = os.statvfs(self._place)
            if found.f_bavail * found.f_frsize < self._bounds.spare_bytes + seen.bytes_unread:
                raise NoVersion("the disk is nearly full")
        for path, names in seen.unread.items():
            self._read(path, names, seen.lists[path])
        return self._listed(seen.lists)

    def _listed(self, lists: dict[str, list[Entry]]) -> str:
        """Keep the lists, those of inner folders first, whose digests those above them name."""
        digests: dict[str, str] = {}
        for path in reversed(lists):
            entries = [
                entry._replace(content=digests[f"{path}{entry.name}/"]) if entry.kind == FOLDER else entry
                for entry in lists[path]
            ]
            digests[path] = self._put(json.dumps(entries, separators=(",", ":")).encode())
        return digests[""]

    # -- looking

    def _looked(self, before: str | None) -> _Seen:
        """Names and times of everything in the folder; what has changed since `before` is to be read."""
        seen = _Seen({"": []}, {})
        known = {} if before is None else dict(self._objects.below(before))
        count = size = 0
        with account.acting(), Workspace(self._root, self._boundaries).folder(()) as folder:
            for found in archives.below(folder, self._boundaries):
                self._go_on()
                entry = _entry_of(found)
                if entry is None:
                    continue
                count, size = count + 1, size + entry.size
                if count > self._bounds.most or _cost(size, count) > self._bounds.limit_bytes:
                    raise NoVersion("the folder holds too much")
                place = found.path.removesuffix(found.name)
                if place.count("/") > _DEEPEST:
                    raise NoVersion("the folder is too deep")
                if entry.kind == FOLDER:
                    seen.lists[f"{found.path}/"] = []
                elif entry.kind == FILE:
                    former = known.get(found.path)
                    if former is not None and former.kind == FILE and former[4:] == entry[4:]:
                        entry = former
                    else:
                        seen.unread.setdefault(place, []).append(found.name)
                        seen.files_unread += 1
                        seen.bytes_unread += entry.size
                        seen.youngest = max(seen.youngest, entry.changed)
                seen.lists[place].append(entry)
        return seen

    def _go_on(self) -> None:
        if self._ended.is_set():
            raise NoVersion("it was ended")

    # -- keeping

    def _read(self, path: str, names: Sequence[str], entries: list[Entry]) -> None:
        """Keep these files of one folder, and let its list say what they hold. Those that may not be read go from it,
        as does what is no file any more."""
        place = {entry.name: number for number, entry in enumerate(entries)}
        left_out: set[str] = set()
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            with contextlib.ExitStack() as stack:
                for name, file in zip(some, self._open(path, some), strict=True):
                    if file is None:
                        left_out.add(name)
                        continue
                    stack.enter_context(file)
                    entries[place[name]] = self._kept(name, file)
        entries[:] = [entry for entry in entries if entry.name not in left_out]

    def _open(self, path: str, names: Sequence[str]) -> list[io.BufferedReader | None]:
        try:
            with account.acting(), Workspace(self._root, self._boundaries).folder(path.split("/")[:-1]) as folder:
                return [self._opened_at(folder, path, name) for name in names]
        except BadPath:  # the folder is gone, or something else
            return [None for _ in names]

    def _opened_at(self, folder: int, path: str, name: str) -> io.BufferedReader | None:
        try:
            state = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return None
        return archives.opened(archives.Found(folder, name, path + name, state), self._boundaries)

    def _kept(self, name: str, file: io.BufferedReader) -> Entry:
        state, now = os.fstat(file.fileno()), time.time_ns()
        if state.st_size <= _PIECE:
            content = file.read(state.st_size).ljust(state.st_size, b"\0")
            digest = self._put(content)
        else:
            digest = self._put_long(file, state.st_size)
        young = now - state.st_ctime_ns < _CLOCK_SECONDS * 1e9
        changed = 0 if young else state.st_ctime_ns
        return Entry(
            name, FILE, stat.S_IMODE(state.st_mode), digest, state.st_size, state.st_mtime_ns, changed, state.st_ino
        )

    def _put(self, content: bytes) -> str:
        self._go_on()
        digest = hashlib.sha256(content).hexdigest()
        if not self._is_there(digest, len(content)):
            with self._incoming() as file:
                file.write(content)
            self._name(digest, len(content))
        return digest

    def _put_long(self, source: BinaryIO, size: int) -> str:
        """No more than `size`, however fast it grows; with zeros behind its end."""
        made, left = hashlib.sha256(), size
        with self._incoming() as file:
            while left:
                self._go_on()
                piece = source.read(min(left, _PIECE)).ljust(min(left, _PIECE), b"\0")
                made.update(piece)
                file.write(piece)
                left -= len(piece)
        if not self._is_there(made.hexdigest(), size):
            self._name(made.hexdigest(), size)
        return made.hexdigest()

    def _incoming(self) -> BinaryIO:
        if not self._fresh:
            (self._place / _TAKING).touch(mode=0o600)  # who finds it looks for what a crash has left
        return open(self._place / _INCOMING, "wb", opener=lambda path, flags: os.open(path, flags, 0o600))

    def _is_there(self, digest: str, size: int) -> bool:
        try:
            return self._objects.path(digest).stat().st_size == size
        except FileNotFoundError:
            return False

    def _name(self, digest: str, size: int) -> None:
        path = self._objects.path(digest)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        os.rename(self._place / _INCOMING, path)
        self._fresh.append(digest)
        self._bytes, self._places = self._bytes + size, self._places + 1

    def _commit(self, since: int, root: str) -> None:
        with self._changing:
            self._go_on()
            known = self._known or []
            if known and known[-1].root == root and known[-1].until >= since - 1:
                longer = replace(known[-1], until=max(since, known[-1].until))
                os.rename(self._place / AT / known[-1].name, self._place / AT / longer.name)
                known[-1] = longer
            else:
                made = Version(since, since, root)
                os.close(os.open(self._place / AT / made.name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
                known.append(made)
                self._places += 1
            self._known = known

    # -- room

    def _opened(self) -> list[Version]:
        """What is there, once: the versions, and how much they hold. What a crash has left is removed."""
        if self._known is not None:
            return self._known
        private_directory(self._place)
        private_directory(self._place / OBJECTS)
        private_directory(self._place / AT)
        self._known = versions_in(self._place)
        if (self._place / _TAKING).exists():
            self._collect(self._known)
        sizes = [entry.stat().st_size for folder in os.scandir(self._place / OBJECTS) for entry in os.scandir(folder)]
        self._bytes, self._places = sum(sizes), len(sizes) + len(self._known)
        while self._known and not self._objects.has(self._known[-1].root, read=False):  # of a power cut
            os.unlink(self._place / AT / self._known.pop().name)
        return self._known

    def _make_room(self, wanted: int, places: int) -> None:
        """Let the oldest versions go where there would be too much, never the last one. Raises OSError."""
        known, limit = self._known or [], self._bounds.limit_bytes
        if _cost(self._bytes + wanted, self._places + places) <= limit:
            return
        live: dict[str, int] = {}
        kept = 0
        for version in reversed(known):
            self._objects.sizes(version.root, live)
            if kept and _cost(sum(live.values()) + wanted, len(live) + kept + places) > limit * _LEFT:
                break
            kept += 1
        with self._changing:
            gone, self._known = known[: len(known) - kept], known[len(known) - kept :]
        for version in gone:
            os.unlink(self._place / AT / version.name)
        self._collect(self._known)

    def _collect(self, versions: Sequence[Version]) -> None:
        """Remove what no version names."""
        live: dict[str, int] = {}
        for version in versions:
            self._objects.sizes(version.root, live)
        fresh = set(self._fresh)
        for folder in os.scandir(self._place / OBJECTS):
            for entry in list(os.scandir(folder)):
                if entry.name not in live and entry.name not in fresh:
                    os.unlink(entry.path)
        self._bytes = sum(live.values())
        self._places = len(live) + len(versions)

    def _remove(self, digest: str) -> None:
        path = self._objects.path(digest)
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            os.unlink(path)
            self._bytes, self._places = self._bytes - size, self._places - 1


def _entry_of(found: archives.Found) -> Entry | None:
    """Without its content; None: it is of no kind that is kept."""
    state, mode = found.state, stat.S_IMODE(found.state.st_mode)
    if stat.S_ISDIR(state.st_mode):
        return Entry(found.name, FOLDER, mode, "")
    if stat.S_ISLNK(state.st_mode):
        try:
            return Entry(found.name, LINK, mode, os.readlink(found.name, dir_fd=found.folder))
        except OSError:
            return None
    if not stat.S_ISREG(state.st_mode):
        return None
    return Entry(found.name, FILE, mode, "", state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


def _cost(size: int, places: int) -> int:
    """As whoever watches the disk counts: a file takes a place, also an empty one."""
    return max(size, places * _PLACE_BYTES)
