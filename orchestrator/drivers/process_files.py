"""Files as the process driver needs them: written whole or not at all, locked by folder, removed whatever is in them.

Only the `process*` files of this package call it. What lies below a runtime's folders was written by an agent and is
hostile: nothing here follows a symbolic link, blocks on a pipe, or depends on how deep a tree is. It knows nothing of
claims or processes. Everything blocks: call it in a thread.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.domain.errors import DriverUnavailable

_LOCK_POLL_SECONDS = 0.01


def private_directory(path: Path) -> Path:
    """`path`, made if missing, entered by its owner only. Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def sync_directory(path: Path) -> None:
    """Have the names in `path` on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` by `content` (0600), on disk when this returns: a reader sees the old or the new, never a part."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}-{time.monotonic_ns()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def read_regular(path: Path, *, limit_bytes: int, tail: bool = False) -> bytes:
    """The first (or last) `limit_bytes` of a file that may have been replaced by anything. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise FileNotFoundError(f"{path} is not a regular file")
        if tail and facts.st_size > limit_bytes:
            file.seek(facts.st_size - limit_bytes)
        return file.read(limit_bytes)


@contextlib.contextmanager
def folder_lock(folder: Path, *, deadline_seconds: float) -> Iterator[None]:
    """Hold `folder` alone, among threads and processes, for the length of the block; the kernel frees it on a crash.

    Raises FileNotFoundError when the folder is not there or was removed by the holder before us, and
    `DriverUnavailable` when the holder did not let go in time.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _acquire(descriptor, folder, time.monotonic() + deadline_seconds)
        if not _same_file(descriptor, folder):
            raise FileNotFoundError(f"{folder} was removed while its lock was awaited")
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, folder: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise DriverUnavailable(f"{folder.name} is held by another operation that has not ended") from None
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return


def _same_file(descriptor: int, path: Path) -> bool:
    # The lock may have been won on a folder that its last holder removed, or that was removed and made anew.
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def remove_tree(path: Path) -> None:
    """Remove `path` and all below it; already gone is fine. No process may write there any more. Raises OSError.

    Instead of descending, folders that are not empty are moved up to the top and emptied there in turn: an agent can
    nest folders deeper than recursion, descriptors and path lengths allow, and it must not be able to stay that way.
    """
    if path.is_symlink():
        path.unlink()
        return
    try:
        os.chmod(path, 0o700)
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        while not _empty_and_remove(top, path):
            pass  # an observer of ours wrote one last file while we emptied it
    finally:
        os.close(top)
    sync_directory(path.parent)


def _empty_and_remove(top: int, path: Path) -> bool:
    moved = 0
    while names := os.listdir(top):
        for name in names:
            moved = _empty(top, name, moved)
    try:
        os.rmdir(path)
    except OSError as exc:
        if exc.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _empty(top: int, name: str, moved: int) -> int:
    """Remove one entry of `top`; folders inside it are moved up into `top`. The new count of moved folders."""
    if not _is_folder(name, top):
        os.unlink(name, dir_fd=top)
        return moved
    os.chmod(name, 0o700, dir_fd=top)
    inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        for entry in os.listdir(inside):
            if not _is_folder(entry, inside):
                os.unlink(entry, dir_fd=inside)
                continue
            os.chmod(entry, 0o700, dir_fd=inside)  # moving a folder writes to it
            moved = _move_up(entry, inside, top, moved)
    finally:
        os.close(inside)
    os.rmdir(name, dir_fd=top)
    return moved


def _move_up(entry: str, inside: int, top: int, moved: int) -> int:
    while True:
        moved += 1
        try:
            # Renaming onto a folder succeeds only if that one is empty, so an agent's own name of this form is no loss.
            os.rename(entry, f".removing-{moved}", src_dir_fd=inside, dst_dir_fd=top)
        except OSError as exc:
            if exc.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        else:
            return moved


def _is_folder(name: str, parent: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
