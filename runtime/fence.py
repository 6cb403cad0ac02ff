"""The highest fence that this runtime has seen: a number that only grows with each holder of its conversation.

Requests of the orchestrator carry the fence of their lease. A late holder's is lower, and is refused for ever after,
also over a restart: the number is on disk before a request with a higher one is served.
"""

from __future__ import annotations

import threading
from pathlib import Path

from runtime.store.files import private_directory, write_atomic

_MOST_DIGITS = 19


class BadFence(ValueError):
    """What was sent is no fence."""


class StaleFence(Exception):
    """Another holder came after the one that sent this."""

    def __init__(self, highest: int) -> None:
        super().__init__(f"the highest fence is {highest}")
        self.highest = highest


class FenceKeeper:
    """Thread-safe. `admit` blocks on the disk when the fence is new."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "fence"
        self._lock = threading.Lock()
        self._highest = _read(self._path)

    def is_known(self, text: str) -> bool:
        """Whether this is the highest one, so that nothing has to be written. Raises BadFence, StaleFence."""
        fence = number(text)
        if fence < self._highest:
            raise StaleFence(self._highest)
        return fence == self._highest

    @property
    def highest(self) -> int:
        """The highest one that was admitted, 0 when none was."""
        return self._highest

    def admit(self, text: str) -> None:
        """Remember a higher fence. Raises BadFence, StaleFence, OSError."""
        with self._lock:
            if self.is_known(text):
                return
            private_directory(self._path.parent)
            write_atomic(self._path, text.strip().encode())
            self._highest = number(text)


def number(text: str) -> int:
    """The fence that a header says. Raises BadFence."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > _MOST_DIGITS:
        raise BadFence
    return int(text)


def _read(path: Path) -> int:
    """0 when there is none. Raises OSError, and BadFence for a damaged file: guessing would let a late holder in."""
    try:
        return number(path.read_text())
    except FileNotFoundError:
        return 0
