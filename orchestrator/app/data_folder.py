"""The data folder: everything that Nestor writes, made private, and held by one orchestrator at a time.

Replicas on one state server of their own (NESTOR_REDIS_URL) may share a folder, since that server keeps them apart.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.domain.errors import Misconfigured


@contextmanager
def hold(folder: Path, *, shared: bool = False, then_share: bool = False) -> Iterator[Path]:
    """Make `folder` if it is missing, check that it can be written, and keep others out until leaving; `shared`: only
    those who want it for themselves; `then_share`: once nobody else had it, let in those who share.

    Raises `Misconfigured` naming the path and what to do.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise Misconfigured(
            f"the data folder {folder} cannot be written ({exc.strerror})",
            hint="choose another with --data-dir or NESTOR_DATA_DIR, or mend its owner and mode",
        ) from None
    try:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misconfigured(
                f"another orchestrator uses the data folder {folder} (process {_holder(lock)})",
                hint="end it, or choose another folder with --data-dir",
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        if then_share:
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield folder
    finally:
        os.close(lock)


def _holder(lock: int) -> str:
    return os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
