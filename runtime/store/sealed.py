"""One record in one file: secrets sealed, changes atomic, unreadable content left alone.

The settings, secret and git provider stores each hold one of these. Reading is a look at memory. A change is made under
a lock, on what the file holds now, and is on disk before it is seen. When the file cannot be read with the current key,
what could not be opened counts as unset and every change is refused, because writing would destroy it. Without a key
secrets stay in memory and are never written.
"""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from runtime.store.cipher import Cipher
from runtime.store.exposure import Exposure, Opening, render
from runtime.store.files import locked, private_directory, write_atomic

log = structlog.get_logger()
Model = TypeVar("Model", bound=BaseModel)
Stamp = tuple[int, int, int]


class StoreUnreadable(Exception):
    """The stored file cannot be read with the current key: start with the key that wrote it, or move the file away."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path.name} cannot be read with the current secret key; it was left as it is")


class SealedRecord(Generic[Model]):
    """A pydantic record kept in `directory/name`. Thread-safe; `change` blocks on the disk, `read` never does."""

    def __init__(self, model: type[Model], path: Path, cipher: Cipher) -> None:
        self._model = model
        self._path = path
        self._lock_path = path.with_name(f".{path.stem}.lock")
        self._cipher = cipher
        self._mutex = threading.Lock()
        self._stamp: Stamp | None = None
        self._readable = True
        self._stored = False
        self._value = model()
        if path.exists():
            with locked(self._lock_path):
                self._load()

    @property
    def stored(self) -> bool:
        """Whether anything was ever kept, in this process or by an earlier one."""
        return self._stored

    @property
    def readable(self) -> bool:
        """False when the file holds what the current key cannot open, or is damaged: then it is left as it is."""
        return self._readable

    def read(self) -> Model:
        """The record as it is in memory. Treat it as frozen; a change makes a new one."""
        return self._value

    def change(self, make: Callable[[Model], Model]) -> Model:
        """Replace the record by what `make` returns for it, and return that.

        Raises StoreUnreadable, OSError, or whatever `make` raises; in each case nothing changed.
        """
        with self._mutex:
            private_directory(self._path.parent)
            with locked(self._lock_path):
                if self._cipher.available and self._stamp != self._stamp_now():
                    # Another process of this user wrote the file. Without a key a reload would lose what is in memory.
                    self._load()
                if not self._readable:
                    raise StoreUnreadable(self._path)
                changed = make(self._value)
                self._write(changed)
                self._value = changed
                return changed

    def _write(self, record: Model) -> None:
        exposure = Exposure.ENCRYPTED if self._cipher.available else Exposure.WITHHELD
        content = json.dumps(render(record, exposure, self._cipher), indent=1, ensure_ascii=False)
        write_atomic(self._path, content.encode())
        self._stamp = self._stamp_now()
        self._stored = True

    def _load(self) -> None:
        self._stamp = self._stamp_now()
        if self._stamp is None:
            return
        opening = Opening(self._cipher, stored=True)
        self._stored = True
        try:
            self._value = self._model.model_validate(json.loads(self._path.read_bytes()), context=opening)
        except (ValueError, ValidationError) as exc:
            # The error's text could quote the file.
            log.error("store.damaged", file=self._path.name, error=type(exc).__name__)
            self._readable = False
            return
        self._readable = opening.unreadable == 0
        if not self._readable:
            log.error("store.unreadable", file=self._path.name, values=opening.unreadable, treated_as="unset")
        elif opening.stale and self._cipher.available:
            self._write(self._value)
            log.info("store.sealed_anew", file=self._path.name, values=opening.stale)

    def _stamp_now(self) -> Stamp | None:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
