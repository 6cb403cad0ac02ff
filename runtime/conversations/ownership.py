"""Which of several servers over the same folder of conversations may change one of them (contract 1.4, 4.5).

A server is an instance: a file below `.owners` that it holds locked while it lives and whose time it renews while it
owns something. A conversation's file `owner` names the instance that has it in memory. An instance is alive while its
time is younger than its lease; one of this machine whose lock is free is dead at once. Whoever takes a conversation
over does so under one lock for the folder, and an owner whose lease ran out asks again before it writes, so at most one
of them writes. Works on file systems whose locks and times all servers see; blocking, a few system calls each.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import structlog

from runtime.store.files import locked, private_directory

log = structlog.get_logger()

_OWNER = "owner"
_OWNERS = ".owners"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class OwnedElsewhere(OSError):
    """Another live server owns the conversation: its storage is not ours to change now."""

    def __init__(self) -> None:
        super().__init__("Another server owns this conversation")


class Ownership:
    """One instance's claims. With a lease of 0 seconds everything is everybody's, and nothing is written."""

    def __init__(self, directory: Path, *, lease_seconds: float) -> None:
        self._directory = directory
        self._owners = directory / _OWNERS
        self.lease_seconds = lease_seconds
        self._name = uuid4().hex
        self._file = -1
        self._renewed = 0.0
        self._claims: set[UUID] = set()

    @property
    def shared(self) -> bool:
        """Whether other servers may be at work in the same folder."""
        return self.lease_seconds > 0

    @property
    def claims(self) -> frozenset[UUID]:
        return frozenset(self._claims)

    def claim(self, conversation_id: UUID) -> None:
        """Own it from now on; its folder exists. Raises OwnedElsewhere, OSError."""
        if not self.shared or conversation_id in self._claims:
            return
        with self._alone():
            self._begin()
            owner = self._owner(conversation_id)
            if owner not in (None, self._name):
                if self._is_alive(owner):
                    raise OwnedElsewhere
                log.info("conversation.taken_over", conversation=str(conversation_id))
            self._path(conversation_id).write_text(self._name)
            self._claims.add(conversation_id)

    def release(self, conversation_id: UUID) -> None:
        """Own it no longer. Idempotent; what is another's by now stays."""
        if conversation_id not in self._claims:
            return
        self._claims.discard(conversation_id)
        with contextlib.suppress(OSError), self._alone():
            if self._owner(conversation_id) == self._name:
                self._path(conversation_id).unlink()

    def is_elsewhere(self, conversation_id: UUID) -> bool:
        """Whether another live server owns it now."""
        if not self.shared:
            return False
        owner = self._owner(conversation_id)
        return owner is not None and owner != self._name and self._is_alive(owner)

    def has_company(self) -> bool:
        """Whether other servers have been here: then what memory knows of their conversations may be old."""
        if not self.shared:
            return False
        try:
            return any(name not in (self._name, "lock") for name in os.listdir(self._owners))
        except OSError:
            return False

    def check(self, conversation_id: UUID) -> None:
        """Before a write. Costs next to nothing while the lease runs. Raises OwnedElsewhere when it is not ours."""
        if not self.shared:
            return
        if _now() - self._renewed >= self.lease_seconds:
            self.renew()
        if conversation_id not in self._claims:
            raise OwnedElsewhere

    def renew(self) -> None:
        """Begin the lease anew, for what is still ours: `claims` are that from now on. Raises OSError."""
        with self._alone():
            if _now() - self._renewed >= self.lease_seconds:  # before that nobody could take anything
                self._claims = {id for id in self._claims if self._owner(id) == self._name}
            if self._file >= 0:
                os.utime(self._file)
                if not (self._owners / self._name).exists():  # somebody took us for dead and tidied up
                    self._end()
                    self._begin()
            self._renewed = _now()

    def close(self) -> None:
        """Give everything back. Idempotent."""
        for id in self.claims:
            self.release(id)
        self._end()

    # -- inside

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._owners.is_dir():
            private_directory(self._directory)
            private_directory(self._owners)
        with locked(self._owners / "lock"):
            yield

    def _begin(self) -> None:
        if self._file >= 0:
            return
        self._file = os.open(self._owners / self._name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):  # a file system without locks: then the time alone counts
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(self._file, json.dumps({"boot": _boot(), "lease_seconds": self.lease_seconds}).encode())
        self._renewed = _now()

    def _end(self) -> None:
        if self._file >= 0:
            with contextlib.suppress(OSError):
                (self._owners / self._name).unlink()
            os.close(self._file)
            self._file = -1

    def _path(self, conversation_id: UUID) -> Path:
        return self._directory / conversation_id.hex / _OWNER

    def _owner(self, conversation_id: UUID) -> str | None:
        try:
            name = self._path(conversation_id).read_text()
        except (OSError, ValueError):
            return None
        return name if name.isalnum() else None

    def _is_alive(self, name: str) -> bool:
        try:
            file = os.open(self._owners / name, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            boot, lease_seconds = self._told(file)
            age = time.time() - os.fstat(file).st_mtime
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return age < lease_seconds  # it is there; one that does not renew is stuck
            if boot != _boot():
                return age < lease_seconds  # of another machine, whose locks we may not see
            with contextlib.suppress(OSError):
                (self._owners / name).unlink()
            return False
        finally:
            os.close(file)

    def _told(self, file: int) -> tuple[str, float]:
        try:
            told = json.loads(os.pread(file, 4096, 0))
            return str(told["boot"]), float(told["lease_seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return "", self.lease_seconds


def _now() -> float:
    """Goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
