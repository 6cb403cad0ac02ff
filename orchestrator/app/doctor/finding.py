"""What one check of the doctor found."""

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"  #: it works, and somebody should know
    FAILURE = "failure"  #: something has to be changed


@dataclass(frozen=True)
class Finding:
    about: str
    level: Level
    message: str
    hint: str = ""  #: what to change


def from_error(about: str, error: Exception) -> Finding:
    """A failure that has a name, with its own hint."""
    return Finding(about, Level.FAILURE, str(error), getattr(error, "hint", None) or "")
