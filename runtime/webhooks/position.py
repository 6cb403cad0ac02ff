"""How far one receiver has acknowledged one conversation: a small file beside the conversation's log.

The log itself is what is kept for a receiver; this is only the place in it. It is written in place and without waiting
for the disk: when a power cut takes it back, some batches are sent once more, and nothing is lost. Blocking, for some
microseconds.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger()

#: one length for every content, so that a shorter one leaves nothing of a longer one behind
_BYTES = 160
_PREFIX = "webhook-"


@dataclass(frozen=True)
class Position:
    """Numbers of events count from 1, as sequences do; 0 is none."""

    acknowledged: int = 0  #: the last event that the receiver has
    sending: int = 0  #: the last event of the batch under way: it is repeated whole, whatever came meanwhile
    state: str = ""  #: what the conversation was like when the receiver last took it: a digest


class PositionFile:
    """Reads, then remembers. One writer at a time: the server that has the conversation."""

    def __init__(self, folder: Path, receiver: str) -> None:
        self._path = folder / f"{_PREFIX}{receiver}"
        self._told = False
        self.now = _read(self._path)

    def refresh(self) -> None:
        """Read again: another server may have had the conversation meanwhile."""
        if not self._told:  # else the file is behind
            self.now = _read(self._path)

    def change(self, **fields: Any) -> None:
        """Remember, and write. A failure is logged once: then a restart sends some batches again."""
        changed = replace(self.now, **fields)
        if changed == self.now:
            return
        self.now = changed
        try:
            write(self._path.parent, self._path.name.removeprefix(_PREFIX), changed)
        except OSError as error:
            if not self._told:
                self._told = True
                log.warning("webhook.position_not_written", error=error.strerror, effect="batches may be sent again")


def write(folder: Path, receiver: str, position: Position) -> None:
    """Raises OSError."""
    content = json.dumps(asdict(position)).encode().ljust(_BYTES - 1) + b"\n"
    descriptor = os.open(folder / f"{_PREFIX}{receiver}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, content, 0)
    finally:
        os.close(descriptor)


def read(folder: Path, receiver: str) -> Position:
    """The beginning when there is no file, or none that makes sense."""
    return _read(folder / f"{_PREFIX}{receiver}")


def exists(folder: Path, receiver: str) -> bool:
    return (folder / f"{_PREFIX}{receiver}").exists()


def _read(path: Path) -> Position:
    try:
        found = Position(**json.loads(path.read_bytes()))
        numbers = (found.acknowledged, found.sending)
        if all(type(number) is int and number >= 0 for number in numbers) and isinstance(found.state, str):
            return found
    except FileNotFoundError:
        return Position()
    except (OSError, ValueError, TypeError):
        pass
    log.warning("webhook.position_unreadable", file=path.name, effect="the conversation is sent from its beginning")
    return Position()
