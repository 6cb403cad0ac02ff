"""A file that appears whole or not at all, and is on the disk when it has appeared. For the archives."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_new(path: Path, content: bytes) -> None:
    """The file appears whole or not at all; one that is there is replaced. Raises OSError."""
    with writing_new(path) as file:
        file.write(content)


@contextmanager
def writing_new(path: Path) -> Iterator[BinaryIO]:
    """As `write_new`, for what is written piece by piece: it appears when the block ends without an exception."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """What was made or renamed in it is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
