"""Counts what is in folders of ours whose owner, an agent under our own user id, has locked himself out of some.

`storage.py` runs it as a program of its own (standard library, no imports of ours) where `du` could not read all:
an orchestrator without any capability. A folder that may not be read gets the right for as long as it is looked at and
its own mode back. Nothing is opened but folders, none through a link, and none on another file system.

    python storage_walk.py SECONDS FOLDER...      prints kilobytes and the number of files, folders and links
"""

import errno
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: The status with which it ends when the time was over, or folders lie too deep in one another to be followed.
TOO_MUCH = 3
_DEPTH = 400
_EACH = 1000
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = stat.S_IRUSR | stat.S_IXUSR


class TooMuch(Exception):
    """It cannot be counted."""


class Count:
    """So far."""

    def __init__(self, until: float) -> None:
        self.blocks = self.places = 0
        self._until = until
        self._linked: set[tuple[int, int]] = set()

    def add(self, status: os.stat_result) -> None:
        """One more; a file of several names counts once."""
        if self.places % _EACH == 0 and time.monotonic() > self._until:
            raise TooMuch
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) in self._linked:
                return
            self._linked.add((status.st_dev, status.st_ino))
        self.blocks += status.st_blocks
        self.places += 1


def count(parent: int | None, name: str, counted: Count, *, device: int | None = None, depth: int = 0) -> None:
    """All that is in one folder, and itself. Raises `TooMuch`."""
    if depth > _DEPTH:
        raise TooMuch
    with _opened(parent, name) as folder:
        status = os.fstat(folder)
        if device is not None and status.st_dev != device:
            return
        counted.add(status)
        inner = []
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        inner.append(entry.name)
                    else:
                        counted.add(entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue
        for one in inner:
            try:
                count(folder, one, counted, device=status.st_dev, depth=depth + 1)
            except (FileNotFoundError, NotADirectoryError):
                continue  # gone, or another thing by now
            except OSError as exc:  # a link by now
                if exc.errno != errno.ELOOP:
                    raise


@contextmanager
def _opened(parent: int | None, name: str) -> Iterator[int]:
    """The folder, readable for as long as it is looked at."""
    path = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    here = f"/proc/self/fd/{path}"  # this very folder, whatever bears its name by now
    mode = stat.S_IMODE(os.fstat(path).st_mode)
    try:
        if mode & _READ != _READ:
            os.chmod(here, mode | _READ)
        try:
            folder = os.open(here, _OPEN & ~os.O_NOFOLLOW)
            try:
                yield folder
            finally:
                os.close(folder)
        finally:
            if mode & _READ != _READ and stat.S_IMODE(os.fstat(path).st_mode) == mode | _READ:
                os.chmod(here, mode)
    finally:
        os.close(path)


def main() -> int:
    sys.setrecursionlimit(10 * _DEPTH)
    counted = Count(time.monotonic() + float(sys.argv[1]))
    try:
        for folder in sys.argv[2:]:
            count(None, folder, counted)
    except TooMuch:
        return TOO_MUCH
    sys.stdout.write(f"{counted.blocks // 2} {counted.places}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
