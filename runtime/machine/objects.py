"""What versions of a folder are made of (`versions.py` takes them), and how one is found and read.

A file's content, and the list of what is in a folder, lie under their digest (`objects`), once for all versions that
have them; a version is an empty file (`at`) that is named for the first and last number that it is good for and for
the list of the folder itself. Blocking: call it in a thread.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runtime.machine import archives

OBJECTS, AT = "objects", "at"
FILE, FOLDER, LINK = "f", "d", "l"


class Entry(NamedTuple):
    """One in the list of a folder. `content`: the digest of a file, or of a folder's list; where a link leads."""

    name: str
    kind: str
    mode: int
    content: str
    size: int = 0
    modified: int = 0  #: nanoseconds
    changed: int = 0  #: nanoseconds; 0: too young to tell the next change from
    inode: int = 0


@dataclass(frozen=True)
class Version:
    """Good for the numbers from `since` to `until`."""

    since: int
    until: int
    root: str

    @property
    def name(self) -> str:
        return f"{self.since}-{self.until}-{self.root}"


def _version_of(name: str) -> Version | None:
    since, _, rest = name.partition("-")
    until, _, root = rest.partition("-")
    return Version(int(since), int(until), root) if since.isdecimal() and until.isdecimal() else None


def versions_in(place: Path) -> list[Version]:
    """The oldest first."""
    try:
        found = [version for name in os.listdir(place / AT) if (version := _version_of(name)) is not None]
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda version: version.since)


class Objects:
    """What lies under its digest."""

    def __init__(self, place: Path) -> None:
        self._place = place / OBJECTS

    def path(self, digest: str) -> Path:
        return self._place / digest[:2] / digest

    def folder(self, digest: str) -> list[Entry] | None:
        """A list; None: it is not there, or damaged."""
        try:
            content = self.path(digest).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content).hexdigest() != digest:
            return None
        return [Entry(*fields) for fields in json.loads(content)]

    def is_whole(self, entry: Entry, *, read: bool) -> bool:
        """Whether a file's content is there: by its size, or by all of it."""
        try:
            with self.opened(entry) as file:
                if os.fstat(file.fileno()).st_size != entry.size:
                    return False
                return not read or hashlib.file_digest(file, "sha256").hexdigest() == entry.content
        except OSError:
            return False

    def opened(self, entry: Entry) -> io.BufferedReader:
        """A file's content. Raises OSError."""
        flags = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC  # whoever shares the user may have put a pipe there
        return open(self.path(entry.content), "rb", opener=lambda path, mode: os.open(path, mode | flags))

    def below(self, root: str, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """Everything in a version by its path, folders before what is in them. Raises FileNotFoundError."""
        entries = self.folder(root)
        if entries is None:
            raise FileNotFoundError(root)
        for entry in entries:
            yield prefix + entry.name, entry
            if entry.kind == FOLDER:
                yield from self.below(entry.content, f"{prefix}{entry.name}/")

    def has(self, root: str, *, read: bool) -> bool:
        """Whether all of a version is there. With `read` nothing of it is damaged either."""
        try:
            return all(entry.kind != FILE or self.is_whole(entry, read=read) for _, entry in self.below(root))
        except FileNotFoundError:
            return False

    def sizes(self, root: str, into: dict[str, int]) -> None:
        """How large everything in a version is, by digest; what is known already is not looked at again."""
        if root in into or (entries := self.folder(root)) is None:
            return
        into[root] = self.path(root).stat().st_size
        for entry in entries:
            if entry.kind == FOLDER:
                self.sizes(entry.content, into)
            elif entry.kind == FILE:
                into[entry.content] = entry.size


def find(place: Path, number: int, *, read: bool = False) -> Version | None:
    """The version of this number, None where there is none. With `read` all of it is read, so that it is whole."""
    for version in reversed(versions_in(place)):
        if version.since <= number <= version.until:
            return version if Objects(place).has(version.root, read=read) else None
    return None


def add(archive: tarfile.TarFile, place: Path, version: Version, *, prefix: str, root: Path) -> None:
    """A version as `archives.add` writes the folder. Raises OSError where it is not there any more."""
    objects = Objects(place)
    for path, entry in objects.below(version.root):
        told = tarfile.TarInfo(prefix + path)
        told.mode = entry.mode
        if entry.kind == FOLDER:
            told.type = tarfile.DIRTYPE
            archive.addfile(told)
        elif entry.kind == LINK:
            told.type, told.linkname = tarfile.SYMTYPE, archives.inward(entry.content, path, root)
            archive.addfile(told)
        else:
            told.size, told.mtime = entry.size, entry.modified / 1e9
            with objects.opened(entry) as file:
                archive.addfile(told, file)
